from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.features import Vectoriser
from models.offers import Offer
from stream.demo.shop import Shop
from stream.events import MAX_ELEMENTS, MAX_ID_BYTES, MAX_ITEMS, MAX_RECORD_BYTES, MAX_RECORD_ITEMS
from stream.keys import Keys, parse_list, parse_offers
from stream.local import LocalPipeline, LocalRecord
from stream.memory_store import MemoryStore
from stream.resp import key_of
from stream.stages import outgoing
from stream.stages.global_ import SegmentModel, decode_model
from stream.stages.space import MAX_CATEGORY, ItemSpace
from stream.stages.user import UserStage
from stream.stages.user_shard import UserRules
from stream.wire import Profiled, decode_global, unpack_covisits
from tests.records import HOUR, T0_US, cut, dump, event, publish, read, read_hash, record, stream, told, written

TARGETS = 2
KEYS = Keys()
SHOP = list(Shop(seed=3, users=60, concurrent=6).events(900))


def stage_of(arrays: dict[str, Any] | None = None, *, shuffled: int = 0) -> UserStage:
    """A user stage with one shard, in a process that has met the items and categories in another order."""
    space = ItemSpace(TARGETS)
    if shuffled:
        items = [product["item_id"] for product in Shop(seed=3, users=60).catalogue()]
        random.Random(shuffled).shuffle(items)
        space.encode(["unrelated", *items])
        space.encode_categories(["unrelated", "tents", "home"])
    stage = UserStage(space, KEYS, UserRules(sample_rate=0.3), 1)
    stage.open(0, arrays)
    return stage


def emitted(batches: Iterable[Sequence[LocalRecord]], *, restart: bool = False) -> tuple[Any, ...]:
    """All deltas by target and all samples, as other processes read them; and the counters."""
    stage = stage_of()
    deltas: list[list[dict[str, Any]]] = [[] for _ in range(TARGETS)]
    marks = [-1] * TARGETS
    samples: list[tuple[Any, ...]] = []
    for number, batch in enumerate(batches, 1):
        for send in stage.learn(0, batch).sends:
            if send.role == "covisits":
                found = unpack_covisits(send.value)
                assert found.low == marks[send.partition or 0]  # no hole between the records of a target
                assert found.low < found.high <= batch[-1].offset
                marks[send.partition or 0] = found.high
                deltas[send.partition or 0] += told(found)
            elif send.role == "global":
                sample = decode_global(send.value)
                assert isinstance(sample, Profiled)
                assert sample.offset == sorted(sample.offset)
                affinities = [sorted(cells.items()) for cells in sample.affinities]
                samples += zip(
                    sample.offset, sample.ts, sample.numbers, sample.channel, affinities, sample.items, strict=True
                )
        if restart:
            stage = stage_of(stage.copy(0).whole(), shuffled=number)
    return deltas, samples, dict(stage.shards[0].counts)


@settings(deadline=None, max_examples=15)
@given(st.sets(st.integers(1, 899), max_size=6), st.booleans())
def test_deltas_do_not_depend_on_batches_or_restarts(cuts: set[int], restart: bool) -> None:
    assert emitted(cut(stream(SHOP), cuts), restart=restart) == emitted([stream(SHOP)])


def test_deltas_carry_the_place_of_their_event() -> None:
    deltas, samples, counts = emitted([stream(SHOP)])
    visits = [visit for visits in deltas for visit in visits]
    assert counts["learned"] == 900
    assert {visit["index"] for visit in visits} == {0}
    for visit in visits:
        bought = {item["item_id"]: item["item_category"] for item in SHOP[visit["offset"]]["items"]}
        assert bought[visit["item"]] == visit["category"]
    assert 0.2 < len(samples) / 900 < 0.4


def restarted(old: LocalPipeline, seed: int) -> LocalPipeline:
    """Another process that takes over every shard from copies, with ids met in another order."""
    new = LocalPipeline(old.store, partitions=1, item_partitions=TARGETS, offers=OFFERS)
    ids = old.space.ids.texts(range(len(old.space.ids)))
    random.Random(seed).shuffle(ids)
    new.space.encode(["unrelated", *ids])
    for partition in range(TARGETS):
        new.items.open(partition, old.items.copy(partition).whole())
    new.users.open(0, old.users.copy(0).whole())
    new.globe.open(0, old.globe.copy(0).whole())
    for send in old.globe.publish().sends:
        new.users.set_model(decode_model(send.value))
    new.topics, new.now_ms, new.counts = old.topics, old.now_ms, old.counts
    return new


