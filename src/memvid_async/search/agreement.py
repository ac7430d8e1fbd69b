"""Whether the tables of a saved search index agree with each other and with the events."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from .schema import parts

# Frames, and frames with words; frames without the vector that they name, and vectors of no such
# frame; tags of no such frame, and frames with other tags than they name.
_COUNTS = """
SELECT (SELECT count(*) FROM frames), (SELECT count(*) FROM words_docsize),
  (SELECT count(*) FROM frames WHERE embedding_model IS NOT NULL
    AND id NOT IN (SELECT id FROM vectors)),
  (SELECT count(*) FROM vectors WHERE id NOT IN
    (SELECT id FROM frames WHERE embedding_model IS NOT NULL)),
  (SELECT count(*) FROM tags WHERE id NOT IN (SELECT id FROM frames WHERE tags IS NOT NULL)),
  (SELECT count(*) FROM frames WHERE tags IS NOT NULL AND
    (SELECT count(*) FROM tags WHERE tags.id = frames.id
      AND tag IN (SELECT value FROM json_each(frames.tags)))
    != (SELECT count(DISTINCT value) FROM json_each(frames.tags))),
  (SELECT count(*) FROM frames WHERE id NOT BETWEEN 1 AND ?)
"""


def check_frames(
    database: sqlite3.Connection, count: int, last: int, others: Sequence[int]
) -> None:
    """Check that an index has ``count`` frames, up to ``last`` and none of ``others``.

    So these are the frames of the events. What the tables say of each may still be forged.

    :raises ValueError: when it has others, or when a table lacks rows or has too many.
    """
    try:
        found = database.execute(_COUNTS, (last,)).fetchone()
        held = 0
        for some in parts(others):
            marks = ",".join("?" * len(some))
            (more,) = database.execute(
                f"SELECT count(*) FROM frames WHERE id IN ({marks})",  # noqa: S608 - marks alone
                some,
            ).fetchone()
            held += more
    except sqlite3.Error as error:
        raise ValueError(f"the saved index is damaged: {error}") from None
    if found != (count, count, 0, 0, 0, 0, 0) or held:
        raise ValueError("the saved index has other frames than the events")
