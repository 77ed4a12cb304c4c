"""Learn + rank per event inside one kernel, on a real click stream: what the model alone can do.

``python -m tests.benchmarks.similarity [--json]``
"""

from __future__ import annotations

import time

import numpy as np

from models.evaluation import Stream, prepare
from models.item_similarity import run
from stream.recordings import read_table
from tests.benchmarks.harness import arguments, data_folder, machine, report

NAME = "retailrocket_seq_pseudots.csv.gz"
K = 20
RUNS = 3


def recorded() -> Stream:
    """The whole recording; a list is ranked before every event whose visitor has been seen before."""
    table = read_table(data_folder() / NAME)
    weight = np.ones(len(table), dtype=np.float32)
    return prepare(table.key, table.item, table.ts_ms // 1000, weight, table.item_ids, start=0.0)


def measure(stream: Stream) -> float:
    """Seconds of the best run."""
    run(stream.head(1_000), K)  # compiles
    best = float("inf")
    for _ in range(RUNS):
        began = time.perf_counter()
        run(stream, K)
        best = min(best, time.perf_counter() - began)
    return best


def main() -> None:
    """Print the figures."""
    options = arguments("Events per second of the co-visitation model: learn and rank, in process.").parse_args()
    stream = recorded()
    seconds = measure(stream)
    figures: dict[str, object] = {
        "events_per_s": len(stream) / seconds,
        "us_per_event": seconds / len(stream) * 1e6,
        "events": len(stream),
        "lists": int(stream.scored.sum()),
        "items": len(stream.item_ids),
        "recording": NAME,
        "machine": machine(),
    }
    report(figures, json=options.json)


if __name__ == "__main__":
    main()