OFFERS = [
    Offer(id="tents", categories=("tents",), value=5.0),
    Offer(id="mugs", categories=("kitchen",), value=1.0, min_category_affinity={"kitchen": 0.2}),
]


def test_a_restarted_process_goes_on_as_if_nothing_had_been() -> None:
    stores = [MemoryStore(), MemoryStore()]
    one, two = (LocalPipeline(s, partitions=1, item_partitions=TARGETS, offers=OFFERS) for s in stores)
    for part in range(3):
        for pipeline in (one, two):
            publish(pipeline, SHOP[part * 300 : part * 300 + 300])
        assert dump(stores[0]) == dump(stores[1])
        two = restarted(two, part)
    shards = [pipeline.users.shards[0] for pipeline in (one, two)]
    assert shards[0].counts == shards[1].counts
    assert shards[0].hits.tolist() == shards[1].hits.tolist()
    assert one.counts == two.counts
    assert len(dump(stores[0])) > 100


START = [event(who, item, at=n) for n, (who, item) in enumerate((w, i) for w in "ab" for i in ("tent", "mat", "stove"))]


def shop(*events: dict[str, Any], offers: list[Offer] | None = None, rules: UserRules | None = None) -> LocalPipeline:
    """A pipeline in which tent, mat and stove are known to go together."""
    pipeline = LocalPipeline(MemoryStore(), rules, partitions=1, item_partitions=1, offers=offers or [])
    publish(pipeline, START)
    publish(pipeline, events)
    return pipeline


def stored(pipeline: LocalPipeline, key: bytes) -> bytes | None:
    assert isinstance(pipeline.store, MemoryStore)
    return read(pipeline.store, key)


def listed(pipeline: LocalPipeline, user: str = "u") -> list[str] | None:
    value = stored(pipeline, KEYS.recs(user))
    return None if value is None else parse_list(value).items


def offered(pipeline: LocalPipeline, user: str = "u") -> list[str] | None:
    value = stored(pipeline, KEYS.offers(user))
    return None if value is None else [offer.id for offer in parse_offers(value).offers]


def profile(pipeline: LocalPipeline, user: str = "u") -> dict[bytes, bytes]:
    assert isinstance(pipeline.store, MemoryStore)
    return read_hash(pipeline.store, KEYS.profile(user))


def test_a_list_says_what_goes_with_the_item_in_hand() -> None:
    pipeline = shop(event("u", "tent", at=50))
    value = stored(pipeline, KEYS.recs("u"))
    assert value is not None
    found = parse_list(value)
    assert found.items == ["mat", "stove"]
    assert found.ts == record(0, b"", at=50).timestamp
    assert found.why == [("tent", "covisit")] * 2
    assert pipeline.users.shards[0].hits.tolist()[0] == 0
    publish(pipeline, [event("u", "stove", at=51)])
    assert pipeline.users.shards[0].hits.tolist() == [1, 1, 0.5]  # it was second in the list


def test_an_event_out_of_order_does_not_turn_the_time_back() -> None:
    pipeline = shop(event("u", "tent", at=9 * HOUR))
    publish(pipeline, [event("u", "mat", at=1)])
    value = stored(pipeline, KEYS.recs("u"))
    assert value is not None
    assert parse_list(value).ts == record(0, b"", at=9 * HOUR).timestamp


PERSONAL = {"personalization_storage": "denied"}


