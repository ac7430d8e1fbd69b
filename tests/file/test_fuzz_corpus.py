"""Every file that the fuzzer keeps, without the fuzzer: seeds, and whatever it once found."""

import random
from pathlib import Path

import pytest

from fuzz.make_corpus import CORPUS, seeds
from fuzz.mutate import join, mutated, split
from fuzz.target import check

FILES = sorted(path for path in CORPUS.iterdir() if path.is_file())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_corpus(path: Path):
    check(path.read_bytes())


def test_the_corpus_is_small_and_holds_the_seeds():
    assert sum(path.stat().st_size for path in FILES) < 100_000
    names = {path.name for path in FILES}
    assert {f"seed-{name}" for name in seeds()} <= names


@pytest.mark.parametrize("name", ["small", "tables", "pages", "compacted"])
def test_what_the_mutator_puts_together_again_is_a_file_like_before(name):
    data = seeds()[name]
    assert split(join(*split(data)))[1] == split(data)[1]


@pytest.mark.parametrize("seed", range(20))
def test_mutants_of_the_seeds(seed):
    chance = random.Random(seed)

    def mutate(data, most):
        changed = bytearray(data or b"\0")
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        return bytes(changed)[:most]

    for data in seeds().values():
        check(mutated(data, mutate, seed, 16_384))
