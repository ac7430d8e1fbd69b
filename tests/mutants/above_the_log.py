"""Seeded bugs above the log: in folds, the search index, subscriptions and compaction.

Each is a piece of the source and what stands there instead, with the tests that find it.

    python -m tests.mutants.above_the_log             seed each, and print whether it is found
    python -m tests.mutants.above_the_log fork        those with "fork" in their name

The exit status is 1 if one survives.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path("src/memvid_async")


@frozen
class Mutant:
    """``found_by``: a file of tests, or one of them, below ``tests/``."""

    name: str
    file: str
    old: str
    new: str
    found_by: str

    def seed(self, source: str) -> str:
        """Return the source with the bug in it."""
        assert source.count(self.old) == 1, f"{self.name}: the source has changed"
        return source.replace(self.old, self.new)


FOLDS = (
    Mutant(
        "a fork loses what its parent deletes later",
        "core/memory_state.py",
        "if frame_id in gone and gone[frame_id] <= until:",
        "if frame_id in gone:",
        "mutants/test_above_the_log.py",
    ),
    Mutant(
        "a fork sees what its parent puts later",
        "memory/folded.py",
        "event.sequence > self._until.get(branch, 0)",
        "branch not in self._until",
        "memory/test_fork.py",
    ),
    Mutant(
        "a fork of a fork sees too much of the first",
        "core/memory_state.py",
        "sequence, frame = min(sequence, found.base_sequence), min(frame, found.base_frame)",
        "sequence, frame = found.base_sequence, found.base_frame",
        "mutants/test_above_the_log.py",
    ),
    Mutant(
        "a fork's frames have no owner",
        "core/memory_state.py",
        "owners = memory.owners.changed(dict.fromkeys(put.frame_ids, number))",
        "owners = memory.owners",
        "memory/test_fork.py",
    ),
    Mutant(
        "a deleted frame is counted",
        "core/memory_state.py",
        "gone.set(frame_id, event.sequence), max(0, count - 1)",
        "gone.set(frame_id, event.sequence), count",
        "memory",
    ),
    Mutant(
        "another media type does not change what is searched",
        "memory/folded.py",
        "elif new.media_type != old.media_type:",
        "elif new.media_type is ...:",
        "memory/test_frames.py",
    ),
    Mutant(
        "verifying believes a saved index",
        "memory/checking_saved.py",
        "    if found != hash_folded(view, saved.through):",
        "    if not found:",
        "file/test_contradicting.py::test_a_saved_index_with_rows_missing_added_or_renumbered_is_not_believed",
    ),
    Mutant(
        "a saved index is believed",
        "memory/folded.py",
        "            index.check_frames(memory.frame_count, memory.last_frame, others)\n",
        "            pass\n",
        "file/test_contradicting.py::test_a_saved_index_with_rows_missing_added_or_renumbered_is_not_believed",
    ),
    Mutant(
        "an index that cannot be searched is not folded again",
        "memory/folded.py",
        "            self._restart(view, index.language, 0)\n",
        "            raise\n",
        "file/test_contradicting.py::test_a_saved_index_with_rows_missing_added_or_renumbered_is_not_believed",
    ),
)

SEARCH = (
    Mutant(
        "a deleted frame keeps its tags",
        "search/search_index.py",
        'run("DELETE FROM tags WHERE tag = ? AND id = ?", (tag, old.frame_id))',
        "pass",
        "search/test_search_index.py",
    ),
    Mutant(
        "a deleted frame keeps its vector",
        "search/search_index.py",
        "self._vectors.remove(old.frame_id)",
        "pass",
        "mutants/test_above_the_log.py",
    ),
    Mutant(
        "the number of frames stays after a deletion",
        "search/search_index.py",
        "        self.count -= 1\n",
        "",
        "search/test_search_index.py",
    ),
    Mutant(
        "the later frame comes first where scores tie",
        "search/fusion.py",
        "(-round(score * 1e6), key)",
        "(-round(score * 1e6), -key)",
        "search",
    ),
    Mutant(
        "how many frames have a word is never counted again",
        "search/search_index.py",
        "        self._counts.clear()\n",
        "",
        "search/test_search_index.py",
    ),
    Mutant(
        "a negative cosine counts",
        "search/fusion.py",
        "max(score, 0.0) / best",
        "score / best",
        "search",
    ),
    Mutant(
        "cosines below 0 tie",
        "search/fusion.py",
        "_UNLIKE_SHARE = 0.002",
        "_UNLIKE_SHARE = 0.0",
        "search/test_search_index.py",
    ),
)

KINDS = (
    Mutant(
        "a session changed after its end is open where nothing derived was read",
        "file/catalog.py",
        "if number in self.ended_chunks or number in self._ended:",
        "if number in self.ended_chunks:",
        "file/test_contradicting.py::test_a_log_with_nothing_derived_is_written_on",
    ),
    Mutant(
        "what a static method is given counts as its object",
        "recording/tool_decorator.py",
        "return not isinstance(vars(kind).get(name), staticmethod)",
        "return True",
        "recording/test_tools.py",
    ),
    Mutant(
        "what is staged before memory ends is taken for a file cut short",
        "file/journal.py",
        "        with told:\n",
        "        with suppress(MemvidAsyncError):\n",
        "engine/test_passing_failures.py",
    ),
)

SUBSCRIPTIONS = (
    Mutant(
        "the tail does not forget after a replacement",
        "engine/tail.py",
        "            self._forget()\n            self.on_rewritten()\n",
        "            self.on_rewritten()\n",
        "mutants/test_above_the_log.py",
    ),
    Mutant(
        "a reader that lags misses what left memory",
        "engine/tail.py",
        "        if start < 0:\n            return None\n",
        "        start = max(start, 0)\n",
        "engine/test_subscription.py",
    ),
    Mutant(
        "the tail keeps more than it may",
        "engine/tail.py",
        "self._most * 3 // 4, 0",
        "self._most * 3, 0",
        "engine/test_subscription.py",
    ),
    Mutant(
        "a closed store's file goes while it is read",
        "engine/tail.py",
        "if self.closed and not self.readers and not self._ended:",
        "if self.closed and not self._ended:",
        "engine/test_subscription.py",
    ),
    Mutant(
        "a deleted session's events are delivered",
        "engine/subscription.py",
        "and session not in self._state().sessions",
        "and session < 0",
        "engine/test_subscription.py",
    ),
    Mutant(
        "a follower that is closed at once keeps its thread",
        "engine/follower.py",
        "has ended nothing.\n        self._end()\n",
        "has ended nothing.\n",
        "engine/test_followers.py",
    ),
    Mutant(
        "the path is asked for before the notices are taken",
        "storage/notices.py",
        "taken = self._notices.take()\n        if right := is_right():\n",
        "right = is_right()\n        taken = self._notices.take()\n        if right:\n",
        "mutants/test_above_the_log.py",
    ),
)

COMPACTION = (
    Mutant(
        "a deleted fork's name stays in the file",
        "file/compact.py",
        "return started_row_without_names(row)",
        "return row",
        "mutants/test_above_the_log.py",
    ),
    Mutant(
        "a replaced file is never closed",
        "storage/disk.py",
        'if getattr(self, "_retired", False):',
        'if getattr(self, "_never", False):',
        "memory/test_beside_compaction.py",
    ),
    Mutant(
        "the contents of deleted frames stay",
        "file/compact.py",
        "if part is None or frame_id in part.gone or number not in left:",
        "if part is None or number not in left:",
        "file/test_erasing.py",
    ),
    Mutant(
        "a deletion is erased with its session",
        "file/compact.py",
        "or session == 0 or kind == DELETED:",
        "or session == 0:",
        "file/test_compact.py",
    ),
    Mutant(
        "the generation stays",
        "file/successor.py",
        "generation=source.header.generation + 1",
        "generation=source.header.generation",
        "file/test_compact.py",
    ),
    Mutant(
        "a deleted session's contents are kept",
        "file/compact.py",
        "if row[0] not in _REFERRING or session not in self._source.state.sessions:",
        "if row[0] not in _REFERRING:",
        "file/test_compact.py",
    ),
    Mutant(
        "what is recorded meanwhile may lack its contents",
        "file/compact.py",
        "return all(sequence > last or sequence in self._judge.kept for sequence in found)",
        "return True",
        "file/test_compact_beside.py",
    ),
    Mutant(
        "embeddings that are used meanwhile are left out",
        "file/compact.py",
        "return not 0 < row[3] <= last or row[3] in self._judge.moves",
        "return True",
        "file/test_compact_beside.py",
    ),
    Mutant(
        "a copy of another log is installed",
        "file/compact.py",
        "return (self.position, self._checksum) == (source.view.end, source.checksum)",
        "return True",
        "file/test_compact_beside.py",
    ),
    Mutant(
        "the file of a compaction that is under way is removed",
        "file/successor.py",
        "            found.lock(0)\n",
        "",
        "file/test_compact_beside.py",
    ),
    Mutant(
        "keys that a compaction erased count as unchanged",
        "file/compact.py",
        "target.catalog.recent_keys = RecentKeys(target.state.last_sequence)",
        "RecentKeys(target.state.last_sequence)",
        "file/test_compact_beside.py",
    ),
    Mutant(
        "a memory that took long to fold is not saved",
        "store/folding.py",
        "FoldedMemory(save_events=_WORTH_EVENTS)",
        "FoldedMemory()",
        "memory/test_beside_compaction.py",
    ),
    Mutant(
        "a recovery removes whatever has its name",
        "file/recover.py",
        "if is_unfinished(start, found.size()) or decode_header(start).file_id.hex == file_id:",
        "if file_id:",
        "file/test_recover_beside.py",
    ),
)

MUTANTS = (*FOLDS, *SEARCH, *KINDS, *SUBSCRIPTIONS, *COMPACTION)


def survives(mutant: Mutant | None, found_by: str) -> tuple[bool, str]:
    """Run tests over a copy of the source with the bug; whether they pass, and what they say."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "src")
        shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
        if mutant is not None:
            path = copy / "memvid_async" / mutant.file
            path.write_text(mutant.seed(path.read_text(encoding="utf-8")), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, "-k", "not uvloop", "--tb=line", f"tests/{found_by}"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{copy}{os.pathsep}{ROOT}"},
            capture_output=True,
            text=True,
            check=False,
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return done.returncode == 0, (lines or done.stdout.splitlines()[-1:] or [""])[0]


def main(*wanted: str) -> int:
    """Hunt all of them, two at a time."""
    chosen = [mutant for mutant in MUTANTS if all(word in mutant.name for word in wanted)]
    survivors = []

    def hunt(mutant: Mutant) -> tuple[Mutant, bool, str, float]:
        start = time.monotonic()
        return (mutant, *survives(mutant, mutant.found_by), time.monotonic() - start)

    with ThreadPoolExecutor(2) as pool:
        print("| mutant | found by | seconds |\n|---|---|---|")
        for mutant, lives, says, seconds in pool.map(hunt, chosen):
            if lives:
                survivors.append(mutant.name)
            print(
                f"| {mutant.name} | {'nothing' if lives else says:.100} | {seconds:.0f} |",
                flush=True,
            )
    print(f"\n{len(chosen)} mutants, {len(survivors)} survived: {survivors}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
