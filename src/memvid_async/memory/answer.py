"""What asking the memory returns."""

from __future__ import annotations

from attrs import frozen

from ..events.event import Action
from ..events.frames import Context, Hit
from ..events.prompts import as_text


@frozen
class Answer:
    """What :meth:`Store.ask` returns: the model's reply, and the frames passed to the model.

    ``str(answer)`` is the reply's text.
    """

    text: str | bytes
    """The reply, as it was recorded; bytes where the model replied in bytes."""
    hits: tuple[Hit, ...]
    """What was found, best first."""
    context: Context
    """What of it was passed to the model."""
    action: Action | None
    """What was recorded; None outside a session."""
    duration_ms: float
    """How long it took, with the search, in milliseconds."""
    input_tokens: int | None = None
    """Tokens that the model read; None where it did not count."""
    output_tokens: int | None = None
    """Tokens that it wrote."""
    cached_tokens: int | None = None
    """Tokens that it read from a cache: a part of ``input_tokens``."""
    cost_usd: float | None = None
    """What the reply cost, in US dollars."""

    def __str__(self) -> str:
        return as_text(self.text)
