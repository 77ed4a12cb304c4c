"""The global stage's part in the blend: what partitions say is kept, averaged and broadcast."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stream.keys import Keys
from stream.local import LocalRecord
from stream.stages.global_ import GlobalStage
from stream.stages.weights import BLEND_KEY
from stream.wire import BlendModel, Weighed, decode_blend, encode_global


def stage_of(arrays: dict[str, Any] | None = None) -> GlobalStage:
    stage = GlobalStage(Keys())
    stage.open(0, arrays)
    return stage


def learn(stage: GlobalStage, *messages: Weighed) -> None:
    stage.learn(0, [LocalRecord(n, 0, None, encode_global(message)) for n, message in enumerate(messages)])


def said(source: int, offset: int, value: float, lessons: int = 100, features: int = 2) -> Weighed:
    return Weighed(source, offset, lessons, [[value] * features] * 3, [[1.0] * features] * 3)


def broadcast(stage: GlobalStage) -> BlendModel | None:
    models = [send for send in stage.publish().sends if send.key == BLEND_KEY]
    for send in models:
        assert (send.role, send.partition) == ("models", 0)
    return decode_blend(models[0].value) if models else None


def test_the_mean_of_what_each_partition_said_last_is_broadcast_once() -> None:
    stage = stage_of()
    learn(stage, said(0, 10, 9.0), said(1, 3, 2.0, lessons=300), said(0, 20, 1.0))
    assert stage.changed
    found = broadcast(stage)
    assert found is not None
    assert (found.version, found.lessons) == (1, 400)
    assert np.array(found.weight) == pytest.approx(np.full((3, 2), 1.75))
    assert broadcast(stage) is None
    learn(stage, said(0, 20, 7.0), said(0, 10, 7.0))  # a restarted worker says again what it had said
    assert broadcast(stage) is None
    learn(stage, said(0, 30, 3.0))
    found = broadcast(stage)
    assert found is not None
    assert found.version == 2
    assert found.weight[0][0] == pytest.approx(2.25)


def test_who_has_learned_nothing_says_nothing() -> None:
    stage = stage_of()
    learn(stage, said(0, 10, 9.0, lessons=0))
    assert broadcast(stage) is None


def test_weights_of_another_version_replace_those_of_before() -> None:
    stage = stage_of()
    learn(stage, said(0, 10, 1.0), said(1, 10, 2.0), said(2, 10, 5.0, features=4))
    found = broadcast(stage)
    assert found is not None
    assert found.weight == [[5.0] * 4] * 3


@pytest.mark.parametrize("messages", [[], [said(3, 7, 1.0), said(0, 9, 2.0)]])
def test_a_restarted_stage_goes_on(messages: list[Weighed]) -> None:
    one = stage_of()
    learn(one, *messages)
    two = stage_of(one.copy(0).whole())
    assert broadcast(two) == broadcast(one)
    three = stage_of(one.copy(0).whole())
    for stage in (one, three):
        learn(stage, said(0, 9, 99.0), said(1, 1, 3.0))
    found = broadcast(three)
    assert found is not None
    assert found == broadcast(one)
    assert found.version == 1 + bool(messages)
