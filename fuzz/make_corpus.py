"""Writes the seeds of the corpus: small files with everything a file can hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from memvid_async import ActionKind
from memvid_async.core import commands
from memvid_async.core.recent_keys import NO_KEY
from memvid_async.events.keyed import (
    KeyChange,
    KeyDeleted,
    KeyPut,
    KeyRenewed,
    ListChanged,
    PrefixDeleted,
)
from memvid_async.file.journal import Journal
from memvid_async.storage import RamStorage

from .mutate import join, split
from .target import ask, carry_out, change, config, record, small_tables, start

CORPUS = Path(__file__).parent / "corpus"


def seeds() -> dict[str, bytes]:
    """The seeds by name."""
    with small_tables():
        storage = RamStorage()
        journal = Journal.open(storage, config())
        found = {"new": bytes(storage.data)}
        done(journal, [start(1, ambient=True)])
        done(journal, [ask((), "why?", "because", "be brief", {"content": "why?"})])
        found["small"] = bytes(storage.data)
        chat = ["be brief", "p" * 40, "c" * 1100]
        done(journal, [ask((), "p" * 40, "q" * 40, *chat), ask((), "x", "y", *chat, "q" * 40)])
        done(journal, [start(2), start(3), start(4)])
        numbers = list(journal.view.state.sessions)
        for number in numbers[1:]:
            for turn in range(3):
                done(journal, [record(number, ActionKind.PUT, input=f"{turn}", frames=(turn,))])
        detail = ("look",)
        done(
            journal,
            [
                record((), ActionKind.TOOL_CALL, input={"a": [1]}, output=b"\0", detail=detail),
                record((), ActionKind.FIND, input="x", frames=(1, 2), detail=("lex", 2)),
                record((), ActionKind.DELETE, frames=(1,), error="no", metadata={"k": 1}),
                record((), ActionKind.PUT_MANY, frames=(1, 2, 3), task="t"),
                record((), ActionKind.UPDATE, input="d" * 1024, frames=(1,)),
            ],
        )
        found["tables"] = bytes(storage.data)
        for number in numbers[1:]:
            done(journal, [commands.EndSession(number, "failed")])
        done(journal, [ask((), "x", "z" * 1200)])
        done(journal, [start(5), *[ask((), f"{n}", "r") for n in range(8)]])
        storage.truncate(journal.view.end)
        found["pages"] = bytes(storage.data)
        kept = journal.view.state.sessions[numbers[1]].info.session_id
        done(journal, [commands.DeleteSession(kept)])
        journal.compact(lambda *_: None)
        found["compacted"] = bytes(journal.view.reader.storage.read(0, journal.view.end))
        begin, parts = split(found["small"])
        found["newer"] = join(begin, [*parts, (9, parts[-1][1] + 1, b"\xa0")])
        found["memory"] = memory()
        found["keyed"] = keyed()
        found["torn"] = found["small"][:-7] + b"\xff\xff"
        return found


def done(journal: Journal, batch: Sequence[commands.Command]) -> None:
    """Commit a batch. A refused command would leave a seed without what it is for."""
    refused = [one for one in carry_out(journal, batch) if isinstance(one, Exception)]
    assert not refused, refused


def memory() -> bytes:
    """A file of frames: put, changed and deleted; in a session, in a fork of it, and in none."""
    storage = RamStorage()
    journal = Journal.open(storage, config())
    vector = {"embedding": [1.0, 0.5], "embedding_model": "m"}
    full = {"content": "a topic", "title": "t", "uri": "u:1", "tags": ["a"], "metadata": {"k": 1}}
    done(journal, [change((), ActionKind.PUT, {**full, **vector})])
    done(journal, [start(1, ambient=True)])
    done(journal, [change((), ActionKind.PUT_MANY, "words " * 300, {"content": b"raw"})])
    done(
        journal,
        [
            change((), ActionKind.UPDATE, frame_id=1, title="other", tags=("b", "c")),
            change((), ActionKind.UPDATE, frame_id=2, media_type="text/plain"),
            change((), ActionKind.DELETE, frame_id=3),
            record((), ActionKind.FIND, input="topic", frames=(1, 2), detail=("lexical", 2)),
            ask((), "topic?", "yes"),
        ],
    )
    storage.truncate(journal.view.end)
    return bytes(storage.data)


def keyed() -> bytes:
    """A file of collections: keys put, changed, deleted and checked, lists, idempotency keys."""
    storage = RamStorage()
    journal = Journal.open(storage, config())

    def changed(*changes: KeyChange) -> commands.ChangeCollection:
        return commands.ChangeCollection("c", changes, (), dict.fromkeys("kl", NO_KEY), 2**40, 9)

    put = KeyPut("k", b"\x61x", b"\xa1\x61n\x01", 2**62, "model", (b"\0\0\x80?",))
    renewed = KeyRenewed("k", 2, 2**62 + 1)
    done(
        journal,
        [changed(put), changed(renewed), changed(ListChanged("l", items=(b"\x01", b"\x02")))],
    )
    done(journal, [start(1, ambient=True)])
    action = record((), ActionKind.DELETE, frames=(1,))
    done(journal, [commands.OnlyOnce(action, "key", bytes(16)), changed(KeyDeleted("k"))])
    done(journal, [changed(ListChanged("l", 1, 1, (b"\x03",)), PrefixDeleted("a/"))])
    storage.truncate(journal.view.end)
    return bytes(storage.data)


def main() -> None:
    """Write them."""
    CORPUS.mkdir(exist_ok=True)
    for name, data in seeds().items():
        (CORPUS / f"seed-{name}").write_bytes(data)


if __name__ == "__main__":
    main()
