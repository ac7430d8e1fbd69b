"""Bad input of every kind: the named error, nothing recorded, and the file as it was."""

import asyncio
import math
import os
import shutil
import socket
import struct
import subprocess
import sys
import uuid
import zlib
from pathlib import Path

import pytest

from memvid_async import (
    CorruptFileError,
    Durability,
    InvalidValueError,
    LimitExceededError,
    Limits,
    MemvidAsyncError,
    NotAStoreError,
    RecordingConfig,
    StoreConfig,
    StoreFailedError,
    StoreNotFoundError,
    StoreReadOnlyError,
    UnsupportedVersionError,
    open_store,
)
from memvid_async.format.header import VERSION

MILLION = "x" * 1_000_000
LONE = "lone \ud800 surrogate"


def nested(depth, value=None, wrap=lambda inner: [inner]):
    for _ in range(depth):
        value = wrap(value)
    return value


def endless():
    value = []
    value.append(value)
    return value


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class Odd:
    """Raises an error when it is looked at."""

    def __repr__(self):
        raise ZeroDivisionError

    def __iter__(self):
        raise ZeroDivisionError


# What each kind of argument refuses, by a name for the test's id.
TEXT = {
    "None": None,
    "int": 5,
    "bytes": b"x",
    "list": ["x"],
    "object": object(),
    "surrogate": LONE,
}
NAME = TEXT | {"million": MILLION, "odd": Odd()}
OPTIONAL_NAME = {key: value for key, value in NAME.items() if key != "None"}
CONTENT = {
    "None": None,
    "int": 5,
    "float": 1.5,
    "list": ["x"],
    "bytearray": bytearray(b"x"),
    "memoryview": memoryview(b"x"),
    "object": object(),
    "surrogate": LONE,
    "large surrogate": "y" * 100_000 + "\udfff",
}
NUMBER = {
    "None": None,
    "str": "1",
    "nan": math.nan,
    "inf": math.inf,
    "negative": -1,
    "bool": True,
    "complex": 1j,
    "beyond": 2**64,
    "huge": 10**400,
}
COUNT = NUMBER | {"float": 1.0, "beyond": 2**63}
TOKENS = {key: value for key, value in COUNT.items() if key != "None"}
FRAMES = {
    "None": None,
    "int": 5,
    "str": "12",
    "bytes of it": [b"1"],
    "nested": [[1]],
    "negative": [-1],
    "float": [1.0],
    "bool": [True],
    "beyond": [2**63],
    "None in it": [None],
    "odd": [Odd()],
    "odd itself": Odd(),
}
VALUE = {
    "object": object(),
    "tuple": (1, 2),
    "set": {1},
    "key beyond 64 bits": {2**64: 1},
    "surrogate": [LONE],
    "surrogate key": {LONE: 1},
    "tuple key": {(1,): 1},
    "None key": {None: 1},
    "bool key": {True: 1},
    "float key": {1.5: 1},
    "bytearray": bytearray(b"x"),
    "complex": 1j,
    "class": int,
    "33 deep": nested(33),
    "33 deep maps": nested(33, 1, lambda v: {"a": v}),
    "5,000 deep": nested(5000),
    "5,000 deep maps": nested(5000, 1, lambda v: {"a": v}),
    "200,000 deep": nested(200_000),
    "endless": endless(),
    "range": range(3),
    "odd": Odd(),
    "over its limit": "x" * 2_000_000,
    "many": [None] * 2_000_000,
}
METADATA = {
    "int": 5,
    "str": "x",
    "list": [1],
    "pairs": [("a", 1)],
    "tuple key": {(1,): 1},
    "None key": {None: 1},
    "odd": Odd(),
} | {f"value: {key}": {"a": value} for key, value in VALUE.items()}
MESSAGES = {
    "None": None,
    "int": 5,
    "str": "text",
    "bytes": b"x",
    "dict": {"role": "user"},
    "set": {1},
    "iterator": iter([1]),
    "odd": Odd(),
} | {f"value: {key}": [{"role": "user"}, value] for key, value in VALUE.items()}

