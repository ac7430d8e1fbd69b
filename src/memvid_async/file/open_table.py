"""Which page of a file has the newest row of an open session.

A TOC holds the rows of the few sessions that changed last. The others are in pages, at most
``PAGE_ROWS`` rows each, written one at a time before a TOC. So a TOC costs what changed since the
one before, however many sessions are open.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from itertools import islice

# A page of open sessions follows the one before after at least this many bytes of log. An event
# takes 32 bytes or more, so fewer sessions change between two pages than a page has room for.
PAGE_BYTES = 2 * 1024
# Beyond this many pages, and twice as many as the open sessions would fill, the oldest one is given
# up: what is still current of it is written again.
LEAST_PAGES = 8


class OpenTable:
    """The open sessions, by number.

    ``changed``: those with no row in a page, or with an old one, in the order in which they
    changed. ``pages``: of each page that has current rows their sessions, by its offset, oldest
    page first. ``written_bytes``: the size of the pages written since the last TOC.
    """

    __slots__ = ("_paged", "_ready_at", "changed", "pages", "written_bytes")

    def __init__(self) -> None:
        self.changed: dict[int, None] = {}
        self.pages: dict[int, dict[int, None]] = {}
        self.written_bytes = 0
        # Of each session that is in a page the offset of that page.
        self._paged: dict[int, int] = {}
        # Where the log must end for the next page.
        self._ready_at = 0

    def copy(self) -> OpenTable:
        """Return a table that says the same, and changes on its own."""
        twin = copy(self)
        twin.changed = dict(self.changed)
        twin._paged = dict(self._paged)  # noqa: SLF001 - the same class
        twin.pages = {offset: dict(numbers) for offset, numbers in self.pages.items()}
        return twin

    def note(self, number: int) -> None:
        """Note that a session began or changed."""
        if number not in self.changed:
            self.forget(number)
            self.changed[number] = None

    def forget(self, number: int) -> None:
        """Note that a session ended or was deleted."""
        self.changed.pop(number, None)
        offset = self._paged.pop(number, 0)
        if offset:
            left = self.pages[offset]
            del left[number]
            if not left:
                del self.pages[offset]

    def next_page(self, most: int) -> list[int]:
        """Return the sessions of the next page."""
        return list(islice(self.changed, most))

    def is_due(self, end: int, most: int) -> bool:
        """Whether a page must be written before a TOC, in a log that ends at ``end``."""
        return len(self.changed) >= most and end >= self._ready_at

    def page_written(self, numbers: Iterable[int], offset: int, end: int, most: int) -> None:
        """Note that the page from ``offset`` to ``end`` has the rows of these sessions."""
        self._put(numbers, offset)
        self.written_bytes += end - offset
        self._ready_at = end + PAGE_BYTES
        count = len(self.changed) + len(self._paged)
        if len(self.pages) > LEAST_PAGES + 2 * count // most:
            for number in list(next(iter(self.pages.values()))):
                self.note(number)

    def toc_written(self) -> int:
        """Note that a TOC was written; return the size of the pages written for it."""
        size, self.written_bytes, self._ready_at = self.written_bytes, 0, 0
        return size

    def load_page(self, numbers: Iterable[int], offset: int) -> None:
        """Take over a page that was read; call this for the oldest page first."""
        self._put(numbers, offset)

    def _put(self, numbers: Iterable[int], offset: int) -> None:
        page, changed = dict.fromkeys(numbers), self.changed
        for number in page:
            if number in changed:
                # So it is in no page.
                del changed[number]
            else:
                self.forget(number)
        self._paged.update(dict.fromkeys(page, offset))
        if page:
            self.pages.setdefault(offset, {}).update(page)