@pytest.mark.parametrize("also", [{}, {"analytics_storage": "denied"}])
def test_who_takes_back_consent_finds_nothing_of_it_in_redis(also: dict[str, str]) -> None:
    offer = Offer(id="o", items=("mat", "stove"), value=1.0)
    pipeline = shop(event("u", "tent", at=50), offers=[offer])
    assert (listed(pipeline), offered(pipeline)) == (["mat", "stove"], ["o"])
    assert profile(pipeline)[b"events"] == b"1"
    no = PERSONAL | also | {"ad_personalization": "denied"}
    publish(pipeline, [event("u", at=60, name="login", consent=no)])
    assert (listed(pipeline), offered(pipeline), profile(pipeline)) == (None, None, {})
    publish(pipeline, [event("u", "mat", at=70)])
    assert (listed(pipeline), offered(pipeline), profile(pipeline)) == (None, None, {})
    yes = {"analytics_storage": "granted", "personalization_storage": "granted", "ad_personalization": "granted"}
    publish(pipeline, [event("u", "tent", at=80, consent=yes)])
    assert listed(pipeline)
    assert offered(pipeline) == ["o"]
    assert profile(pipeline)


def test_nothing_is_kept_of_those_who_never_agreed() -> None:
    rules = UserRules(consent=False)
    pipeline = shop(event("u", "tent", at=50), rules=rules)
    assert dump(pipeline.store) == {}  # type: ignore[arg-type]  # made as a MemoryStore above
    assert not pipeline.users.shards[0].profiles.arrays.events.any()
    publish(pipeline, [event("u", "tent", at=60, consent={"analytics_storage": "denied"})])
    assert dump(pipeline.store) == {}  # type: ignore[arg-type]  # made as a MemoryStore above


DAY = 24 * HOUR
START_AT = dt.datetime(2025, 6, 15, 15, 6, 40, tzinfo=dt.UTC)
MATS = Offer(id="mats", items=("mat",), value=2.0)
STOVES = Offer(
    id="stoves",
    items=("stove",),
    value=1.0,
    valid_from=START_AT + dt.timedelta(hours=1),
    valid_until=START_AT + dt.timedelta(hours=2),
)


def test_offers_come_and_go_with_the_time_of_the_events() -> None:
    pipeline = shop(event("u", "tent", at=HOUR - 1), offers=[MATS, STOVES])
    assert offered(pipeline) == ["mats"]
    publish(pipeline, [event("u", at=HOUR, name="login")])
    assert offered(pipeline) == ["mats", "stoves"]
    assert lifetime(pipeline, KEYS.offers("u")) == DAY
    pipeline.users.offering.replace([STOVES])
    publish(pipeline, [event("u", at=1.5 * HOUR, name="login")])
    assert offered(pipeline) == ["stoves"]
    assert lifetime(pipeline, KEYS.offers("u")) == HOUR / 2
    publish(pipeline, [event("u", at=2 * HOUR, name="login")])
    assert offered(pipeline) is None


def test_an_event_out_of_order_brings_no_ended_offer_back() -> None:
    pipeline = shop(event("u", "tent", at=3 * HOUR), offers=[STOVES])
    publish(pipeline, [event("u", "tent", at=1.5 * HOUR, name="like")])
    assert offered(pipeline) is None


def test_an_offer_that_changed_is_pushed_again() -> None:
    pipeline = shop(event("u", "tent", at=50), offers=[MATS])
    for n, other in enumerate([Offer(id="mats-2", items=("mat",), value=2.0), STOVES, MATS]):
        pipeline.users.offering.replace([other])
        publish(pipeline, [event("u", at=1.2 * HOUR + n, name="login")])
        assert offered(pipeline) == [other.id]
    longer = msgspec.structs.replace(MATS, valid_until=START_AT + dt.timedelta(hours=9))
    pipeline.users.offering.replace([longer])
    publish(pipeline, [event("u", at=1.5 * HOUR, name="login")])
    value = stored(pipeline, KEYS.offers("u"))
    assert value is not None
    assert parse_offers(value).offers[0].until == longer.until_s * 1000


def test_offers_are_written_again_before_their_key_ends() -> None:
    pipeline = shop(event("u", "tent", at=50), offers=[MATS])
    first = stored(pipeline, KEYS.offers("u"))
    publish(pipeline, [event("u", at=60, name="login")])
    assert stored(pipeline, KEYS.offers("u")) == first
    publish(pipeline, [event("u", at=DAY / 2 + 60, name="login")])
    assert stored(pipeline, KEYS.offers("u")) != first


