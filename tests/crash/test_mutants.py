"""A check is as good as the bugs it finds: each mutant is found by the check named for it.

Those for which calls have to fail take longer: `nox -s mutants` has them too.
"""

import pytest

from tests.crash.hunt import CHECKS, finds
from tests.crash.mutants import MUTANTS


@pytest.mark.parametrize(
    "mutant", [each for each in MUTANTS if each.found_by != "failures"], ids=lambda each: each.name
)
def test_a_seeded_bug_is_found(mutant):
    assert finds(mutant.found_by, mutant) is not None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.name)
def test_a_bug_can_still_be_seeded(mutant):
    with pytest.MonkeyPatch.context() as patch:
        mutant.seed(patch)


def test_there_are_enough_and_of_every_kind():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 40
    assert {mutant.found_by for mutant in MUTANTS} == set(CHECKS)
