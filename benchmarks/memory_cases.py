"""The memory index beside the bare FTS5 that it stands on: indexing, finding, saving, loading."""

import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from itertools import accumulate
from statistics import median

from attrs import frozen

from memvid_async.search import IndexedFrame, SearchIndex
from memvid_async.search.query import parse
from memvid_async.search.schema import PAGE_SIZE
from memvid_async.search.stopwords import STOP_WORDS

DOCUMENTS = 50_000
# A save is due when the text grew by this part since the last.
GROWTH = 1 / 16
_VOCABULARY = 60_000
_CONSONANTS, _VOWELS = "bcdfghklmnprstvwzjqx", "aeiou"


@cache
def vocabulary() -> tuple[str, ...]:
    """Made-up words that can be spoken; the first are the most common."""

    def word(number: int) -> str:
        made, number = "", number + 1
        while number:
            number, part = divmod(number, len(_CONSONANTS))
            made += _CONSONANTS[part] + _VOWELS[(part + number) % len(_VOWELS)]
        return made

    return tuple(word(number) for number in range(_VOCABULARY))


@cache
def documents(count: int = DOCUMENTS, seed: int = 1) -> tuple[str, ...]:
    """Texts of about 290 characters, nearly half of them function words; words as common as in a
    language: the n-th of them once in n times."""
    rng = random.Random(seed)
    words, stops = vocabulary(), sorted(STOP_WORDS)
    word_weights = list(accumulate(1 / (rank + 3) for rank in range(len(words))))
    stop_weights = list(accumulate(1 / (rank + 1) for rank in range(len(stops))))

    def text() -> str:
        picked = rng.choices(words, cum_weights=word_weights, k=30)
        picked += rng.choices(stops, cum_weights=stop_weights, k=25)
        rng.shuffle(picked)
        return " ".join(picked)

    return tuple(text() for _ in range(count))


def queries() -> Mapping[str, str]:
    """What is asked for, by its name in the report."""
    words = vocabulary()
    return {
        "two rare words": f"{words[20_000]} {words[30_000]}",
        "three common words": f"{words[6]} {words[7]} {words[8]}",
        "a natural question": (
            f"What did {words[5]} say about the {words[300]} and the {words[2_000]}"
            f" when they were in {words[50]}?"
        ),
    }


@contextmanager
def indexed(texts: tuple[str, ...]) -> Iterator[tuple[SearchIndex, float]]:
    """An index of these texts, and the seconds that it took to make."""
    index = SearchIndex(lambda offset, *_: texts[offset])
    try:
        start = time.perf_counter()
        for number, text in enumerate(texts, start=1):
            index.put(
                IndexedFrame(number, number, number - 1, number, number, size=len(text)), text
            )
        yield index, time.perf_counter() - start
    finally:
        index.close()


@contextmanager
def bare(texts: tuple[str, ...]) -> Iterator[tuple[sqlite3.Connection, float]]:
    """FTS5 and nothing else, with the same analyser, and the seconds that it took to fill."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    try:
        database.execute(
            "CREATE VIRTUAL TABLE texts USING fts5 "
            "(body, content = '', tokenize = 'porter unicode61 remove_diacritics 2')"
        )
        start = time.perf_counter()
        database.execute("BEGIN")
        database.executemany(
            "INSERT INTO texts (rowid, body) VALUES (?, ?)", enumerate(texts, start=1)
        )
        database.execute("COMMIT")
        yield database, time.perf_counter() - start
    finally:
        database.close()


@frozen
class FindTimes:
    """Seconds of one find: ours, and of the bare FTS5 query for the same words."""

    ours: float
    bare: float


def finding(index: SearchIndex, database: sqlite3.Connection, repeats: int) -> dict[str, FindTimes]:
    """The median times of each of :func:`queries`, taken in turn."""

    def plain(match: str | None) -> object:
        sql = "SELECT rowid, rank FROM texts WHERE texts MATCH ? ORDER BY rank LIMIT 10"
        return database.execute(sql, (match,)).fetchall()

    return {
        name: FindTimes(
            *_in_turn(repeats, partial(index.find, query), partial(plain, parse(query).match))
        )
        for name, query in queries().items()
    }


@frozen
class SaveFigures:
    """Seconds to dump an index whole, to load it, and of the first find in what was loaded;
    ``amplification``: all bytes ever dumped while it grew, by its final size."""

    dump: float
    load: float
    first_find: float
    final_bytes: int
    amplification: float


def saving(texts: tuple[str, ...]) -> SaveFigures:
    """Index the texts, dumping at every sixteenth of growth; then load the last state."""
    index = SearchIndex(lambda offset, *_: texts[offset])
    other = SearchIndex(lambda offset, *_: texts[offset])
    try:
        dumped, size, saved_size = 0, 0, 64 * 1024
        for number, text in enumerate(texts, start=1):
            index.put(
                IndexedFrame(number, number, number - 1, number, number, size=len(text)), text
            )
            size += len(text)
            if size > saved_size * (1 + GROWTH):
                dumped, saved_size = dumped + len(index.dump().pages), size
        dumped += len(index.dump().pages)
        index.forget_saved()
        start = time.perf_counter()
        whole = index.dump()
        dump_seconds = time.perf_counter() - start
        start = time.perf_counter()
        other.load(whole.page_count, whole.pages)
        load_seconds = time.perf_counter() - start
        start = time.perf_counter()
        other.find(queries()["a natural question"])
        return SaveFigures(
            dump=dump_seconds,
            load=load_seconds,
            first_find=time.perf_counter() - start,
            final_bytes=whole.page_count * PAGE_SIZE,
            amplification=dumped / whole.page_count,
        )
    finally:
        index.close()
        other.close()


def _in_turn(repeats: int, *calls: Callable[[], object]) -> list[float]:
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, seconds in zip(calls, taken, strict=True):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return [median(seconds) for seconds in taken]


def main() -> None:
    """Print the figures."""
    texts = documents()
    with indexed(texts) as (index, ours), bare(texts) as (database, plain):
        print(f"indexing: {len(texts) / ours:,.0f} documents/s, {ours / plain:.2f} x bare FTS5")
        for name, times in finding(index, database, 15).items():
            ratio = times.ours / times.bare
            print(f"{name}: {times.ours * 1e3:.2f} ms, {ratio:.2f} x the bare query")
    figures = saving(texts)
    loading = (figures.load + figures.first_find) / ours
    print(
        f"dump {figures.dump * 1e3:.0f} ms, load and first find {loading:.3f} x indexing; "
        f"{figures.final_bytes / 1e6:.1f} MB, amplification {figures.amplification:.2f}"
    )


if __name__ == "__main__":
    main()
