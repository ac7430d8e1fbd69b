"""What the commands found out, as JSON documents: comparisons, replays, sums, reports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from uuid import UUID

import attrs

from .. import (
    Action,
    AuditReport,
    CompactReport,
    Comparison,
    CopyReport,
    Difference,
    PruneReport,
    RecoverReport,
    ReplayReport,
    SessionSummary,
    Store,
    StoreStatistics,
    StoreSummary,
    Usage,
    UsageRow,
    VerifyReport,
    Why,
)
from .documents import Document, content_document, plain


def action_outline(action: Action) -> Document:
    """Return which action it is, without its contents."""
    return {"index": action.index, "kind": action.kind.value, "task": action.task}


def difference_document(difference: Difference) -> Document:
    """Return a field that differs, and how."""
    return {"field": difference.field, "diff": difference.diff}


def comparison_document(comparison: Comparison) -> Document:
    """Return two sessions compared; actions by their index in their session."""
    return {
        "session_a": str(comparison.session_a),
        "session_b": str(comparison.session_b),
        "is_equal": comparison.is_equal,
        "first_divergence": comparison.first_divergence,
        "equal": [[a.index, b.index] for a, b in comparison.equal],
        "changed": [
            {
                "a": action_outline(changed.a),
                "b": action_outline(changed.b),
                "differences": [difference_document(d) for d in changed.differences],
            }
            for changed in comparison.changed
        ],
        "only_in_a": [action_outline(action) for action in comparison.only_in_a],
        "only_in_b": [action_outline(action) for action in comparison.only_in_b],
    }


def audit_document(report: AuditReport) -> Document:
    """Return what each model answered, and how often that was the recorded answer."""
    return {
        "session_id": str(report.session_id),
        "is_equal": report.is_equal,
        "models": [plain(attrs.asdict(model)) for model in report.models],
        "answers": [
            {
                "index": answer.index,
                "model": answer.model,
                "verdict": answer.verdict.value,
                "reason": answer.reason,
                "answer": plain(answer.answer),
                "diff": answer.diff,
                "duration_ms": answer.duration_ms,
                "input_tokens": answer.input_tokens,
                "output_tokens": answer.output_tokens,
                "cached_tokens": answer.cached_tokens,
                "cost_usd": answer.cost_usd,
            }
            for answer in report.answers
        ],
    }


def replay_document(report: ReplayReport) -> Document:
    """Return the verdict on each action of a session."""
    return {
        "session_id": str(report.session_id),
        "checkpoint_id": report.checkpoint_id,
        "match_rate": report.match_rate,
        "counts": {verdict.value: count for verdict, count in report.counts.items()},
        "steps": [
            {
                **action_outline(step.action),
                "verdict": step.verdict.value,
                "reason": step.reason,
                "differences": [difference_document(d) for d in step.differences],
            }
            for step in report.steps
        ],
    }


def info_document(
    store: Store, statistics: StoreStatistics, sessions: Iterable[SessionSummary]
) -> Document:
    """Return a store's statistics, its ambient session, and what its sessions used."""
    active = store.active_session_id
    return {
        **plain(attrs.asdict(statistics)),
        "path": str(statistics.path),
        "active_session_id": None if active is None else str(active),
        "is_recording": store.is_recording,
        **totals_document(sessions),
    }


_SUMMED = (
    "ask_count",
    "tool_call_count",
    "failed_count",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cost_usd",
)


@attrs.frozen
class Used:
    """What actions used together: tokens, and US dollars."""

    input_tokens: int
    output_tokens: int
    cost_usd: float


def used_of(usages: Iterable[Usage]) -> Used:
    """Return what asks used together."""
    counted = list(usages)
    return Used(
        sum(usage.input_tokens or 0 for usage in counted),
        sum(usage.output_tokens or 0 for usage in counted),
        math.fsum(usage.cost_usd or 0 for usage in counted),
    )


def totals_document(rows: Iterable[SessionSummary | UsageRow]) -> Document:
    """Return the sums of sessions or of rows of usage: whole numbers, and the cost in dollars."""
    found = list(rows)
    totals: Document = {name: sum(getattr(row, name) for row in found) for name in _SUMMED}
    return {**totals, "cost_usd": round(math.fsum(row.cost_usd for row in found), 12)}


def usage_document(by: str, rows: Sequence[UsageRow]) -> Document:
    """Return what calls used, and what that is in all."""
    shown = [{**attrs.asdict(row), "session_id": _id(row.session_id)} for row in rows]
    return {"by": by, "rows": shown, "total": totals_document(rows)}


def match_document(action: Action, session: str | None, lines: list[str]) -> Document:
    """Return the lines of an action that a pattern was found in, and where the action is."""
    return {
        "session_id": _id(action.session_id),
        "session": session,
        "index": action.index,
        "sequence": action.sequence,
        "kind": action.kind.value,
        "lines": lines,
    }


def _id(session_id: UUID | None) -> str | None:
    return None if session_id is None else str(session_id)


def verify_document(report: VerifyReport, bytes_dropped: int) -> Document:
    """Return what verifying found, and the size in bytes of the torn tail that follows it."""
    return {**plain(attrs.asdict(report)), "bytes_dropped": bytes_dropped}


def report_document(
    report: CompactReport | CopyReport | PruneReport | RecoverReport | StoreSummary,
) -> Document:
    """Return what a command did or found as its fields; ids as text."""
    document: Document = plain(attrs.asdict(report))
    return document


def why_document(why: Why) -> Document:
    """Return what an answer was made of; actions by their session and index."""
    return {
        **_where(why.action),
        "frames": [
            {
                "frame_id": frame.frame_id,
                "score": frame.score,
                "sequence": frame.sequence,
                "content": None if frame.content is None else content_document(frame.content),
                "put_ns": frame.put_ns,
                "put_by": None if frame.put_by is None else _where(frame.put_by),
                "later": [_where(action) for action in frame.later],
            }
            for frame in why.frames
        ],
    }


def _where(action: Action) -> Document:
    return {"session_id": _id(action.session_id), **action_outline(action)}