def test_offers_go_only_to_those_they_are_meant_for() -> None:
    offers = [
        Offer(id="cart", items=("mat",), value=9.0, min_cart_value=20.0),
        Offer(id="stove-lovers", items=("mat",), value=8.0, min_category_affinity={"cat-s": 0.5}),
        Offer(id="segment", items=("mat",), value=7.0, segments=(0,)),
        Offer(id="all", categories=("cat-m",), value=1.0),
    ]
    pipeline = shop(event("u", "tent", at=50), offers=offers)
    assert offered(pipeline) == ["all"]
    publish(pipeline, [event("u", "tent", at=51, name="add_to_cart")])
    assert offered(pipeline) == ["all"]
    publish(pipeline, [event("u", "stove", at=52, name="add_to_cart")])
    assert offered(pipeline) == ["cart", "all"]
    publish(pipeline, [event("u", "stove", "stove", at=53, name="like", event_id=f"{n}") for n in range(4)])
    assert offered(pipeline) == ["cart", "stove-lovers", "all"]
    publish(pipeline, [event("u", "tent", at=54, name="purchase")])
    assert offered(pipeline) == ["stove-lovers", "all"]
    learn_segments(pipeline)
    publish(pipeline, [event("u", at=55, name="login")])
    assert offered(pipeline) == ["stove-lovers", "segment", "all"]


def lifetime(pipeline: LocalPipeline, key: bytes) -> float | None:
    assert isinstance(pipeline.store, MemoryStore)
    return pipeline.store.ttl(key)


def learn_segments(pipeline: LocalPipeline, *, spend: float = 9.0) -> None:
    """Broadcast two segments: those who spend less than half of `spend` (logarithms), and the others."""
    names = list(Vectoriser().names)
    centres = np.zeros((2, len(names)))
    centres[1, names.index("spend")] = spend
    pipeline.users.set_model(
        SegmentModel(
            version=1,
            names=names,
            centres=centres.tolist(),
            means=[0.0] * len(names),
            stds=[float(name == "spend") for name in names],
            labels=["mixed", "high spend"],
        )
    )


def test_the_profile_is_written_when_the_segment_moves() -> None:
    pipeline = shop(event("u", "tent", at=50))
    assert profile(pipeline)[b"segment"] == b"-1"
    publish(pipeline, [event("u", "mat", at=51)])
    assert profile(pipeline)[b"events"] == b"1"  # not written with every event
    learn_segments(pipeline, spend=2.0)
    publish(pipeline, [event("u", "mat", at=52, name="like")])
    assert (profile(pipeline)[b"segment"], profile(pipeline)[b"events"]) == (b"0", b"3")
    bought = event("u", "mat", at=53, name="purchase", value=1_000, consent={"analytics_storage": "granted"})
    publish(pipeline, [bought])
    found = profile(pipeline)
    assert (found[b"segment"], found[b"events"], found[b"value"]) == (b"1", b"4", b"1000.00")
    assert found[b"consent"] == b"1"
    assert int(found[b"last_ts"]) == record(0, b"", at=53).timestamp
    publish(pipeline, [event("u", "mat", at=2 * HOUR)])
    assert profile(pipeline)[b"events"] == b"5"  # an hour has passed


def test_unchanged_lists_are_written_again_after_half_their_life() -> None:
    pipeline = shop(event("u", "tent", at=50))
    keys = pipeline.counts["keys"]
    publish(pipeline, [event("u", at=60, name="login")])
    assert pipeline.counts["keys"] == keys
    publish(pipeline, [event("u", at=40 * HOUR, name="login")])
    value = stored(pipeline, KEYS.recs("u"))
    assert value is not None
    assert parse_list(value).ts == record(0, b"", at=40 * HOUR).timestamp


def test_rank_all_pushes_to_everyone_who_was_learned_and_nobody_else() -> None:
    pipeline = shop(event("u", "tent", at=50), event("n", "tent", consent={"analytics_storage": "denied"}))
    foreign = record(0, event("x", "tent")).value
    stage = UserStage(pipeline.space, KEYS, UserRules(), 10**6)  # nearly every user belongs to another partition
    stage.open(0, None)
    assert foreign is not None
    stage.learn(0, [record(0, foreign)])
    assert len(stage.learn(0, [record(1, {"control": "rank_all"})]).users) == 0
    learned = pipeline.users.learn(0, [record(99, {"control": "rank_all"})])
    shard = pipeline.users.shards[0]
    assert learned.everyone
    assert shard.users.texts(learned.users) == ["a", "b", "u"]
    last = [record(0, b"", at=at).timestamp for at in (2, 5, 50)]
    assert learned.ts_ms.tolist() == last
    pushes = pipeline.users.rank(0, learned.users, learned.ts_ms, force=True)
    assert {key for key in map(key_of, pushes.writes.frames) if key.endswith(b":recs")} == {
        KEYS.recs(user) for user in "abu"
    }


