"""LangGraph's checkpoints and its store, in collections of a file.

:class:`MemvidSaver` keeps checkpoints, :class:`MemvidStore` what agents remember. Both work in
asyncio and in threads. Run with langgraph 1.2.24 and langgraph-checkpoint 4.3.2.
"""

try:
    from .langgraph_saver import MemvidSaver
    from .langgraph_store import MemvidStore
except ModuleNotFoundError as error:
    if not (error.name or "").startswith(("langgraph", "langchain_core")):
        raise
    message = "the LangGraph adapter needs a package: install memvid-async[langgraph]"
    raise ModuleNotFoundError(message, name=error.name) from error

__all__ = ["MemvidSaver", "MemvidStore"]
