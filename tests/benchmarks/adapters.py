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
RECORDS = 200
ROUNDS = 60


def records(values: Sequence[bytes]) -> list[LocalRecord]:
    """A fetch of these values, over and over."""
    return [LocalRecord(n, RECORDED_MS, None, values[n % len(values)]) for n in range(RECORDS)]


def per_event_us(*fetches: Sequence[LocalRecord]) -> float:
    """Least CPU time per event over several rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        events = sum(len(decode(fetch).raw) for fetch in fetches)
        best = min(best, (time.process_time() - start) / events)
    return best * 1e6


def beyond_us(foreign: Sequence[bytes], native: Sequence[bytes]) -> float:
    """What values of another shape cost more than the same events of ours, in one fetch."""
    return per_event_us(records(foreign)) - per_event_us(records(native))


def beyond_alone_us(foreign: bytes, native: bytes) -> float:
    """The same of a value that is alone in its fetch."""
    return per_event_us(*((each,) for each in records([foreign]))) - per_event_us(
        *((each,) for each in records([native]))
    )


def main() -> None:
    """Measure the golden cases that become events and have no headers, against what they become."""
    options = arguments(__doc__ or "").parse_args()
    figures: dict[str, float] = {}
    single: dict[str, float] = {}
    alone: dict[str, float] = {}
    for file in sorted(GOLDEN.glob("*.json")):
        cases = [case for case in json.loads(file.read_text())["cases"] if case["becomes"] and not case["refused"]]
        cases = [case for case in cases if "headers" not in case]
        sent = [case["sent"] for case in cases]
        foreign = [value.encode() if isinstance(value, str) else json.dumps(value).encode() for value in sent]
        native = [[json.dumps(event).encode() for event in case["becomes"]] for case in cases]
        figures[f"{file.stem}_us"] = beyond_us(foreign, [event for events in native for event in events])
        for case, value, events in zip(cases, foreign, native, strict=True):
            if len(events) == 1:
                name = f"{file.stem}: {case['case']}"
                single[name], alone[name] = beyond_us([value], events), beyond_alone_us(value, *events)
    figures = {"worst_us": max(figures.values())} | figures
    figures |= {"worst_single_us": max(single.values()), "worst_alone_us": max(alone.values())}
    told = {"worst_single": max(single, key=single.__getitem__), "worst_alone": max(alone, key=alone.__getitem__)}
    report({**{name: round(value, 2) for name, value in figures.items()}, **told}, json=options.json)


if __name__ == "__main__":
    main()