def test_rank_again_writes_the_lists_of_those_named_though_nothing_changed() -> None:
    pipeline = shop(event("u", "tent", at=50))
    named = ["u", "a", "nobody", "u"]
    learned = pipeline.users.learn(0, [record(99, {"control": "rank", "users": named})])
    shard = pipeline.users.shards[0]
    assert sorted(shard.users.texts(learned.users)) == ["a", "u"]
    assert learned.force
    assert not learned.everyone
    pipeline.users.rank(0, learned.users, learned.ts_ms)
    assert len(pipeline.users.rank(0, learned.users, learned.ts_ms).writes) == 0
    again = written(pipeline.users.rank(0, learned.users, learned.ts_ms, force=learned.force).writes)
    for user in "au":
        assert read(again, KEYS.recs(user)) is not None
    assert shard.counts["controls"] == 1


def crowded(records: int, events: int) -> list[LocalRecord]:
    """Batches of events of many users with long ids, about 10 items each."""
    made = []
    for offset in range(records):
        events_ = [
            event(
                f"u{n}", *(f"{'i' * 200}{offset % 7}-{n}-{m}" for m in range(10)), at=offset, event_id=f"{offset}-{n}"
            )
            for n in range(events)
        ]
        made.append(record(offset, events_, at=offset))
    return made


def test_what_a_batch_teaches_is_sent_in_records_that_fit_and_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = emitted([crowded(9, 5)])
    monkeypatch.setattr(outgoing, "MOST_BYTES", 600)
    sends = stage_of().learn(0, crowded(9, 5)).sends
    assert len([send for send in sends if send.role == "covisits"]) > TARGETS
    assert len([send for send in sends if send.role == "global"]) > 1
    assert emitted([crowded(9, 5)]) == whole


@pytest.mark.parametrize(
    ("events", "items"), [(MAX_ELEMENTS, MAX_RECORD_ITEMS // MAX_ELEMENTS), (MAX_RECORD_ITEMS // MAX_ITEMS, MAX_ITEMS)]
)
def test_what_the_largest_record_teaches_fits(events: int, items: int) -> None:
    """Every event is another user's with a full history of long ids: only between records may deltas be divided."""
    stage = UserStage(ItemSpace(1), KEYS, UserRules(sample_rate=1.0, history=127), 1)
    stage.open(0, None)
    past = [
        event(f"u{n}", *(f"{'x' * 240}{n}-{m}"[:MAX_ID_BYTES] for m in range(20)), event_id=f"p{n}")
        for n in range(events)
    ]
    for offset, one in enumerate(past):
        stage.learn(0, [record(offset, one)])
    touched = [[{"item_id": f"{n}-{m}"} for m in range(items)] for n in range(events)]
    now = [
        {"event_name": "purchase", "event_timestamp": T0_US + 1, "user_id": f"u{n}", "items": mine}
        for n, mine in enumerate(touched)
    ]
    full = record(len(past), now, at=1)
    assert full.value is not None
    assert len(full.value) <= MAX_RECORD_BYTES
    sends = stage.learn(0, [full]).sends
    assert not [send for send in sends if send.role == "dlq"]
    found = [unpack_covisits(send.value) for send in sends if send.role == "covisits"]
    assert sum(len(each.deltas.item) for each in found) == events * items
    assert max(len(send.value) for send in sends) <= outgoing.MOST_BYTES


def test_category_names_have_a_bound() -> None:
    space = ItemSpace(1)
    codes = space.encode_categories(["c" * (MAX_CATEGORY + 1), "c" * MAX_CATEGORY, ""])
    assert (codes >= 0).tolist() == [False, True, False]
