"""Tables of what was recorded, as wide as the terminal they are printed on."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

# The column that gets what room is left has at least this much of it.
_WIDE = 16


def print_table(
    console: Console,
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: Collection[int] = (),
    folded: int | None = None,
    cut: int | None = None,
    less: Sequence[str] = (),
) -> None:
    """Print rows in columns, padded on a terminal and elsewhere with two spaces between them.

    ``numbers``: the columns that are aligned at the right; ``folded`` and ``cut``: the one that
    gets what room is left, over several lines or cut to one. ``less``: the names of the columns
    that a terminal which is too narrow for all is spared, the first one first.
    """
    if not console.is_terminal:
        for row in (names, *rows):
            console.print(Text("  ".join(row).rstrip()))
        return
    widths = [max(map(cell_len, column)) for column in zip(names, *rows, strict=True)]
    for wide in (folded, cut):
        if wide is not None:
            widths[wide] = min(widths[wide], _WIDE)
    places = list(range(len(names)))
    for name in less:
        if sum(widths[at] + 2 for at in places) - 2 <= console.width:
            break
        places.remove(names.index(name))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place in places:
        is_wide = place in (folded, cut)
        table.add_column(
            names[place],
            justify="right" if place in numbers else "left",
            no_wrap=place != folded,
            overflow="fold" if place == folded else "ellipsis",
            min_width=widths[place] if is_wide else None,
            ratio=1 if place == cut else None,
        )
    for row in rows:
        table.add_row(*(Text(row[place]) for place in places))
    table.expand = cut is not None
    console.print(table)
