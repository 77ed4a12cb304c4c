"""`rivulet evaluate` teaches what a worker teaches: the same recording leaves the same state in both."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest

import models.blend_ranker
import models.item_similarity
from models.blend import Blend
from models.neighbour_rows import NeighbourRows
from models.profiles import SESSION_GAP_S
from stream.cli.contenders import load, run_of, steps
from stream.local import LocalPipeline
from stream.memory_store import MemoryStore
from stream.recordings import open_recording
from stream.recordings.columns import COLUMNS
from tests.records import T0_US, publish

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


@pytest.fixture
def live(recording: Path) -> LocalPipeline:
    """A worker that has learned the recording; its rows know each event before the next."""
    pipeline = LocalPipeline(MemoryStore(), partitions=1, item_partitions=1, batch=1)
    publish(pipeline, [msgspec.to_builtins(event) for event in open_recording(recording)])
    return pipeline


def kept(monkeypatch: pytest.MonkeyPatch, module: ModuleType, made: type[Any]) -> list[Any]:
    """What a module makes of a class from now on."""
    found: list[Any] = []

    def make(*args: Any, **options: Any) -> Any:
        found.append(made(*args, **options))
        return found[-1]

    monkeypatch.setattr(module, made.__name__, make)
    return found


def evaluated(model: str, recording: Path) -> None:
    with steps() as progress:
        stream = load(str(recording), None, progress).stream()
    run_of(model)(stream, 20)


def test_the_blend_is_left_as_a_worker_leaves_it(
    live: LocalPipeline, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that agree to the last bit have met the same features in every lesson: histories, rows and sessions."""
    blends = kept(monkeypatch, models.blend_ranker, Blend)
    evaluated("blend", recording)
    (mine,), others = blends, live.users.shards[0].blend.snapshot()
    assert mine.lessons > 500
    batchwise = {"told", "rates"}  # how often the hit rate was looked at
    differing = {name for name, array in mine.snapshot().items() if not np.array_equal(array, others[name])}
    assert differing <= batchwise


def test_co_visitation_alone_has_the_rows_of_a_worker(
    live: LocalPipeline, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = kept(monkeypatch, models.item_similarity, NeighbourRows)
    evaluated("covisit", recording)
    (mine,), items = rows, range(live.space.ids.size)
    assert all(mine.neighbours(item) for item in items)
    assert [mine.neighbours(item) for item in items] == [live.space.rows.neighbours(item) for item in items]
