"""What our worker is compared with: readers of the same topic that only decode. Run as a process of its own.

``python -m tests.benchmarks.baselines faust|aiokafka BOOTSTRAP EVENTS FOLDER`` prints one JSON line: events, wall and
CPU seconds between the first tenth and the last record.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

import faust
import msgspec
from aiokafka import AIOKafkaConsumer  # type: ignore[import-untyped]  # no py.typed

from stream.events import Event


class Clock:
    """Times the records after the first tenth, so that starting up does not count."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.seen = 0
        self.began: tuple[int, float, float] | None = None

    def count(self, records: int) -> None:
        self.seen += records
        if self.began is None and self.seen >= self.total // 10:
            self.began = (self.seen, time.monotonic(), time.process_time())
        if self.seen >= self.total and self.began is not None:
            seen, wall, cpu = self.began
            figures = {
                "events": self.seen - seen,
                "wall_s": time.monotonic() - wall,
                "cpu_s": time.process_time() - cpu,
            }
            os.write(1, json.dumps(figures).encode() + b"\n")  # Faust has taken sys.stdout for its log
            os._exit(0)


def stock_faust(bootstrap: str, total: int, folder: str) -> None:
    """Stock Faust with its defaults: an agent whose topic decodes JSON, and does nothing else."""
    clock = Clock(total)
    app = faust.App(
        "stock",
        broker=f"kafka://{bootstrap}",
        datadir=folder,
        topic_disable_leader=True,
        table_standby_replicas=0,
        consumer_auto_offset_reset="earliest",
        stream_recovery_delay=0.0,
        web_enabled=False,
    )
    topic = app.topic("events", value_serializer="json", key_serializer="raw")

    @app.agent(topic)  # type: ignore[arg-type]  # Faust's own stream type
    async def decode(events: faust.Stream[dict[str, object]]) -> None:
        async for _ in events:
            clock.count(1)

    faust.Worker(app, loglevel="ERROR", quiet=True).execute_from_commandline()


async def plain_aiokafka(bootstrap: str, total: int) -> None:
    """aiokafka and msgspec: a whole fetch at a time, each record decoded into an `Event`."""
    clock = Clock(total)
    decode = msgspec.json.Decoder(Event).decode
    consumer = AIOKafkaConsumer(
        "events", bootstrap_servers=bootstrap, group_id="plain", auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    while True:
        for records in (await consumer.getmany(timeout_ms=1000, max_records=2_000)).values():
            for record in records:
                decode(record.value)
            clock.count(len(records))


if __name__ == "__main__":
    kind, address, events, place = sys.argv[1:]
    if kind == "faust":
        stock_faust(address, int(events), place)
    else:
        asyncio.run(plain_aiokafka(address, int(events)))
