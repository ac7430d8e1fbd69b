"""A process that puts documents into a memory, to be measured or killed from outside.

    python -m benchmarks.frames_child FILE COUNT [--hold]

prints one line of JSON once everything is durable and was searched, and closes the store; with
`--hold` it waits to be killed instead.
"""

import asyncio
import gc
import json
import sys
from pathlib import Path

from memvid_async import open_store

from . import samples
from .machine import resident_bytes

BATCH = 1_000


async def main(path: Path, count: int) -> None:
    """Put the documents, search once, and say how much larger the process became."""
    warm = path.with_name(f"{path.name}-warm")
    async with open_store(warm) as store:
        await store.put_many(samples.documents(10))
        await store.find("warm up")
    warm.unlink()
    documents = samples.documents(count)
    size = sum(len(document.encode()) for document in documents)
    gc.collect()
    before = resident_bytes()
    async with open_store(path) as store:
        for at in range(0, count, BATCH):
            await store.put_many(documents[at : at + BATCH])
        await store.find("everything is folded")
        gc.collect()
        report = {"growth": resident_bytes() - before, "size": size}
        print(json.dumps(report), flush=True)
        if "--hold" in sys.argv:
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
