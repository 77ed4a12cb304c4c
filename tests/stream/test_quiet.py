from __future__ import annotations

import logging

from stream.quiet import QuietRepeats


def record(name: str, text: str, *args: object, level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord(name, level, "x.py", 1, text, args, None)


def test_repeats_of_a_library_are_written_once_in_a_while_and_counted() -> None:
    now = 0.0
    quiet = QuietRepeats(10.0, clock=lambda: now)
    written = []
    for step in range(301):
        now = step / 10
        line = record("aiokafka.conn", "Unable to connect to %s", step)
        if quiet.filter(line):
            written.append(line.getMessage())
    assert written == [
        "Unable to connect to 0",
        "Unable to connect to 100 (99 more like this in 10 s)",
        "Unable to connect to 200 (99 more like this in 10 s)",
        "Unable to connect to 300 (99 more like this in 10 s)",
    ]


def test_other_messages_loggers_and_levels_pass() -> None:
    quiet = QuietRepeats(10.0, clock=lambda: 0.0)
    lines = [
        record("aiokafka", "a"),
        record("aiokafka", "b"),
        record("aiokafka.conn", "a"),
        record("stream.shards", "a"),
        record("stream.shards", "a"),
        record("aiokafka", "c", level=logging.INFO),
        record("aiokafka", "c", level=logging.INFO),
    ]
    assert all(quiet.filter(line) for line in lines)