COMMON = {
    "task": OPTIONAL_NAME,
    "metadata": METADATA,
}
GOOD = {
    "record_ask": {"query": "q", "provider": "p", "model": "m", "response": "r", "duration_ms": 1},
    "record_find": {"query": "q", "mode": "m", "result_count": 1, "result_frames": [1]},
    "record_put": {"frame_id": 1, "data": "d"},
    "record_put_many": {"frame_ids": [1]},
    "record_update": {"frame_id": 1, "data": "d"},
    "record_delete": {"frame_id": 1},
    "record_tool_call": {"name": "n", "arguments": {}},
}
BAD = {
    "record_ask": {
        "query": CONTENT,
        "provider": OPTIONAL_NAME,
        "model": OPTIONAL_NAME,
        "retrieved_frames": FRAMES,
        "messages": MESSAGES,
    },
    "record_find": {
        "query": CONTENT,
        "mode": NAME,
        "result_count": COUNT,
        "result_frames": FRAMES,
    },
    "record_put": {"frame_id": COUNT, "data": CONTENT},
    "record_put_many": {"frame_ids": FRAMES},
    "record_update": {"frame_id": COUNT, "data": CONTENT},
    "record_delete": {"frame_id": COUNT},
    "record_tool_call": {"name": NAME, "arguments": VALUE},
}
TABLE = [
    (method, argument)
    for method, bad in BAD.items()
    for argument in (*bad, *(COMMON if method in ("record_ask", "record_delete") else ()))
]


@pytest.fixture
async def store(make_store):
    """A store in the middle of its work."""
    store = await make_store()
    await store.start_session()
    await store.record_put(1, "before")
    return store


@pytest.fixture
def snapshot(store):
    """Compares the store's file and place in the log to what they were."""
    before = (store.last_sequence, store.path.read_bytes())

    def unchanged():
        return (store.last_sequence, store.path.read_bytes()) == before

    return unchanged


@pytest.mark.parametrize(("method", "argument"), TABLE, ids=lambda value: value)
async def test_what_cannot_be_recorded_is_refused(store, snapshot, method, argument):
    for name, value in {**COMMON, **BAD[method]}[argument].items():
        arguments = GOOD[method] | {argument: value}
        try:
            outcome = await getattr(store, method)(**arguments)
        except Exception as error:  # noqa: BLE001 - which one it is decides
            outcome = error
        expected = (InvalidValueError, LimitExceededError)
        if "odd" in name:
            expected += (ZeroDivisionError,)
        assert isinstance(outcome, expected), f"{name}: {outcome!r:.200}"
        assert len(str(outcome)) < 500
    await store.sync()
    assert snapshot()
    assert await store.record_put(2, "after") is not None


ONE = str(uuid.UUID(int=2**127 + 5))
NO_IDS = [
    *("id", "", None, 5, b"\0" * 16, ONE.encode(), LONE, MILLION, ONE[:-1], f"{ONE}0", f" {ONE}"),
    *(f"{{{ONE}}}", f"urn:uuid:{ONE}", f"{ONE[:8]}_{ONE[9:]}", "\N{ARABIC-INDIC DIGIT ONE}" * 32),
]
LOOKUPS = {
    "get_session": NO_IDS,
    "delete_session": NO_IDS,
    "fork": NO_IDS,
    "read_content": ["x", None, 5, b"x"],
    "read_arguments": ["x", None, 5],
    "read_messages": ["x", None, 5],
    "verify": [5, "x"],
    "start_session": [5, b"name", LONE, MILLION],
}


@pytest.mark.parametrize("method", LOOKUPS)
async def test_what_is_no_such_thing_is_refused(store, snapshot, method):
    for value in LOOKUPS[method]:
        with pytest.raises((InvalidValueError, LimitExceededError)):
            await getattr(store, method)(value)
    await store.sync()
    assert snapshot()


@pytest.mark.parametrize("value", NO_IDS)
async def test_what_is_no_session_id_is_refused_everywhere(store, snapshot, value):
    view = await store.at(sequence=store.last_sequence)
    calls = [
        lambda: view.get_session(value),
        lambda: store.compare(value, uuid.uuid4()),
        lambda: store.compare(store.active_session_id, value),
        lambda: store.replay(value).report(),
        lambda: store.audit(value, {}),
    ]
    if value is not None:
        calls.append(lambda: store.at(session_id=value))
    for call in calls:
        with pytest.raises(InvalidValueError, match="a session id must be a UUID or the str of"):
            await call()
    assert snapshot()


