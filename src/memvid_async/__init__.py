"""A crash-safe, single-file recorder and memory for agents. Start with :func:`open_store`."""

import inspect as _inspect
import typing as _typing

from .config import Durability, Limits, RecordingConfig, StoreConfig
from .core.reports import CompactReport, Problem, TornTail, VerifyReport
from .engine.subscription import Subscription
from .engine.usage_sums import UsageRow
from .errors import (
    CheckpointNotFoundError,
    ContentNotFoundError,
    CorruptFileError,
    FrameNotFoundError,
    InvalidValueError,
    LimitExceededError,
    MemvidAsyncError,
    NoActiveSessionError,
    NotAStoreError,
    NotCompactedError,
    OutOfMemoryError,
    RecordedCallError,
    ReplayDivergenceError,
    ReplayStopped,
    SessionActiveError,
    SessionEndedError,
    SessionNotFoundError,
    StoreClosedError,
    StoreFailedError,
    StoreLockedError,
    StoreNotFoundError,
    StoreReadOnlyError,
    UncertainCallError,
    UnknownSyncWarning,
    UnrecordedWarning,
    UnsupportedVersionError,
    VersionConflictError,
    WrongLoopError,
)
from .events.calls import (
    ActionStarted,
    AnswerDropped,
    CallFacts,
    ChunksCame,
    ErrorDetail,
    SessionChanged,
    SessionResumed,
    SessionSuspended,
    Usage,
)
from .events.content import Content, StoredContent
from .events.conversion import Conversion
from .events.details import (
    ActionKind,
    AskDetails,
    CheckpointDetails,
    DeleteDetails,
    FindDetails,
    OnceDetails,
    PutDetails,
    PutManyDetails,
    StepDetails,
    ToolCallDetails,
    UpdateDetails,
)
from .events.embeddings import EmbeddingModelSet, EmbeddingsMade, NewEmbedding
from .events.event import (
    Action,
    ActionRecorded,
    Checkpoint,
    CheckpointCreated,
    ContentStored,
    Erased,
    Event,
    MessageRun,
    Session,
    SessionDeleted,
    SessionEnded,
    SessionStarted,
    SessionSummary,
    StateSnapshot,
    StoredMessages,
    Unknown,
)
from .events.frames import (
    Context,
    ContextItem,
    FindResult,
    ForkPoint,
    Frame,
    FrameDeleted,
    FrameErased,
    FramePut,
    FramesPut,
    FrameUpdated,
    Hit,
    MemoryConfigured,
    Retrieval,
    SearchMode,
)
from .events.frozen_dict import FrozenDict
from .events.keyed import (
    CollectionChanged,
    CollectionCreated,
    KeyDeleted,
    KeyPut,
    KeyRenewed,
    KeyUsed,
    ListChanged,
    PrefixDeleted,
    Value,
)
from .events.prompts import Generated, Prompt, Reply
from .events.values import check_recordable
from .file.byte_copy import CopyReport
from .file.recover import LostEvents, RecoverReport
from .file.wreck import Damage
from .memory.answer import Answer
from .memory.collection import Collection
from .memory.collection_reader import CollectionReader
from .memory.collection_steps import Check, Delete, DeletePrefix, Put
from .memory.key_vectors import FoundValue, KeySearch
from .memory.keywords import FrameFields, FrameFilters, FrameItem
from .memory.store_session import StoreSession
from .memory.why import Why, WhyFrame
from .recording.known_secrets import scrub_secrets
from .recording.made_calls import Call, Step
from .recording.session_calls import current_call
from .recording.session_recorder import SessionRecorder
from .recording.tool_decorator import tool
from .replay.audit import AuditAnswer, AuditReport, ModelAudit
from .replay.compare import ChangedAction, Comparison
from .replay.replay_run import Replay
from .replay.scratch import WhatIf
from .replay.serve import ServedSession
from .replay.textdiff import content_text, spoken_text
from .replay.uncertain import RUN, Failed, Result, UncertainCall
from .replay.verdicts import Difference, ReplayReport, ReplayStep, Rerun, Verdict
from .store.copying import copy_store
from .store.listing_stores import list_stores
from .store.opening import OpenStore, open_store
from .store.pruning import PruneReport
from .store.recovering import recover
from .store.store import Store, StoreStatistics
from .store.sync_collections import SyncCollection, SyncCollectionReader
from .store.sync_store import (
    SyncReplay,
    SyncServedSession,
    SyncSession,
    SyncStep,
    SyncStore,
    SyncStoreView,
    SyncSubscription,
)
from .store.views import StoreView
from .stream.listing import StoreSummary

__version__ = "0.1.0"

