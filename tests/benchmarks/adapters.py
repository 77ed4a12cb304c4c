"""CPU that another shape costs beyond the same event in our schema, per event and shape.

``python -m tests.benchmarks.adapters [--json]``
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from stream.decoding import decode
from stream.local import LocalRecord
from tests.benchmarks.harness import arguments, report

GOLDEN = Path(__file__).parents[1] / "stream" / "adapters" / "golden"
RECORDED_MS = 1_750_000_000_000
RECORDS = 2_000
ROUNDS = 25


def records(values: Sequence[bytes]) -> list[LocalRecord]:
    """A fetch of these values, over and over."""
    return [LocalRecord(n, RECORDED_MS, None, values[n % len(values)]) for n in range(RECORDS)]


def per_event_us(fetch: Sequence[LocalRecord]) -> float:
    """Least CPU time per event over several rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        batch = decode(fetch)
        best = min(best, (time.process_time() - start) / len(batch.raw))
    return best * 1e6


def main() -> None:
    """Measure the golden cases that become events and have no headers, against what they become."""
    options = arguments(__doc__ or "").parse_args()
    figures: dict[str, float] = {}
    for file in sorted(GOLDEN.glob("*.json")):
        cases = [case for case in json.loads(file.read_text())["cases"] if case["becomes"] and not case["refused"]]
        cases = [case for case in cases if "headers" not in case]
        sent = [case["sent"] for case in cases]
        foreign = [value.encode() if isinstance(value, str) else json.dumps(value).encode() for value in sent]
        native = [json.dumps(event).encode() for case in cases for event in case["becomes"]]
        figures[file.stem] = per_event_us(records(foreign)) - per_event_us(records(native))
    figures = {f"{name}_us": round(value, 2) for name, value in figures.items()}
    report({"worst_us": max(figures.values()), **figures}, json=options.json)


if __name__ == "__main__":
    main()
