"""The names that a recovery takes beside its new file, and what it finds there."""

from uuid import UUID

import pytest

from memvid_async import InvalidValueError
from memvid_async.file.journal import Journal
from memvid_async.file.recover import recover_file
from memvid_async.format.header import LOG_START, Header
from memvid_async.storage import FileStorage, RamStorage
from tests.support.naive import ask, command, fixed_config, start

OURS = UUID(int=77)


@pytest.fixture(params=["new.mva", "n" * 250])
def out(request, tmp_path):
    return tmp_path / request.param


@pytest.fixture
def damaged(tmp_path):
    storage = RamStorage()
    journal = Journal.open(storage, fixed_config())
    journal.commit([start(1), *(command(ask(1, text)) for text in ("one", "two", "six"))])
    path = tmp_path / "damaged.mva"
    path.write_bytes(bytes(storage.data[: journal.view.end]))
    return path


def nothing(_done, _total):
    pass


class KilledError(Exception):
    pass


def left_by_a_kill(damaged, out, monkeypatch, after):
    """What is beside ``out`` when a recovery dies: after this many writes, leaving its file."""
    left = after

    def write(storage, offset, data):
        nonlocal left
        left -= 1
        if left < 0:
            raise KilledError
        real(storage, offset, data)

    real = FileStorage.write
    with monkeypatch.context() as patch:
        patch.setattr(FileStorage, "write", write)
        patch.setattr("pathlib.Path.unlink", lambda *_, **__: None)
        with pytest.raises(KilledError):
            recover_file(damaged, out, nothing)
    (found,) = [path for path in out.parent.iterdir() if path.name.endswith(".recovering")]
    return found


@pytest.mark.parametrize("after", [0, 1, 2])
def test_what_a_killed_recovery_left_is_removed_by_the_next(damaged, out, monkeypatch, after):
    left = left_by_a_kill(damaged, out, monkeypatch, after)
    assert recover_file(damaged, out, nothing).complete
    assert not left.exists()
    assert {path.name for path in out.parent.iterdir()} == {damaged.name, out.name}


def test_what_has_such_a_name_and_is_not_a_recoverys_is_left_alone(damaged, out, monkeypatch):
    left = left_by_a_kill(damaged, out, monkeypatch, 1)
    name = left.name[: -len(".recovering") - 32]
    other = Header(OURS).encode()
    kept = {
        # Another id than its header has; somebody's notes; a name without an id; another file's.
        out.with_name(f"{name}{UUID(int=78).hex}.recovering"): other,
        out.with_name(f"{name}{UUID(int=79).hex}.recovering"): b"notes",
        out.with_name(f"{name[:40]}.recovering"): other,
        out.with_name(f"x.{OURS.hex}.recovering"): other,
    }
    for path, data in kept.items():
        path.write_bytes(data)
    folder = out.with_name(f"{name}{UUID(int=80).hex}.recovering")
    folder.mkdir()
    recover_file(damaged, out, nothing)
    assert {path: path.read_bytes() for path in kept} == kept
    assert folder.is_dir()
    assert not left.exists()


def test_a_recovery_that_is_under_way_is_left_alone(damaged, out, monkeypatch):
    left = left_by_a_kill(damaged, out, monkeypatch, 1)
    running = FileStorage.open(left)
    running.lock(0)
    try:
        recover_file(damaged, out, nothing)
        assert left.exists()
    finally:
        running.close()


def test_a_store_is_never_replaced(damaged, out):
    out.write_bytes(Header(OURS).encode())
    with pytest.raises(InvalidValueError):
        recover_file(damaged, out, nothing)
    assert out.stat().st_size == LOG_START
