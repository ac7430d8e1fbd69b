"""A check is as good as the bugs it finds: each mutant is found by the check named for it."""

import pytest

from tests.crash.mutants import CHECKS, MUTANTS, finds


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_seeded_bug_is_found(mutant):
    assert finds(mutant.found_by, mutant) is not None


def test_there_are_enough_and_of_every_kind():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 40
    assert {mutant.found_by for mutant in MUTANTS} == set(CHECKS)
