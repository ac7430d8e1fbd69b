"""Pydantic AI's steps and conversations, in a collection of a store.

:class:`MemvidStepStore` keeps what a run has done, :class:`MemvidConversationStore` conversations.
Run with pydantic-ai-harness 0.36.0 and 0.62.0.
"""

try:
    from .pydantic_conversations import MemvidConversationStore
    from .pydantic_steps import MemvidStepStore
except ModuleNotFoundError as error:
    if not (error.name or "").startswith("pydantic"):
        raise
    message = "the Pydantic AI adapter needs a package: install memvid-async[pydantic-ai]"
    raise ModuleNotFoundError(message, name=error.name) from error

__all__ = ["MemvidConversationStore", "MemvidStepStore"]
