"""What calls used: by day, as a picture, and by model and tool."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence

from .. import UsageRow
from .findings import totals_document
from .forms import day_ns, form, text_field
from .gathered import Gathered
from .markup import facts_list, named, shown
from .shell import LIST_KEYS, end, head, start
from .text import format_cost, format_count, format_milliseconds

_WIDTH, _HEIGHT, _MOST_DAYS = 1000, 120, 120


async def usage_page(gathered: Gathered, asked: Mapping[str, str]) -> AsyncGenerator[str, None]:
    """Yield the page of what calls used; its head before what is new was read."""
    since, until = (asked.get(name, "") for name in ("since", "until"))
    yield head(live=True) + start("Usage", live=True, here="/usage")
    fields = [
        text_field("since", "from", since, kind="date"),
        text_field("until", "before", until, kind="date"),
    ]
    yield f"<main><header><h1>Usage</h1></header>{form('/usage', fields)}"
    await gathered.catch_up()
    days, models, called = gathered.usage(day_ns(since), day_ns(until))
    yield _totals(days) + _chart(days[-_MOST_DAYS:]) + '<div id="list">' + _table("day", days[::-1])
    yield _table("model", models) + _table("tool", called) + "</div>"
    yield end(LIST_KEYS, live=True)


def _totals(rows: Sequence[UsageRow]) -> str:
    total = totals_document(rows)
    return facts_list(
        {
            "asks": format_count(total["ask_count"]),
            "tool calls": format_count(total["tool_call_count"]),
            "failed": format_count(total["failed_count"]),
            "tokens in": format_count(total["input_tokens"]),
            "of these cached": format_count(total["cached_tokens"]),
            "tokens out": format_count(total["output_tokens"]),
            "cost": format_cost(total["cost_usd"]),
        }
    )


def _chart(days: Sequence[UsageRow]) -> str:
    """Return a bar for each day: its calls, those that failed at the bottom."""
    most = max((day.ask_count + day.tool_call_count for day in days), default=0)
    if not most:
        return ""
    width = min(40.0, _WIDTH / len(days))
    out = []
    for place, day in enumerate(days):
        calls, x = day.ask_count + day.tool_call_count, place * width
        told = f"{day.name}: {calls} calls, {day.failed_count} failed, {format_cost(day.cost_usd)}"
        out.append(f"<g><title>{shown(told)}</title>")
        for count, looks in ((calls, "ask"), (day.failed_count, "t-failed")):
            height = _HEIGHT * count / most
            bar = f"M{x:.1f} {_HEIGHT}v-{height:.1f}h{max(1.0, width - 2):.1f}v{height:.1f}"
            out.append(f'<path class="{looks}" d="{bar}"/>')
        out.append("</g>")
    first, last = (shown(days[at].name or "") for at in (0, -1))
    ends = first if len(days) == 1 else f"{first} to {last}"
    label = f"Calls a day, {ends}; at most {most}"
    return (
        f'<figure><svg class="lanes" role="img" aria-label="{label}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}">{"".join(out)}</svg>'
        f'<figcaption class="note">{label}</figcaption></figure>'
    )


def _table(by: str, rows: Sequence[UsageRow]) -> str:
    if not rows:
        return ""
    names = ("asks", "tool calls", "failed", "tokens in", "cached", "tokens out", "cost", "time")
    heads = "".join(f'<th class="number">{name}</th>' for name in names)
    return (
        f'<h2>By {by}</h2><div class="scroll" tabindex="0" role="region" aria-label="By {by}">'
        f'<table class="sessions"><thead><tr><th>{by}</th>{heads}</tr></thead>'
        f"<tbody>{''.join(_row(row) for row in rows)}</tbody></table></div>"
    )


def _row(row: UsageRow) -> str:
    counts = (row.ask_count, row.tool_call_count, row.failed_count)
    tokens = (row.input_tokens, row.cached_tokens, row.output_tokens)
    numbers = [format_count(number) if number else "" for number in (*counts, *tokens)]
    numbers.append(format_cost(row.cost_usd) if row.cost_usd else "")
    numbers.append(format_milliseconds(row.duration_ms))
    cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
    return f'<tr><td class="name">{named(row.name or "")}</td>{cells}</tr>'
