from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.features import FEATURES
from models.profiles import Profiles
from stream.keys import Keys, parse_list, parse_profile
from stream.local import LocalRecord
from stream.memory_store import MemoryStore
from stream.stages.global_ import GONE, MODEL_KEY, Broadcast, GlobalStage, SegmentModel, decode_model
from stream.stages.segmenting import Segmenting
from stream.stages.space import ItemSpace
from stream.wire import GlobalRecord, Popular, Profiled, encode_global
from tests.records import T0_US, dump, read_hash, written

KEYS = Keys()
T0_S = T0_US // 1_000_000
CATEGORIES = ["camping", "kitchen"]


def samples(source: int, offsets: Sequence[int], seed: int = 0) -> Profiled:
    """Campers who spend nothing and cooks who spend much, in turn."""
    draw = random.Random(f"{seed} {source} {offsets}")
    cook = [offset % 2 for offset in offsets]
    return Profiled(
        source,
        list(offsets),
        [T0_S + offset for offset in offsets],
        [[draw.random(), 5.0, 6.0 * c + draw.random(), 0.5, 0.5] for c in cook],
        [0] * len(cook),
        [{CATEGORIES[c]: 4.0 + draw.random(), "other": 0.5} for c in cook],
        [("mug", "pan")[offset % 4 // 2] if c else "tent" for c, offset in zip(cook, offsets, strict=True)],
        [1.0] * len(cook),
    )


def learn(stage: GlobalStage, *messages: GlobalRecord) -> GlobalStage:
    stage.learn(0, [LocalRecord(n, 0, None, encode_global(message)) for n, message in enumerate(messages)])
    return stage


def fresh(segments: int = 2, arrays: Any = None) -> GlobalStage:
    stage = GlobalStage(KEYS, segments=segments)
    stage.open(0, arrays)
    return stage


def trained() -> GlobalStage:
    return learn(fresh(), samples(0, range(300)))


def model_of(broadcast: Broadcast) -> SegmentModel:
    (send,) = broadcast.sends
    assert (send.role, send.partition, send.key) == ("models", 0, MODEL_KEY)
    return decode_model(send.value)


POPULAR = Popular(0, 7, T0_S, ["tent", "mug", "mat"], [3.0, 1.0, 2.0], [4, 4, 4], ["camping", "kitchen", ""])


def test_nothing_is_said_before_anything_is_known() -> None:
    broadcast = fresh().publish()
    assert (len(broadcast.writes), broadcast.sends) == (0, [])
    few = learn(fresh(), samples(0, range(20))).publish()
    assert (len(few.writes), few.sends) == (0, [])


def test_samples_become_segments_that_tell_users_apart() -> None:
    stage = trained()
    broadcast = stage.publish()
    model = model_of(broadcast)
    assert set(model.names) == {*FEATURES, *(f"category_share:{name}" for name in [*CATEGORIES, "other"])}
    assert len(model.labels) == len(model.centres) == 2
    camper, cook = sorted(range(2), key=lambda segment: "kitchen" in model.labels[segment])
    assert "camping" in model.labels[camper]
    assert "high spend" in model.labels[cook]

    space = ItemSpace(1)
    codes = space.encode_categories(["unrelated", *CATEGORIES]).tolist()[1:]  # numbered as in no other process
    profiles = Profiles()
    profiles.reserve(3)
    a = profiles.arrays
    for user, (category, spend) in enumerate(zip(codes, (0.0, 6.0), strict=True)):
        a.category[user, 0], a.affinity[user, 0] = category, 4.5
        a.spend[user], a.frequency[user], a.hour_sin[user], a.hour_cos[user] = spend, 5.0, 0.5, 0.5
    segmenting = Segmenting(space)
    users = np.array([1, 0, 1], dtype=np.int32)
    assert segmenting.assign(a, users).tolist() == [-1, -1, -1]
    assert segmenting.replace(model)
    assert segmenting.assign(a, users).tolist() == [cook, camper, cook]
    assert not segmenting.replace(model)
    space.encode_categories(["met later"])
    assert segmenting.assign(a, users).tolist() == [cook, camper, cook]


def test_segments_are_written_with_centres_in_the_units_of_the_features() -> None:
    stage = trained()
    broadcast = stage.publish()
    store = written(broadcast.writes)
    hashes = [parse_profile(read_hash(store, KEYS.segment(n))) for n in range(2)]
    assert sum(int(fields["size"]) for fields in hashes) == 300 - 128  # those after the warm-up
    assert [fields["label"] for fields in hashes] == model_of(broadcast).labels
    spends = sorted(np.expm1(float(fields["spend"])) for fields in hashes)
    assert spends[0] < 1.5
    assert 6 < spends[1] < 7


def test_trending_is_kept_for_all_for_categories_and_for_segments() -> None:
    stage = learn(trained(), POPULAR)
    found = {key: value for key, value in dump(written(stage.publish().writes)).items() if b":trending:" in key}
    lists = {key.decode().partition("rv:trending:")[2]: parse_list(value) for key, value in found.items()}
    assert lists["all"].items == ["tent", "mat", "mug"]
    assert lists["all"].scores == [1.0, round(2 / 3, 6), round(1 / 3, 6)]
    assert lists["all"].why == [(None, "trending")] * 3
    assert lists["all"].ts == (T0_S + 299) * 1000
    assert lists["category:camping"].items == ["tent"]
    assert lists["category:kitchen"].items == ["mug"]
    assert sorted(sorted(lists[f"segment:{n}"].items) for n in range(2)) == [["mug", "pan"], ["tent"]]
    assert len(lists) == 5


def test_popularity_is_replaced_not_added() -> None:
    once, twice = (written(learn(fresh(), *[POPULAR] * times).publish().writes) for times in (1, 2))
    assert dump(once) == dump(twice)
    less = msgspec.structs.replace(POPULAR, values=[0.5, 1.0, 0.0])
    value = dump(written(learn(fresh(), POPULAR, less).publish().writes))[KEYS.trending()]
    assert parse_list(value).items == ["mug", "tent"]


def trending(store: MemoryStore) -> dict[str, list[str]]:
    lists = {key.decode(): value for key, value in dump(store).items() if b":trending:" in key}
    return {key.partition("rv:trending:")[2]: parse_list(value).items for key, value in lists.items()}


def test_a_withdrawn_item_leaves_every_list_and_comes_back() -> None:
    stage = learn(trained(), POPULAR)
    store = written(stage.publish().writes)
    before = trending(store)
    stage.withdraw("tent")
    assert stage.changed
    after = trending(written(stage.publish().writes, into=store))
    assert after == {
        name: rest for name, items in before.items() if (rest := [item for item in items if item != "tent"])
    }
    assert len(after) < len(before)
    stage.withdraw("tent")
    assert not stage.changed
    stage.withdraw("tent", withdrawn=False)
    assert stage.changed
    assert trending(written(stage.publish().writes, into=store)) == before


def test_of_items_that_are_gone_so_many_are_remembered_and_all_that_are_sold_out() -> None:
    stage = fresh()
    for n in range(GONE):
        stage.withdraw(f"gone-{n}", listed=False)
        stage.withdraw(f"sold-out-{n}")
    stage.withdraw("gone-0", listed=False)  # again: now the youngest
    stage.withdraw("gone-1", withdrawn=False)  # and back in the catalogue
    for n in range(3):
        stage.withdraw(f"late-{n}", listed=False)
    assert len(stage.gone) == GONE
    assert len(stage.withdrawn) == 2 * GONE
    assert {"gone-0", "gone-4", "late-2", "sold-out-0"} <= stage.withdrawn
    assert not {"gone-1", "gone-2", "gone-3"} & stage.withdrawn


def test_a_successor_deletes_the_list_that_its_predecessor_wrote() -> None:
    stage = learn(fresh(), POPULAR)
    store = written(stage.publish().writes)
    successor = fresh(arrays=stage.copy(0).whole())
    for item in POPULAR.items:
        successor.withdraw(item)
    assert trending(written(successor.publish().writes, into=store)) == {}


def state(stage: GlobalStage) -> dict[str, Any]:
    return {name: array.tolist() for name, array in stage.copy(0).whole().items()}


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 9))
def test_a_restarted_source_teaches_nothing_twice(snapshot: int, ahead: int, step: int) -> None:
    """It sends the samples behind its snapshot again, in other batches."""
    every = [samples(0, [offset]) for offset in range(60)]
    again = [joined(every[at : at + step]) for at in range(snapshot, 60, step)]
    stage = learn(fresh(), *every[: snapshot + ahead][:60], *again, samples(1, [3]))
    assert state(stage) == state(learn(fresh(), *every, samples(1, [3])))


