"""What test_kill kills: a server that forks a recording process per line that it is sent.

Forking from a process that has imported everything makes a hundred processes cost little. On
standard output it says ``pid``, then the recording process says what was acked, one line each and
only after the store said so, and at last the server says ``over``.
"""

import asyncio
import contextlib
import hashlib
import os
import random
import sys
import zlib

from memvid_async import (
    Durability,
    Limits,
    RecordingConfig,
    SessionEndedError,
    StoreConfig,
    open_store,
)


def body(key):
    """What is recorded under a key: a few bytes, content of its own, or one of few contents."""
    number = zlib.crc32(key.encode())
    if number % 11 == 0:
        return f"repeated {number % 3} ".ljust(2000, "=")
    return f"{key} ".ljust(1500 if number % 7 == 0 else number % 300, "x")


def digest(key):
    return hashlib.blake2b(body(key).encode(), digest_size=32).hexdigest()


class Agents:
    """Tasks that record, each one call after another, until the process is killed."""

    def __init__(self, store, seed, *, buffered):
        self._store = store
        self._seed = seed
        self._buffered = buffered
        self._unsaid = []
        self._busy = set()

    async def _ack(self, *words):
        self._unsaid.append(" ".join(map(str, words)))
        if self._buffered:
            if len(self._unsaid) % 5:
                return
            saying, self._unsaid = self._unsaid, []
            await self._store.sync()
        else:
            saying, self._unsaid = self._unsaid, []
        for line in saying:
            os.write(1, f"{line}\n".encode())

    async def run(self, number):
        rng = random.Random(f"{self._seed} {number}")
        count = 0
        while True:
            kind = rng.choice(["own", "own", "ambient", "resumed", "delete"])
            steps = rng.randrange(1, 12)
            if kind == "ambient":
                count = await self._record(self._store, number, count, steps)
                continue
            async with await self._block(kind, rng) as recorder:
                await self._ack("started", recorder.session_id)
                count = await self._record(recorder, number, count, steps)
                with contextlib.suppress(SessionEndedError):
                    mark = await recorder.create_checkpoint()
                    await self._ack("checkpoint", recorder.session_id, mark)
            await self._ack("ended", recorder.session_id)
            if kind == "delete":
                await self._store.delete_session(recorder.session_id)
                await self._ack("deleted", recorder.session_id)

    async def _block(self, kind, rng):
        if kind == "resumed":
            sessions = await self._store.list_sessions(include_open=True)
            ambient = self._store.active_session_id
            for summary in sessions:
                session_id = summary.session_id
                if summary.ended_ns is None and session_id not in self._busy | {ambient}:
                    self._busy.add(session_id)
                    return self._store.resume_session(session_id)
        most = rng.choice([None, None, 4])
        recorder = self._store.session("own", RecordingConfig(max_actions=most))
        self._busy.add(recorder.session_id)
        return recorder

    async def _record(self, recorder, number, count, steps):
        for _ in range(steps):
            key = f"{self._seed}:{number}:{count}"
            try:
                action = await recorder.record_put(count, body(key), task=key)
            except SessionEndedError:
                break
            if action is not None:
                await self._ack("action", key, action.sequence)
                count += 1
        return count


async def record(path, seed):
    rng = random.Random(seed)
    durability = rng.choice(list(Durability))
    config = StoreConfig(
        durability=durability,
        recording=RecordingConfig(auto_checkpoint_interval=rng.choice([0, 4]), auto_record=True),
        limits=Limits(batch_bytes=rng.choice([1, 3000, 2**22]), tail_bytes=1),
        flush_interval=rng.choice([0.001, 0.05]),
    )
    async with open_store(path, config=config) as store:
        agents = Agents(store, seed, buffered=durability is Durability.BUFFERED)
        async with asyncio.TaskGroup() as group:
            for number in range(rng.randrange(1, 9)):
                group.create_task(agents.run(number))


def serve(path):
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            asyncio.run(record(path, int(line)))
            os._exit(1)
        os.write(1, f"pid {child}\n".encode())
        _, status = os.waitpid(child, 0)
        os.write(1, f"over {status}\n".encode())


if __name__ == "__main__":
    serve(sys.argv[1])