async def test_arguments_of_what_is_no_tool_call_are_refused(store):
    action = await store.record_put(1, "x")
    with pytest.raises(InvalidValueError):
        await store.read_arguments(action)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        *(("session", {"name": value}) for value in (5, b"x", LONE, MILLION)),
        *(("session", {"config": value}) for value in (5, {}, "x", StoreConfig())),
        *(("session", {"metadata": value}) for value in METADATA.values()),
        *(("resume_session", {"session_id": value}) for value in NO_IDS),
        *(("subscribe", {"after": value}) for value in (-1, "1", 1.0, None, True)),
        *(("subscribe", {"session_id": value}) for value in NO_IDS if value is not None),
        *(("serve", {"session_id": value}) for value in NO_IDS if value is not None),
    ],
)
async def test_what_begins_nothing_is_refused(store, snapshot, method, arguments):
    async def use():
        async with getattr(store, method)(**arguments):
            pass

    with pytest.raises((InvalidValueError, LimitExceededError, ZeroDivisionError)):
        await use()
    await store.sync()
    assert snapshot()


CONFIGS = {
    StoreConfig: {
        "durability": ["sync", None, 5],
        "recording": [None, {}, 5],
        "limits": [None, {}, 5],
        "clock": [None, 5],
        "id_factory": [None, uuid.uuid4()],
        "flush_interval": [None, "1", -1, math.nan, math.inf, True],
        "lock_timeout": [None, "1", -1, math.nan, True],
        "poll_interval": [None, "1", -1, 0, math.nan, math.inf, True],
    },
    RecordingConfig: {
        "auto_checkpoint_interval": [None, -1, 1.0, "1", True, 2**64, 10**400],
        "max_actions": [0, -1, 1.0, "1", True, 2**64, 10**400],
        "auto_record": [None, 1, "yes"],
    },
    Limits: {
        name: [None, 0, -1, 1.5, "1", True, math.inf]
        for name in (
            "content_bytes",
            "value_bytes",
            "messages_bytes",
            "name_chars",
            "error_chars",
            "frames",
            "queue_bytes",
            "batch_bytes",
            "tail_bytes",
            "read_bytes",
        )
    },
}


