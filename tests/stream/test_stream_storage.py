"""A log's bytes, out of messages: whatever the parts, rows left unfinished, and what is held."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import CorruptFileError, NotAStoreError
from memvid_async.format.header import LOG_START, Header, decode_header, newest_slot
from memvid_async.stream.messages import BATCH_BYTES, HEAD_SIZE, decode_message, encode_batch
from memvid_async.stream.stream_storage import StreamStorage

# The size of a batch, how many of its parts are there before its writer dies (None: all of them).
BATCHES = st.lists(
    st.tuples(st.integers(1, 200), st.none() | st.integers(1, 3)), min_size=1, max_size=40
)


def stream_of(batches, most):
    """The messages of these batches, and the log's bytes; each byte tells its offset."""
    log = Header(UUID(int=1)).encode()
    messages = encode_batch(0, (0, 0), bytes(BATCH_BYTES), log, HEAD_SIZE + len(log))
    for number, (size, left) in enumerate(batches, 1):
        data = bytes((len(log) + at) % 251 for at in range(size))
        parts = encode_batch(len(log), (0, 0), number.to_bytes(BATCH_BYTES), data, most)
        if left is not None and left < len(parts):
            messages += parts[:left]
        else:
            messages += parts
            log += data
    return messages, log


@given(BATCHES, st.integers(1, 90), st.integers(1, 4000), st.data())
def test_what_is_read_is_what_was_appended(batches, part, most, data):
    messages, log = stream_of(batches, HEAD_SIZE + part)

    def fetch(first, count):
        assert 1 <= first <= len(messages)
        some = messages[first - 1 : first - 1 + min(count, 7)]
        return list(enumerate(some, first))

    storage = StreamStorage(fetch, most)
    start = data.draw(st.integers(1, len(messages)))
    for sequence in range(storage.start_before(start), len(messages) + 1):
        storage.add(sequence, messages[sequence - 1])
    assert storage.size() == len(log)
    last = decode_message(messages[-1])
    assert storage.is_unfinished == (last.part + 1 < last.parts)
    for _ in range(8):
        offset = data.draw(st.integers(LOG_START, len(log)))
        length = data.draw(st.integers(0, 300))
        assert storage.read(offset, length) == log[offset : offset + length]
    # The header says in a slot how far the log goes.
    start = storage.read(0, LOG_START)
    assert decode_header(start).file_id == UUID(int=1)
    slot = newest_slot(start, Header(UUID(int=1)).salt)
    assert (slot.end if slot else LOG_START) == len(log)


def test_what_does_not_continue_the_log_is_damage():
    messages, _ = stream_of([(50, None), (50, None), (50, None)], HEAD_SIZE + 20)
    storage = StreamStorage(lambda *_: [], 1000)
    storage.add(1, messages[0])
    storage.add(2, messages[1])
    for wrong in (messages[3], messages[4]):
        with pytest.raises(CorruptFileError):
            storage.add(3, wrong)
    with pytest.raises(NotAStoreError):
        storage.add(3, b"something else")
    with pytest.raises(NotAStoreError, match="newer"):
        storage.add(3, messages[2][:4] + b"\2" + messages[2][5:])