def joined(parts: Sequence[Profiled]) -> Profiled:
    columns = zip(*(msgspec.structs.astuple(part)[1:] for part in parts), strict=True)
    return Profiled(parts[0].source, *([*itertools.chain.from_iterable(column)] for column in columns))


@pytest.mark.parametrize("at", [0, 50, 128, 200])
def test_a_copy_goes_on_like_the_original(at: int) -> None:
    parts = [samples(0, range(n, n + 10)) for n in range(0, 400, 10)]
    original = fresh(segments=3)
    learn(original, POPULAR, *parts[: at // 10])
    other = fresh(segments=3, arrays=original.copy(0).whole())
    assert other.changed  # what was learned and not yet said is said by the successor
    for part in parts[at // 10 :]:
        learn(original, part)
        learn(other, part)
        one, two = original.publish(), other.publish()
        assert dump(written(one.writes)) == dump(written(two.writes))
        assert one.sends == two.sends
    assert state(original) == state(other)


@pytest.mark.parametrize(("before", "after"), [(3, 2), (2, 3)])
def test_another_number_of_segments_is_found_anew_and_the_rest_is_kept(before: int, after: int) -> None:
    old = learn(fresh(before), POPULAR, samples(0, range(300)))
    store = written(old.publish().writes)
    new = fresh(after, arrays=old.copy(0).whole())
    written(new.publish().writes, into=store)
    kept = [name for name in trending(written(old.publish().writes)) if "segment" not in name]
    assert kept
    assert set(trending(store)) == set(kept)
    learn(new, samples(0, range(300, 600)))
    sends = new.publish().sends
    assert len(decode_model(sends[0].value).centres) == after
    written(new.publish().writes, into=store)
    sizes = [bool(read_hash(store, KEYS.segment(number))) for number in range(4)]
    assert sizes == [number < after for number in range(4)]
    again = fresh(after, arrays=new.copy(0).whole())
    assert again.segments.samples == new.segments.samples


def test_segments_to_be_taken_away_are_known_to_a_successor_until_that_is_done() -> None:
    old = learn(fresh(3), samples(0, range(300)))
    store = written(old.publish().writes)
    new = fresh(2, arrays=old.copy(0).whole())
    new.publish()  # which Redis refuses
    successor = fresh(2, arrays=new.copy(0).whole())
    broadcast = successor.publish()
    written(broadcast.writes, into=store)
    assert [bool(read_hash(store, KEYS.segment(number))) for number in range(3)] == [True, True, False]
    successor.published(broadcast)
    assert len(successor.publish().writes) == 0
    assert fresh(3, arrays=new.copy(0).whole()).surplus == set()


def test_opening_forgets_what_was_there() -> None:
    stage = trained()
    stage.open(0, None)
    assert state(stage) == state(fresh())


def test_owns_its_shard_from_opening_to_closing() -> None:
    stage = GlobalStage(KEYS)
    assert not stage.owned
    stage.open(0, None)
    assert stage.owned
    stage.close(0)
    assert not stage.owned


def test_publishing_says_that_nothing_is_left_to_say() -> None:
    stage = learn(fresh(), POPULAR)
    assert stage.changed
    stage.publish()
    assert not stage.changed


def test_versions_rise() -> None:
    stage = trained()
    versions = [model_of(stage.publish()).version for _ in range(3)]
    assert versions == [1, 2, 3]