@pytest.mark.parametrize(
    ("made", "name"),
    [(made, name) for made, fields in CONFIGS.items() for name in fields],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_configuration_that_makes_no_sense_is_refused(made, name):
    for value in CONFIGS[made][name]:
        with pytest.raises(InvalidValueError) as caught:
            made(**{name: value})
        assert name in str(caught.value), value


@pytest.mark.parametrize(
    "arguments",
    [
        {"path": None},
        {"path": 5},
        {"path": ...},
        {"path": b"bytes"},
        {"path": "a\0b"},
        {"path": "\ud800"},
        {"config": 5},
        {"config": {}},
        {"config": Limits()},
        {"read_only": None},
        {"read_only": "no"},
        {"read_only": 1},
    ],
    ids=repr,
)
async def test_opening_with_the_wrong_arguments(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    arguments = {"path": tmp_path / "store.mva"} | arguments
    with pytest.raises(InvalidValueError):
        await open_store(arguments.pop("path"), **arguments)
    assert names(tmp_path) == []


# Files.


def of_version(whole, version):
    fields = whole[:8] + struct.pack("<H", version) + whole[10:32]
    return fields + struct.pack("<I", zlib.crc32(fields)) + whole[36:]


FILES = {
    "text": (NotAStoreError, lambda _: b"Dear diary,\n" * 200),
    "short text": (NotAStoreError, lambda _: b"hi"),
    "mv2": (NotAStoreError, lambda _: b"MV2\0\x02\x01" + os.urandom(8192)),
    "bare mv2": (NotAStoreError, lambda _: b"MV2\0"),
    "sqlite": (NotAStoreError, lambda _: b"SQLite format 3\0" + bytes(4096)),
    "zeros": (NotAStoreError, lambda _: bytes(65536)),
    "random": (NotAStoreError, lambda _: b"\x8f" + os.urandom(8191)),
    "newer version": (UnsupportedVersionError, lambda w: of_version(w, VERSION + 1)),
    "older version": (UnsupportedVersionError, lambda w: of_version(w, VERSION - 1)),
    "unknown flag": (UnsupportedVersionError, lambda w: w[:10] + b"\1\0" + w[12:]),
    "damaged header": (CorruptFileError, lambda w: w[:20] + bytes([w[20] ^ 1]) + w[21:]),
}


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("kind", FILES)
async def test_a_wrong_file_is_named_and_left_as_it_is(make_store, tmp_path, kind, read_only):
    store = await make_store("good.mva")
    await store.start_session()
    await store.aclose()
    error, make = FILES[kind]
    path = tmp_path / "wrong.mva"
    path.write_bytes(make((tmp_path / "good.mva").read_bytes()))
    os.utime(path, ns=(10**18, 10**18))
    before = path.read_bytes()
    with pytest.raises(error) as caught:
        await open_store(path, read_only=read_only)
    if "mv2" in kind:
        assert "mv2" in str(caught.value)
    assert path.read_bytes() == before
    assert path.stat().st_mtime_ns == 10**18
    assert names(tmp_path) == ["good.mva", "wrong.mva"]


def make_socket(path):
    # Bound under a short relative name: a socket's path has few bytes.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


PLACES = {
    "directory": (NotAStoreError, lambda path: path.mkdir()),
    "pipe": (NotAStoreError, os.mkfifo),
    "socket": (MemvidAsyncError, make_socket),
    "link": (NotAStoreError, lambda path: path.symlink_to("good.mva")),
    "dangling link": (NotAStoreError, lambda path: path.symlink_to("nowhere")),
    "link to itself": (NotAStoreError, lambda path: path.symlink_to(path.name)),
}


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("kind", PLACES)
async def test_a_place_that_is_no_file_is_named(make_store, tmp_path, kind, read_only):
    store = await make_store("good.mva")
    await store.aclose()
    before = (tmp_path / "good.mva").read_bytes()
    error, make = PLACES[kind]
    make(tmp_path / "wrong")
    with pytest.raises(error):
        await open_store(tmp_path / "wrong", read_only=read_only)
    assert names(tmp_path) == ["good.mva", "wrong"]
    assert (tmp_path / "good.mva").read_bytes() == before


async def test_paths_that_lead_nowhere_are_named(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    for path, error in [
        (tmp_path / "no" / "store.mva", StoreNotFoundError),
        (tmp_path / "file" / "store.mva", NotAStoreError),
        ("", NotAStoreError),
        ("/", NotAStoreError),
        ("/dev/null", NotAStoreError),
        ("/dev/zero", NotAStoreError),
        (tmp_path / ("n" * 300), (NotAStoreError, StoreFailedError)),
    ]:
        for read_only in (False, True):
            with pytest.raises(error):
                await open_store(path, read_only=read_only)
    assert names(tmp_path) == ["file"]


READ_ONLY_CHILD = """
import asyncio, sys
from memvid_async import *
async def main():
    try:
        async with open_store(sys.argv[1]) as store:
            print("opened")
    except StoreReadOnlyError as error:
        print("StoreReadOnlyError", error)
    async with open_store(sys.argv[1], read_only=True) as store:
        print(store.is_recording)
        try:
            await store.record_put(1, "x")
        except StoreReadOnlyError:
            print("refused")
asyncio.run(main())
"""


async def test_a_file_without_permission_to_write(make_store, tmp_path):
    store = await make_store()
    await store.start_session()
    await store.aclose()
    path = tmp_path / "store.mva"
    path.chmod(0o400)
    before = path.read_bytes()
    command = [sys.executable, "-c", READ_ONLY_CHILD, str(path)]
    if os.geteuid() == 0:
        # The superuser writes what he likes, unless that capability is taken from him.
        if shutil.which("setpriv") is None:
            pytest.skip("permissions do not hold for root, and there is no setpriv to be less")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    child = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False
    )
    if "setpriv:" in child.stderr:
        pytest.skip(child.stderr.strip())
    first, *rest = child.stdout.splitlines()
    assert (first.split()[0], rest, child.stderr) == (
        "StoreReadOnlyError",
        ["True", "refused"],
        "",
    )
    assert path.read_bytes() == before


@pytest.mark.parametrize("durability", Durability, ids=lambda value: value.value)
async def test_what_is_refused_late_changes_nothing_either(make_store, durability):
    """Refused by the writer, in the midst of what it takes."""
    store = await make_store(config=StoreConfig(durability=durability))
    async with store.session() as recorder:
        pass
    sequence = store.last_sequence
    for call in (
        recorder.record_put(1, "x"),
        recorder.record_put(1, "x" * 5000),
        recorder.create_checkpoint(),
        store.end_session(),
        store.create_checkpoint(),
        store.delete_session(uuid.uuid4()),
        store.resume_session(recorder.session_id).__aenter__(),
    ):
        with pytest.raises(MemvidAsyncError):
            await call
    await store.sync()
    assert store.last_sequence == sequence
    assert store.statistics().content_count == 0
    with pytest.raises(StoreReadOnlyError):
        await (await make_store(read_only=True)).start_session()
