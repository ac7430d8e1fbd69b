"""The picture of a session in time: all of it in lanes, as SVG, and where its rows are in time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from .bars import LEVELS, Bar, Placed, layout_of
from .markup import attribute, shown
from .text import format_duration, shorten

_WIDTH = 1000
_NAMES = 130
_BAR, _GAP, _AXIS = 9, 3, 18
# With more bars than this, those of one kind in one column are drawn as one.
_MOST_BARS = 600
_COLUMNS, _PARTS = 500, 50
_NARROWEST = 1.5
_STEPS = (1, 2, 5)
_TICKS = 6

Link = Callable[[Bar], str]
# A lane, a level in it, and the CSS class of the bars there.
_Run = tuple[int, int, str]


def lanes_picture(bars: Sequence[Bar], begin: int, end: int, link: Link) -> str:
    """Return the lanes of all bars between two moments, with an axis of time above them."""
    if not bars:
        return ""
    lanes = layout_of(bars)
    scale = _Scale(begin, end)
    tops, top = [], _AXIS
    out = [scale.axis()]
    for name, levels in zip(lanes.names, lanes.levels, strict=True):
        tops.append(top)
        title = shown(shorten(name or "(no task)", 20))
        out.append(f'<text x="0" y="{top + _BAR}">{title}</text>')
        top += levels * (_BAR + _GAP) + _GAP
        out.append(f'<path class="line" d="M0 {top - _GAP / 2:g}H{_NAMES + _WIDTH}"/>')
    draw = _each if len(lanes.placed) <= _MOST_BARS else _columns
    out += draw(lanes.placed, tops, scale, link)
    return (
        f'<div class="scroll" id="lanes" tabindex="0" role="region" aria-label="Timeline">'
        f'<svg class="lanes" viewBox="0 0 {_NAMES + _WIDTH} {top}">{"".join(out)}</svg></div>'
    )


def _each(placed: Sequence[Placed], tops: list[int], scale: _Scale, link: Link) -> list[str]:
    """Return a bar for each. The script makes them lead where the rows do, which are links."""
    runs: dict[_Run, list[Placed]] = {}
    for one in placed:
        runs.setdefault((one.lane, one.level, state_of(one.bar)), []).append(one)
    out = []
    for run, some in sorted(runs.items(), key=_is_failed):
        links = " ".join(link(one.bar) for one in some)
        out.append(_shape(run, tops, (scale.place(one.bar) for one in some), links))
    return out


def _shape(
    run: _Run, tops: list[int], places: Iterable[tuple[float, float]], links: str = ""
) -> str:
    """Return bars at one height as one shape. ``links``: where each of them leads."""
    lane, level, state = run
    y = tops[lane] + level * (_BAR + _GAP) + _BAR / 2
    drawn = "".join(f"M{_NAMES + x:.5g} {y:g}h{width:.4g}" for x, width in places)
    to = f' data-to="{links}"' if links else ""
    return f'<path class="bars {state}"{to} d="{drawn}"/>'


def _columns(placed: Sequence[Placed], tops: list[int], scale: _Scale, link: Link) -> list[str]:
    """Return a shape for each kind, and links to what began in each fiftieth of the time."""
    runs: dict[_Run, list[list[float]]] = {}
    firsts: dict[int, Bar] = {}
    column = _WIDTH / _COLUMNS
    for one in placed:
        x, width = scale.place(one.bar)
        firsts.setdefault(int(x * _PARTS / _WIDTH), one.bar)
        left = x // column * column
        right = max(x + width, left + column)
        runs_here = runs.setdefault((one.lane, one.level, state_of(one.bar)), [[left, right]])
        if left <= runs_here[-1][1]:
            runs_here[-1][1] = max(runs_here[-1][1], right)
        else:
            runs_here.append([left, right])
    out = []
    # What failed is drawn last, over the rest.
    for run, runs_here in sorted(runs.items(), key=_is_failed):
        out.append(_shape(run, tops, ((left, right - left) for left, right in runs_here)))
    height = tops[-1] + LEVELS * (_BAR + _GAP)
    for place, bar in firsts.items():
        x = _NAMES + place * _WIDTH / _PARTS
        out.append(
            f'<a href="{link(bar)}" tabindex="-1"><title>from {described(bar)}</title>'
            f'<path class="part" d="M{x:g} 0h{_WIDTH / _PARTS:g}v{height}h-{_WIDTH / _PARTS:g}"/>'
            "</a>"
        )
    return out


def _is_failed(run: tuple[_Run, object]) -> bool:
    return run[0][2] == "t-failed"


def rows_in_time(bars: Sequence[Bar]) -> str:
    """Return what the script makes a row of, for each bar in their order: the end of its article's
    id; how long after the bar before it began, and how long it lasted, both in microseconds, the
    latter "" for one in flight; and how many bars are around it, if there are any."""
    rows, before = [], bars[0].begin_ns // 1000 if bars else 0
    for bar in bars:
        begin = bar.begin_ns // 1000
        lasted = "" if bar.end_ns is None else bar.end_ns // 1000 - begin
        depth = f" {bar.depth}" if bar.depth else ""
        rows.append(f"{bar.anchor.removeprefix('a')} {begin - before} {lasted}{depth}")
        before = begin
    return ",".join(rows)


def described(bar: Bar) -> str:
    """Say what a bar is, and how long it took, for a title."""
    name = "in flight" if bar.index is None else str(bar.index)
    words = [name, bar.kind.replace("_", " "), shorten(bar.title, 60), _lasted(bar)]
    return attribute(" ".join(filter(None, words)) + (", failed" if bar.failed else ""))


def state_of(bar: Bar) -> str:
    """Return the CSS class of a bar's bar."""
    if bar.failed:
        return "t-failed"
    return f"{bar.kind} t-flight" if bar.end_ns is None else bar.kind


