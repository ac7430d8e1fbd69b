"""Notices from Linux that a file was renamed, replaced or deleted, by inotify(7).

Asking whether there is any notice takes a tenth of the time that asking for a file's path takes.
"""

from __future__ import annotations

import fcntl
import os
import termios
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePath

# From <sys/inotify.h>.
_ATTRIB, _DELETE_SELF, _MOVE_SELF, _DONT_FOLLOW = 0x4, 0x400, 0x800, 0x2000000
# At most this many links are followed in a path, as the system does.
_MOST_LINKS = 40
_NOTHING = bytes(4)


# One instance serves all files of the process, because a user may have only a few (128 by
# default). It is made for the first file.
_shared: Notices | None = None
_making = threading.Lock()


def watch(descriptor: int, name: str, path: str) -> Watch | None:
    """Watch an open file, the directories above it, and the links that lead to them.

    ``name`` is the file's absolute path without links, ``path`` the one by which it was opened.
    Returns None where the system or this Python cannot do that.
    """
    global _shared  # noqa: PLW0603 - one for the process
    try:
        with _making:
            if _shared is None:
                _shared = Notices()
        return _shared.watch(descriptor, name, path)
    except (ImportError, OSError):
        return None


def _forget_in_child() -> None:
    """Close a forked child's copy: notices that the child read would be missing in its parent."""
    global _shared, _making  # noqa: PLW0603 - one for the process
    _making = threading.Lock()
    if _shared is not None:
        os.close(_shared.descriptor)
        _shared = None


os.register_at_fork(after_in_child=_forget_in_child)


def _links_in(path: str) -> list[str]:
    """Return the symbolic links in the directories of an absolute path, and those they lead to."""
    found: list[str] = []
    at, rest = "/", path.split("/")[-2::-1]
    while rest:
        part = rest.pop()
        here = os.path.normpath(f"{at}/{part}")
        if part in ("", ".", "..") or len(found) == _MOST_LINKS or not Path(here).is_symlink():
            at = here
            continue
        found.append(here)
        target = str(Path(here).readlink())
        at = "/" if target.startswith("/") else at
        rest += target.split("/")[::-1]
    return found


class Notices:
    """The process's one inotify instance, shared by all watched files.

    ``descriptor`` is its file descriptor; ``count`` counts the calls of :meth:`take` that found a
    notice.

    :raises ImportError: when this Python has no ctypes.
    :raises OSError: when the system refuses an instance.
    """

    def __init__(self) -> None:
        # Imported here, because only Linux needs it and not every Python has it.
        import ctypes  # noqa: PLC0415

        self._errno = ctypes.get_errno
        self._system = ctypes.CDLL(None, use_errno=True)
        self.descriptor = self._done(self._system.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        self.count = 0
        self._lock = threading.Lock()
        self._uses: Counter[int] = Counter()

    def _done(self, answer: int) -> int:
        if answer < 0:
            raise OSError(self._errno(), "inotify refused")
        return answer

    def watch(self, descriptor: int, name: str, path: str) -> Watch:
        """Do what the function :func:`watch` describes.

        :raises OSError: when one of the paths cannot be watched; then none is.
        """
        wanted = [(f"/proc/self/fd/{descriptor}", _ATTRIB | _MOVE_SELF)]
        wanted += [(str(above), _MOVE_SELF) for above in PurePath(name).parents]
        link = _ATTRIB | _DELETE_SELF | _MOVE_SELF | _DONT_FOLLOW
        wanted += [(each, link) for each in _links_in(path)]
        numbers: list[int] = []
        with self._lock:
            try:
                for place, what in wanted:
                    add = self._system.inotify_add_watch
                    numbers.append(self._done(add(self.descriptor, os.fsencode(place), what)))
            finally:
                self._uses.update(numbers)
                if len(numbers) < len(wanted):
                    self._remove(numbers)
        return Watch(self, numbers)

    def leave(self, numbers: list[int]) -> None:
        """Undo a :meth:`watch`."""
        with self._lock:
            self._remove(numbers)

    def _remove(self, numbers: list[int]) -> None:
        # Two files in one directory share its watch, so the uses of a watch are counted.
        self._uses.subtract(numbers)
        for number in numbers:
            if not self._uses[number]:
                del self._uses[number]
                self._system.inotify_rm_watch(self.descriptor, number)

    def take(self) -> int:
        """Read and drop all waiting notices; return how many calls have found any."""
        with self._lock:
            if fcntl.ioctl(self.descriptor, termios.FIONREAD, _NOTHING) != _NOTHING:
                # Counted before they are read: who then finds no notice sees the new count.
                self.count += 1
                os.read(self.descriptor, 64 * 1024)
            return self.count


class Watch:
    """One file's watch: tells whether the file's path may have changed."""

    __slots__ = ("_notices", "_numbers", "_pending", "_seen")

    def __init__(self, notices: Notices, numbers: list[int]) -> None:
        self._notices = notices
        self._numbers = numbers
        self._pending = bytearray(4)
        self._seen = -1

    @property
    def is_quiet(self) -> bool:
        """Whether no notice arrived since :meth:`look_again` last found the path right."""
        fcntl.ioctl(self._notices.descriptor, termios.FIONREAD, self._pending, True)  # noqa: FBT003
        return self._pending == _NOTHING and self._notices.count == self._seen

    def look_again(self, is_right: Callable[[], bool]) -> bool:
        """Drop the notices so far, then return what ``is_right`` says of the path."""
        taken = self._notices.take()
        if right := is_right():
            self._seen = taken
        return right

    def leave(self) -> None:
        """End the watch."""
        self._notices.leave(self._numbers)
