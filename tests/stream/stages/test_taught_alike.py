"""`rivulet evaluate` teaches the blend what a worker teaches it: the same recording leaves the same state in both."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import numpy as np
import pytest

import models.blend_ranker
from models.blend import Blend
from models.profiles import SESSION_GAP_S
from stream.cli.contenders import load, run_of, steps
from stream.local import LocalPipeline
from stream.memory_store import MemoryStore
from stream.recordings import open_recording
from stream.recordings.columns import COLUMNS
from tests.records import T0_US, user_of

TYPES = ["view", "view", "view", "cart", "fav", "purchase", "return", "scroll"]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Visitors known by name, who pause, and by sessions; kinds of all weights, many of them repeats of an item."""
    chance = np.random.default_rng(4)
    rows, item, second = [",".join(COLUMNS)], 0, 0
    for _ in range(1_500):
        second += int(chance.choice([1, 60, SESSION_GAP_S // 4]))
        item = item if chance.random() < 0.3 else int(chance.integers(30))
        visitor = int(chance.integers(12))
        who = f"u{visitor}," if visitor < 8 else f",s{visitor}"
        rows.append(f"{T0_US // 1_000 + second * 1_000},{who},i{item},{chance.choice(TYPES)},")
    path = tmp_path / "clicks.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_evaluate_leaves_the_blend_as_a_worker_does(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that agree to the last bit have met the same features in every lesson: histories, rows and sessions."""
    live = LocalPipeline(MemoryStore(), partitions=1, item_partitions=1, batch=1)  # rows know each event at once
    events = [msgspec.to_builtins(event) for event in open_recording(recording)]
    asyncio.run(live.feed((user_of(e).encode(), e["event_timestamp"] // 1000, msgspec.json.encode(e)) for e in events))
    evaluated: list[Blend] = []

    class Kept(Blend):
        def __init__(self, prior: tuple[float, ...]) -> None:
            super().__init__(prior=prior)
            evaluated.append(self)

    monkeypatch.setattr(models.blend_ranker, "Blend", Kept)
    with steps() as progress:
        stream = load(str(recording), None, progress).stream()
    run_of("blend")(stream, 20)
    (mine,), theirs = evaluated, live.users.shards[0].blend
    assert mine.lessons > 500
    others = theirs.snapshot()
    batchwise = {"told", "rates"}  # how often the hit rate was looked at
    differing = {name for name, array in mine.snapshot().items() if not np.array_equal(array, others[name])}
    assert differing <= batchwise
