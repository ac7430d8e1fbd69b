"""The OpenAI Agents SDK's sessions in a collection of a store, and its traces as recordings.

:class:`MemvidSession` keeps a conversation, :class:`MemvidTracing` records runs while they go on.
Run with openai-agents 0.24.0.
"""

try:
    from .openai_session import MemvidSession
    from .openai_tracing import MemvidTracing
except ModuleNotFoundError as error:
    if not (error.name or "").startswith(("agents", "openai")):
        raise
    message = "the Agents SDK adapter needs a package: install memvid-async[openai-agents]"
    raise ModuleNotFoundError(message, name=error.name) from error

__all__ = ["MemvidSession", "MemvidTracing"]
