"""The kinds of events, by the number with which an event's row begins."""

from __future__ import annotations

from ..events.details import ActionKind

ERASED, STARTED, ENDED, DELETED, STORED, CHECKPOINT = range(6)
ACTION_KINDS = {
    10: ActionKind.PUT,
    11: ActionKind.PUT_MANY,
    12: ActionKind.FIND,
    13: ActionKind.ASK,
    14: ActionKind.UPDATE,
    15: ActionKind.DELETE,
    16: ActionKind.TOOL_CALL,
    17: ActionKind.STEP,
    18: ActionKind.ONCE,
}
SESSION_CHANGED, SESSION_RESUMED, SESSION_SUSPENDED = range(6, 9)
CALL_STARTED, ANSWER_DROPPED, CHUNKS_CAME = range(30, 33)
NOTE_KINDS = frozenset(
    {SESSION_CHANGED, SESSION_RESUMED, SESSION_SUSPENDED, ANSWER_DROPPED, CHUNKS_CAME}
)
FRAMES_PUT, FRAME_UPDATED, FRAME_DELETED, UPDATE_ERASED, CONFIGURED = range(20, 25)
EMBEDDINGS_MADE, MODEL_SET = 25, 26
FRAME_KINDS = frozenset(range(20, 27))
COLLECTION_CREATED, COLLECTION_CHANGED, KEY_USED = KEYED_KINDS = range(40, 43)
COLLECTION_KINDS = frozenset({COLLECTION_CREATED, COLLECTION_CHANGED})
KNOWN = frozenset(
    {
        *(ERASED, STARTED, ENDED, DELETED, STORED, CHECKPOINT, CALL_STARTED),
        *(*ACTION_KINDS, *NOTE_KINDS, *FRAME_KINDS, *KEYED_KINDS),
    }
)