__all__ = [
    "RUN",
    "Action",
    "ActionKind",
    "ActionRecorded",
    "ActionStarted",
    "Answer",
    "AnswerDropped",
    "AskDetails",
    "AuditAnswer",
    "AuditReport",
    "Call",
    "CallFacts",
    "ChangedAction",
    "Check",
    "Checkpoint",
    "CheckpointCreated",
    "CheckpointDetails",
    "CheckpointNotFoundError",
    "ChunksCame",
    "Collection",
    "CollectionChanged",
    "CollectionCreated",
    "CollectionReader",
    "CompactReport",
    "Comparison",
    "Content",
    "ContentNotFoundError",
    "ContentStored",
    "Context",
    "ContextItem",
    "Conversion",
    "CopyReport",
    "CorruptFileError",
    "Damage",
    "Delete",
    "DeleteDetails",
    "DeletePrefix",
    "Difference",
    "Durability",
    "EmbeddingModelSet",
    "EmbeddingsMade",
    "Erased",
    "ErrorDetail",
    "Event",
    "Failed",
    "FindDetails",
    "FindResult",
    "ForkPoint",
    "FoundValue",
    "Frame",
    "FrameDeleted",
    "FrameErased",
    "FrameFields",
    "FrameFilters",
    "FrameItem",
    "FrameNotFoundError",
    "FramePut",
    "FrameUpdated",
    "FramesPut",
    "FrozenDict",
    "Generated",
    "Hit",
    "InvalidValueError",
    "KeyDeleted",
    "KeyPut",
    "KeyRenewed",
    "KeySearch",
    "KeyUsed",
    "LimitExceededError",
    "Limits",
    "ListChanged",
    "LostEvents",
    "MemoryConfigured",
    "MemvidAsyncError",
    "MessageRun",
    "ModelAudit",
    "NewEmbedding",
    "NoActiveSessionError",
    "NotAStoreError",
    "NotCompactedError",
    "OnceDetails",
    "OpenStore",
    "OutOfMemoryError",
    "PrefixDeleted",
    "Problem",
    "Prompt",
    "PruneReport",
    "Put",
    "PutDetails",
    "PutManyDetails",
    "RecordedCallError",
    "RecordingConfig",
    "RecoverReport",
    "Replay",
    "ReplayDivergenceError",
    "ReplayReport",
    "ReplayStep",
    "ReplayStopped",
    "Reply",
    "Rerun",
    "Result",
    "Retrieval",
    "SearchMode",
    "ServedSession",
    "Session",
    "SessionActiveError",
    "SessionChanged",
    "SessionDeleted",
    "SessionEnded",
    "SessionEndedError",
    "SessionNotFoundError",
    "SessionRecorder",
    "SessionResumed",
    "SessionStarted",
    "SessionSummary",
    "SessionSuspended",
    "StateSnapshot",
    "Step",
    "StepDetails",
    "Store",
    "StoreClosedError",
    "StoreConfig",
    "StoreFailedError",
    "StoreLockedError",
    "StoreNotFoundError",
    "StoreReadOnlyError",
    "StoreSession",
    "StoreStatistics",
    "StoreSummary",
    "StoreView",
    "StoredContent",
    "StoredMessages",
    "Subscription",
    "SyncCollection",
    "SyncCollectionReader",
    "SyncReplay",
    "SyncServedSession",
    "SyncSession",
    "SyncStep",
    "SyncStore",
    "SyncStoreView",
    "SyncSubscription",
    "ToolCallDetails",
    "TornTail",
    "UncertainCall",
    "UncertainCallError",
    "Unknown",
    "UnknownSyncWarning",
    "UnrecordedWarning",
    "UnsupportedVersionError",
    "UpdateDetails",
    "Usage",
    "UsageRow",
    "Value",
    "Verdict",
    "VerifyReport",
    "VersionConflictError",
    "WhatIf",
    "Why",
    "WhyFrame",
    "WrongLoopError",
    "check_recordable",
    "content_text",
    "copy_store",
    "current_call",
    "list_stores",
    "open_store",
    "recover",
    "scrub_secrets",
    "spoken_text",
    "tool",
]


def _say_where_they_are_public() -> None:
    """Make this package the module of every public class and function.

    So reprs, tracebacks and pickles stay the same when the code moves.
    """
    for name in __all__:
        thing = globals()[name]
        if isinstance(thing, type):
            # Annotations are resolved in the module that a class names. So that is done here, once,
            # before the name changes.
            hints = _typing.get_type_hints(thing, include_extras=True)
            thing.__annotations__ = {key: hints[key] for key in _inspect.get_annotations(thing)}
        if isinstance(thing, type) or _inspect.isfunction(thing):
            thing.__module__ = __name__


_say_where_they_are_public()


def __dir__() -> list[str]:
    """List the public names, and not the rooms that they come from."""
    return [*__all__, "__version__"]
