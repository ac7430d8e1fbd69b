"""Being told that a file's name changed must say what asking for the name would."""

import ctypes
import os
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import MemvidAsyncError
from memvid_async.storage import FileStorage, notices

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells, by inotify")


def watched() -> int:
    """How many files and directories this process is told of."""
    if notices._shared is None:
        return 0
    told = Path(f"/proc/self/fdinfo/{notices._shared.descriptor}").read_text(encoding="ascii")
    return told.count("inotify wd:")


NAMES = ("a", "b", "a.compact")
FOLDERS = ("one", "one/two", "three")
PLACES = st.tuples(st.sampled_from(FOLDERS), st.sampled_from(NAMES)).map("/".join)
STEPS = st.one_of(
    st.tuples(st.just("open"), PLACES),
    st.tuples(st.just("close"), st.integers(0, 3)),
    st.tuples(st.just("look"), st.integers(0, 3)),
    st.tuples(st.just("link"), PLACES, PLACES),
    st.tuples(st.just("delete"), PLACES),
    st.tuples(st.just("rename"), PLACES | st.sampled_from(FOLDERS), PLACES),
    st.tuples(st.just("rename"), st.sampled_from(FOLDERS), st.sampled_from((*FOLDERS, "four"))),
)


def take_step(root: Path, files: list[FileStorage], step: tuple) -> None:
    match step:
        case "open", place:
            files.append(FileStorage.open(root / place))
        case "close", at if at < len(files):
            files.pop(at).close()
        case "look", at if at < len(files):
            files[at].is_current()
        case "link", place, other:
            os.link(root / place, root / other)
        case "delete", place:
            (root / place).unlink()
        case "rename", place, other:
            (root / place).rename(root / other)


@given(steps=st.lists(STEPS, max_size=30))
def test_being_told_is_as_good_as_asking(steps, tmp_path_factory):
    root = tmp_path_factory.mktemp("told")
    for folder in FOLDERS:
        (root / folder).mkdir(exist_ok=True)
    files: list[FileStorage] = []
    before = watched()
    for step in [("open", "one/two/a"), ("open", "one/two/a"), ("open", "three/b"), *steps]:
        try:
            take_step(root, files, step)
        except (OSError, MemvidAsyncError):
            continue
        if step[0] != "look":
            files.sort(key=lambda file: file._descriptor)
        assert [file._has_its_name() for file in files] == [file.is_current() for file in files]
    for file in files:
        file.close()
    assert watched() == before


def test_a_directory_moved_with_the_file_in_it_is_noticed(tmp_path):
    folder = tmp_path / "above" / "folder"
    folder.mkdir(parents=True)
    with closing(FileStorage.open(folder / "store.mva")) as file:
        assert file.is_current()
        moved = folder.parent.rename(tmp_path / "moved")
        assert not file.is_current()
        moved.rename(folder.parent)
        assert file.is_current()


def test_what_one_file_takes_is_not_lost_to_another(tmp_path):
    with (
        closing(FileStorage.open(tmp_path / "a")) as a,
        closing(FileStorage.open(tmp_path / "b")) as b,
    ):
        assert a.is_current()
        assert b.is_current()
        (tmp_path / "b").unlink()
        assert a.is_current()
        assert not b.is_current()


def test_nothing_is_asked_while_nothing_is_told(tmp_path, monkeypatch):
    with closing(FileStorage.open(tmp_path / "a")) as file:
        assert file.is_current()
        monkeypatch.setattr(FileStorage, "_has_its_name", None)
        assert file.is_current()


def test_threads_that_take_at_the_same_time_miss_nothing(tmp_path):
    """Each has a file of its own, which it renames and looks at; all share what is told."""
    wrong: list[int] = []

    def go(number: int) -> None:
        path, moved = tmp_path / f"{number}", tmp_path / f"{number} moved"
        with closing(FileStorage.open(path)) as file:
            for turn in range(300):
                if not file.is_current():
                    wrong.append(turn)
                path.rename(moved)
                if file.is_current():
                    wrong.append(turn)
                moved.rename(path)

    threads = [threading.Thread(target=go, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("allowed", range(4))
def test_what_the_system_refuses_to_watch_is_asked_for(allowed, tmp_path, monkeypatch):
    with closing(FileStorage.open(tmp_path / "a")):
        system, left, before = notices._shared._system, [True] * allowed, watched()

        class Refuses:
            inotify_rm_watch = system.inotify_rm_watch

            @staticmethod
            def inotify_add_watch(*given):
                return system.inotify_add_watch(*given) if left and left.pop() else -1

        monkeypatch.setattr(notices._shared, "_system", Refuses)
        with closing(FileStorage.open(tmp_path / "b")) as file:
            assert file._watch is None
            assert watched() == before
            assert file.is_current()
            (tmp_path / "b").unlink()
            assert not file.is_current()


@pytest.mark.parametrize("error", [OSError("too many"), ImportError("no ctypes")])
def test_where_nothing_is_told_the_name_is_asked_for(error, tmp_path, monkeypatch):
    def refuse():
        raise error

    monkeypatch.setattr(notices, "_shared", None)
    monkeypatch.setattr(notices, "Notices", refuse)
    with closing(FileStorage.open(tmp_path / "a")) as file:
        assert file._watch is None
        assert file.is_current()
        (tmp_path / "a").unlink()
        assert not file.is_current()


def test_a_system_without_inotify_says_so(monkeypatch):
    class Without:
        @staticmethod
        def inotify_init1(_flags):
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_given, **_more: Without)
    with pytest.raises(OSError, match="inotify"):
        notices.Notices()


FORKING = """
import os, sys
from pathlib import Path
from memvid_async import MemvidAsyncError
from memvid_async.storage import FileStorage, notices

directory = Path(sys.argv[1])
file = FileStorage.open(directory / "a")
assert file.is_current()
os.rename(directory / "a", directory / "b")
child = os.fork()
if not child:
    own = FileStorage.open(directory / "c")
    assert own.is_current() and own._watch is not None
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert notices._shared is not None
assert not file.is_current()
"""


def test_a_forked_child_takes_nothing_from_its_parent(tmp_path):
    """In a process of its own: this one may have threads."""
    ran = subprocess.run(
        [sys.executable, "-c", FORKING, str(tmp_path)], check=False, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_when_the_telling_ends_the_name_is_asked_for(tmp_path, monkeypatch):
    with closing(FileStorage.open(tmp_path / "a")) as file:
        monkeypatch.setattr(notices._shared, "descriptor", 1_000_000)
        assert file.is_current()
        assert file._watch is None
        (tmp_path / "a").unlink()
        assert not file.is_current()
