"""A log's bytes, out of messages: whatever the parts, rows left unfinished, and what is held."""

from contextlib import suppress
from itertools import accumulate, takewhile
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import CorruptFileError, UnsupportedVersionError
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


# What somebody else publishes to the subject.
FOREIGN = st.lists(st.tuples(st.integers(1, 60), st.sampled_from([b"", b"MVA", bytes(99)])))


@given(BATCHES, st.integers(1, 90), st.integers(1, 4000), FOREIGN, st.data())
def test_what_is_read_is_what_was_appended(batches, part, most, foreign, data):
    messages, log = stream_of(batches, HEAD_SIZE + part)
    # Between the parts of a batch nothing can come: each says which message it follows.
    ends = [n for n, one in enumerate(messages[1:], 1) if not decode_message(one).part]
    for at in sorted((ends[place % len(ends)] for place, _ in foreign), reverse=True):
        messages.insert(at, foreign[at % len(foreign)][1])

    def fetch(first, count, size):
        assert 1 <= first <= len(messages)
        reach = accumulate(len(message) for message in messages[first - 1 :])
        some = 1 + sum(1 for _ in takewhile(lambda so_far: so_far < size, reach))
        return list(enumerate(messages[first - 1 :][: min(count, some, 7)], first))

    storage = StreamStorage(fetch, most)
    ours = [n for n, one in enumerate(messages, 1) if one.startswith(b"MVAs")]
    start = data.draw(st.sampled_from(ours))
    for sequence in range(storage.start_before(start, messages[start - 1]), len(messages) + 1):
        storage.add(sequence, messages[sequence - 1])
    assert storage.size() == len(log)
    last = decode_message(messages[-1])
    assert storage.last == len(messages)
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


def test_what_is_somewhere_in_small_messages_costs_few_requests_and_little_more_than_itself():
    messages, log = stream_of([(60 + 40 * (n % 3), None) for n in range(4000)], HEAD_SIZE + 200)
    asked = []

    def fetch(first, count, size):
        found = []
        for each in enumerate(messages[first - 1 :], first):
            found.append(each)
            if len(found) == count or sum(len(payload) for _, payload in found) >= size:
                break
        asked.append(sum(len(each) for _, each in found))
        return found

    storage = StreamStorage(fetch, 1 << 20)
    storage.start_before(len(messages), messages[-1])
    storage.add(len(messages), messages[-1])
    for offset in range(len(log) - 9_000, LOG_START, -39_000):
        asked.clear()
        assert storage.read(offset, 1000) == log[offset : offset + 1000]
        assert len(asked) < 9
        assert sum(asked) < 13_000
    # Who reads on asks for more and more at once.
    asked.clear()
    assert (
        b"".join(storage.read(at, 2000) for at in range(0, len(log), 2000))[LOG_START:]
        == (log[LOG_START:])
    )
    assert len(asked) < 40


@given(BATCHES, st.data())
def test_whatever_a_message_says_of_itself_ends_in_an_error_or_in_the_log(batches, data):
    messages, _ = stream_of(batches, HEAD_SIZE + 50)
    at = data.draw(st.integers(0, len(messages) - 1))
    place = data.draw(st.integers(0, HEAD_SIZE - 1))
    changed = bytes([data.draw(st.integers(0, 255))])
    messages[at] = messages[at][:place] + changed + messages[at][place + 1 :]

    def fetch(first, count, _):
        assert 1 <= first <= len(messages)
        return list(enumerate(messages[first - 1 :][: min(count, 7)], first))

    storage = StreamStorage(fetch, 500)
    start = data.draw(st.integers(1, len(messages)))
    with suppress(CorruptFileError, UnsupportedVersionError):
        for sequence in range(storage.start_before(start, messages[start - 1]), len(messages) + 1):
            storage.add(sequence, messages[sequence - 1])
        for offset in range(LOG_START, storage.size(), 97):
            found = storage.read(offset, 50)
            # Of where a batch is, nothing proves it but the checksums in it.
            assert len(found) == min(50, storage.size() - offset)


def test_what_does_not_continue_the_log_is_damage():
    messages, _ = stream_of([(50, None), (50, None), (50, None)], HEAD_SIZE + 20)
    storage = StreamStorage(lambda *_: [], 1000)
    storage.add(1, messages[0])
    storage.add(2, messages[1])
    for wrong in (messages[3], messages[4]):
        with pytest.raises(CorruptFileError):
            storage.add(3, wrong)
    with pytest.raises(UnsupportedVersionError, match="newer"):
        storage.add(3, messages[2][:4] + b"\2" + messages[2][5:])
