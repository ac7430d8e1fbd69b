"""Recording on a stream, against a bare prototype: ``python -m benchmarks.streaming [--nodes 3]``.

The prototype does what any store on a stream must: what waits goes in one message that says which
message it follows, and who loses looks and tries again. It decides, folds and indexes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import nats
from nats.errors import Error

from memvid_async import StoreConfig, open_store
from tests.support.nats_server import NatsCluster, NatsServer

ROOT = Path(__file__).resolve().parents[1]
TEXT = "x" * 420  # an action of about 500 bytes


class Prototype:
    """A stream that is appended to by one task, for all that wait."""

    def __init__(self, address: str, replicas: int) -> None:
        hosts, _, self._name = address.removeprefix("nats://").partition("/")
        self._servers = [f"nats://{host}" for host in hosts.split(",")]
        self._subject = f"bare.{self._name}"
        self._replicas = replicas
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self.last = 0

    async def open(self) -> None:
        """Connect, and create the stream unless it is there."""
        self._client = await nats.connect(self._servers)
        await self._ask(
            "CREATE",
            name=self._name,
            subjects=[self._subject],
            num_replicas=self._replicas,
            storage="file",
        )
        self.last = (await self._ask("INFO"))["state"]["last_seq"]
        self._wake = asyncio.Event()
        self._task = asyncio.create_task(self._write())

    async def _ask(self, what: str, **body: Any) -> Any:
        subject = f"$JS.API.STREAM.{what}.{self._name}"
        return json.loads((await self._client.request(subject, json.dumps(body).encode())).data)

    async def publish(self, payload: bytes) -> Any:
        """Append a message after the last one; return the answer."""
        headers = {"Nats-Expected-Last-Sequence": str(self.last)}
        reply = await self._client.request(self._subject, payload, headers=headers, timeout=10)
        return json.loads(reply.data)

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting, self._waiting = self._waiting, []
            if not waiting:
                continue
            payload = b"".join(data for data, _ in waiting)
            while not await self._append(payload):
                with suppress(TimeoutError, Error):
                    self.last = (await self._ask("INFO"))["state"]["last_seq"]
            for _, done in waiting:
                done.set_result(None)

    async def _append(self, payload: bytes) -> bool:
        try:
            answer = await self.publish(payload)
        except (TimeoutError, Error):
            # A leader that is busy, or was just elected.
            return False
        self.last = answer.get("seq") or self.last
        return "error" not in answer

    async def record(self, text: str) -> None:
        """Return once the server has this."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((b"p" * 80 + text.encode(), done))
        self._wake.set()
        await done

    async def aclose(self) -> None:
        """Disconnect."""
        self._task.cancel()
        await self._client.close()


async def plain(address: str, replicas: int, seconds: float) -> list[float]:
    """What a publish takes that is awaited, one after another."""
    bare = Prototype(address, replicas)
    await bare.open()
    took, until = [], time.perf_counter() + seconds
    while (begun := time.perf_counter()) < until:
        bare.last = (await bare.publish(b"p" * 500))["seq"]
        took.append(time.perf_counter() - begun)
    await bare.aclose()
    return took


async def record(
    which: str, address: str, replicas: int, tasks: int, seconds: float
) -> list[float]:
    """Record from some tasks for some seconds; return how long each action took."""
    took: list[float] = []
    until = 0.0

    async def one(call: Any) -> None:
        while (begun := time.perf_counter()) < until:
            await call()
            took.append(time.perf_counter() - begun)

    async def run(call: Any) -> None:
        nonlocal until
        await call()
        if os.environ.get("BENCH_CHILD"):
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
        until = time.perf_counter() + seconds
        await asyncio.gather(*(one(call) for _ in range(tasks)))

    if which == "bare":
        bare = Prototype(address, replicas)
        await bare.open()
        await run(lambda: bare.record(TEXT))
        await bare.aclose()
        return took
    config = StoreConfig(replicas=replicas, lock_timeout=60)
    async with open_store(address, config=config) as store, store.session("s") as session:
        await run(lambda: session.record_tool_call("t", arguments={"a": TEXT}, result="r"))
    return took


def compete(which: str, address: str, replicas: int, processes: int, seconds: float) -> Any:
    """Let processes of 16 tasks contend; return for each what :func:`record` does."""
    command = [sys.executable, "-m", "benchmarks.streaming", "--child", which, address]
    command += [str(replicas), str(seconds)]
    children = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "BENCH_CHILD": "1"},
        )
        for _ in range(processes)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
    return [json.loads(child.communicate()[0]) for child in children]


def say(what: str, value: float, goal: float, *, at_most: bool = False) -> None:
    """Print a figure that has a goal, and whether it is met."""
    is_met = value <= goal if at_most else value >= goal
    limit = "at most" if at_most else "at least"
    print(
        f"  {what}: {value:.2f} ({limit} {goal:.2f}: {'met' if is_met else 'MISSED'})", flush=True
    )


def report(servers: Any, nodes: int, seconds: float, rounds: int) -> None:
    """Measure, and print a line for each figure."""
    for _ in range(rounds):
        took = asyncio.run(plain(servers.address(), nodes, seconds / 2))
        publish = statistics.median(took)
        load = os.getloadavg()[0]
        print(f"{nodes} node(s), load {load:.1f}: a plain publish {publish * 1000:.2f} ms")
        for tasks in (1, 64):
            rates = {}
            for which in ("bare", "ours"):
                took = asyncio.run(record(which, servers.address(), nodes, tasks, seconds))
                rates[which] = len(took) / seconds
            print(
                f"  {tasks} task(s): {rates['ours']:,.0f}/s, the prototype {rates['bare']:,.0f}/s"
            )
            if tasks == 1:
                time_of_one = statistics.median(took) / publish
                say("1 task, in plain publishes", time_of_one, 1.6, at_most=True)
            else:
                say(f"{tasks} tasks, of the prototype", rates["ours"] / rates["bare"], 0.25)
        report_competing(servers, nodes, seconds)


def report_competing(servers: Any, nodes: int, seconds: float) -> None:
    """Measure processes that contend for one stream."""
    totals, least, p99 = {}, 0.0, 0.0
    for which in ("bare", "ours"):
        each = compete(which, servers.address(), nodes, 4, seconds)
        counts = sorted(len(one) for one in each)
        waits = sorted(wait for one in each for wait in one)
        totals[which] = len(waits) / seconds
        mean = statistics.mean(counts)
        least, p50, p99 = counts[0] / mean, waits[len(waits) // 2], waits[len(waits) * 99 // 100]
        print(
            f"  4 processes of 16 tasks, {which}: {totals[which]:,.0f}/s, worst {least:.2f} and "
            f"best {counts[-1] / mean:.2f} of the mean; p50 {p50 * 1000:.1f} ms, "
            f"p99 {p99 * 1000:.0f} ms, longest {waits[-1]:.2f} s"
        )
    say("4 processes, of the prototype", totals["ours"] / totals["bare"], (0, 1 / 3, 0, 0.5)[nodes])
    say("4 processes, the worst, of the mean", least, 1 / 3)
    say("4 processes, p99 in seconds", p99, 1, at_most=True)


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streaming", description=__doc__)
    parser.add_argument("--nodes", type=int, choices=(1, 3), default=1)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        which, address, replicas, seconds = given.child
        took = asyncio.run(record(which, address, int(replicas), 16, float(seconds)))
        print(json.dumps(took))
        return
    servers = NatsServer() if given.nodes == 1 else NatsCluster()
    try:
        report(servers, given.nodes, given.seconds, given.rounds)
    finally:
        servers.close()


if __name__ == "__main__":
    main()
