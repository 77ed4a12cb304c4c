"""Events per second through ``rivulet gateway`` on one core, and how long a request takes, against a real broker.

``python -m tests.benchmarks.gateway [--rate 5000] [--seconds 4] [--rounds 5] [--batch 20] [--json]``

The shop's events, each with id and time as a server's library sends them, in requests of 20. First by a fixed schedule
whatever the answers do (no coordinated omission): the 99th percentile counts from the scheduled time to the answer,
which comes after the broker's acknowledgement. Then as many as it takes, from connections that never wait;
and both again. The machine may have other users: figures are of the best round.
The gateway's process is bound to one core; broker and load share what is left.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import msgspec
import numpy as np
import psutil

from stream.demo.shop import Shop
from stream.progress import Progress
from tests.benchmarks.harness import READY_S, ROOT, Bench, arguments, bench, machine, report
from tests.brokers import free_ports

CONNECTIONS = 32
WARM_S = 3.0


@dataclass(slots=True)
class Seen:
    """Answers: durations in ms, and statuses that are not 202."""

    ms: list[float] = field(default_factory=list)
    odd: list[bytes] = field(default_factory=list)


class Connection:
    """One client; cheap, for it shares the machine with what it measures."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def post(self, request: bytes, seen: Seen, due: float) -> None:
        """One request; its duration counts from when it was due."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        size = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
        await self._reader.readexactly(int(size))
        seen.ms.append((time.monotonic() - due) * 1e3)
        if not head.startswith(b"HTTP/1.1 202"):
            seen.odd.append(head.split(b"\r\n")[0])


def requests_of(count: int, batch: int) -> list[bytes]:
    """So many requests of the shop's events."""
    now_us = time.time_ns() // 1000
    found = []
    events = Shop(seed=1, users=20_000).events()
    for _ in range(count):
        several = [event | {"event_timestamp": now_us} for event in itertools.islice(events, batch)]
        body = msgspec.json.encode({"events": several})
        head = f"POST /v1/events HTTP/1.1\r\nHost: door\r\nContent-Length: {len(body)}\r\n\r\n"
        found.append(head.encode() + body)
    return found


async def connections(port: int) -> list[Connection]:
    return [Connection(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(CONNECTIONS)]


async def by_schedule(port: int, requests: Sequence[bytes], per_s: float) -> Seen:
    """Request n is due at n / per_s; a free connection takes it, at once or as soon as there is one."""
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for connection in await connections(port):
        free.put_nowait(connection)
    seen, tasks, began = Seen(), set(), time.monotonic()

    async def one(connection: Connection, request: bytes, due: float) -> None:
        await connection.post(request, seen, due)
        free.put_nowait(connection)

    for number, request in enumerate(requests):
        due = began + number / per_s
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.add(asyncio.create_task(one(await free.get(), request, due)))
    await asyncio.gather(*tasks)
    return seen


async def as_fast_as_it_goes(port: int, requests: Sequence[bytes], seconds: float) -> tuple[Seen, float]:
    """Every connection asks again and again for some seconds; answers, and the seconds it took."""
    seen, began = Seen(), time.monotonic()
    turn = itertools.cycle(requests)

    async def ask(connection: Connection) -> None:
        while time.monotonic() - began < seconds:
            await connection.post(next(turn), seen, time.monotonic())

    await asyncio.gather(*map(ask, await connections(port)))
    return seen, time.monotonic() - began


@contextmanager
def gateway(bench_: Bench, port: int) -> Iterator[psutil.Process]:
    """A gateway in a process of its own, on one core."""
    log = bench_.folder / "gateway.log"
    env = bench_.environment() | {"RIVULET_GATEWAY_PORT": str(port), "RIVULET_GATEWAY_RATE": "0"}
    env["RIVULET_GATEWAY_PRIVATE_PORT"] = "0"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "stream.cli", "gateway"], cwd=ROOT, env=env, stdout=out, stderr=out
        )
    try:
        clock = psutil.Process(process.pid)
        clock.cpu_affinity([0])
        yield clock
    finally:
        process.terminate()
        process.wait(20)


async def until_open(port: int) -> None:
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        with suppress(OSError):
            await asyncio.open_connection("127.0.0.1", port)
            return
        await asyncio.sleep(0.05)
    raise TimeoutError("the gateway does not open its port")


def cpu_s(clock: psutil.Process) -> float:
    times = clock.cpu_times()
    return float(times.user + times.system)


async def run(bench_: Bench, rate: int, seconds: float, batch: int, rounds: int) -> dict[str, object]:
    """Both measurements, alternating; figures are of the best round, for others use the machine, too."""
    (port,) = free_ports(1)
    requests = requests_of(int(rate / batch * seconds), batch)
    scheduled: list[Seen] = []
    fast: list[tuple[Seen, float]] = []
    with gateway(bench_, port) as clock:
        await until_open(port)
        await as_fast_as_it_goes(port, requests, WARM_S)
        at_rate = at_most = 0.0
        for _ in range(rounds):
            began = cpu_s(clock)
            scheduled.append(await by_schedule(port, requests, rate / batch))
            between = cpu_s(clock)
            fast.append(await as_fast_as_it_goes(port, requests, seconds))
            at_rate, at_most = at_rate + between - began, at_most + cpu_s(clock) - between
    answers = [*scheduled, *(seen for seen, _ in fast)]
    async with Progress(bench_.settings) as progress:
        arrived = sum((await progress.ends("events")).values())
    if odd := [status for seen in answers for status in seen.odd]:
        raise RuntimeError(f"some requests were not taken: {odd[0]!r}")
    if arrived < sum(len(seen.ms) for seen in answers) * batch:
        raise RuntimeError("fewer events arrived than were acknowledged")
    best = min((seen.ms for seen in scheduled), key=lambda ms: float(np.percentile(ms, 99)))
    return {
        "events_per_s": round(max(len(seen.ms) * batch / took for seen, took in fast)),
        "p50_ms": round(float(np.percentile(best, 50)), 2),
        "p99_ms": round(float(np.percentile(best, 99)), 2),
        "p99_ms_worst_round": round(max(float(np.percentile(seen.ms, 99)) for seen in scheduled), 2),
        "rate": rate,
        "cpu_us_per_event": round(at_most / sum(len(seen.ms) * batch for seen, _ in fast) * 1e6, 1),
        "cores_at_rate": round(at_rate / (seconds * rounds), 3),
        "batch": batch,
        "machine": machine(),
    }


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--rate", type=int, default=5_000, help="events/s of the schedule")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each kind")
    parser.add_argument("--batch", type=int, default=20, help="events per request")
    options = parser.parse_args()
    with bench() as bench_:
        figures = asyncio.run(run(bench_, options.rate, options.seconds, options.batch, options.rounds))
    report(figures, json=options.json)


if __name__ == "__main__":
    main()