def _lasted(bar: Bar) -> str:
    if bar.end_ns is None:
        return "in flight"
    return format_duration(bar.end_ns - bar.begin_ns) if bar.end_ns > bar.begin_ns else ""


class _Scale:
    """Moments as places from left to right."""

    def __init__(self, begin: int, end: int) -> None:
        self._begin = begin
        self._end = max(end, begin + 1)

    def _x(self, moment: int) -> float:
        share = (moment - self._begin) / (self._end - self._begin)
        return min(max(share, 0.0), 1.0) * _WIDTH

    def place(self, bar: Bar) -> tuple[float, float]:
        """Return where a bar's bar begins, and how wide it is."""
        x = min(self._x(bar.begin_ns), _WIDTH - _NARROWEST)
        right = _WIDTH if bar.end_ns is None else self._x(bar.end_ns)
        return x, max(right - x, _NARROWEST)

    def axis(self) -> str:
        """Return round moments, as counted from the begin."""
        step = _round_step((self._end - self._begin) / _TICKS)
        out, moment = [], 0
        while moment <= self._end - self._begin:
            x = _NAMES + self._x(self._begin + moment)
            if x < _NAMES + _WIDTH - 40:
                told = format_duration(moment).replace(".0 ", " ") if moment else "0"
                out.append(f'<path class="tick" d="M{x:.1f} {_AXIS - 6}V999"/>')
                out.append(f'<text x="{x + 3:.1f}" y="{_AXIS - 8}">{told}</text>')
            moment += step
        return "".join(out)


def _round_step(least: float) -> int:
    """Return the first round duration that is not below ``least``, in nanoseconds."""
    units = (1, 10, 100, 10**3, 10**4, 10**5, 10**6, 10**7, 10**8, 10**9, 10**10)
    for unit in units:
        for step in _STEPS:
            if step * unit >= least and step * unit < 60 * 10**9:
                return step * unit
    for minutes in (1, 2, 5, 10, 20, 30, 60, 120, 240, 480, 720, 1440):
        if minutes * 60 * 10**9 >= least:
            return minutes * 60 * 10**9
    days = -(-least // (1440 * 60 * 10**9))
    return int(days) * 1440 * 60 * 10**9
