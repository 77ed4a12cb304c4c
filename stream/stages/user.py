"""User stage: histories, profiles, deltas, ranking. State by user, one shard per partition of topic ``events``.

An event's way: `UserStage.learn` (decode, admit, learn, emit deltas) and, once the neighbours it needs are at hand,
`UserStage.rank` (rank, pick offers, render). Both are steps over (state, batch): they return what is to be sent and
written, and perform nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.covisitation import Deltas, Weighting, emit, weighting
from models.decay import YEAR_2000_S
from models.hashing import partition_of
from models.histories import Touches
from models.offer_ranking import ItemFacts, OfferColumns, Picked, Shoppers, rank_users
from models.offer_table import build_table
from models.offers import Offer
from models.profiles import ADD_TO_CART, PURCHASE, REMOVE_FROM_CART, EventColumns, ProfileArrays, Sample
from models.ranking import Lists, Query, query, score_lists
from stream.copying import Copying
from stream.decoding import Batch, DeadLetter, Record, decode, json_of
from stream.events import KIND_WEIGHTS, KINDS, Control, RankAgain, RankAll
from stream.keys import Keys
from stream.packing import Origin
from stream.stages.admission import Admitted, admit, filled_at
from stream.stages.global_ import SegmentModel
from stream.stages.learned import Learned, newest
from stream.stages.pushing import Pushes, Ranked, Shelf, push
from stream.stages.reclaiming import USERS, mark_histories, mark_lists
from stream.stages.segmenting import Segmenting
from stream.stages.sends import Send
from stream.stages.space import ItemSpace
from stream.stages.user_shard import UserRules, UserShard
from stream.wire import Profiled, encode_global, pack_covisits

_CART_EFFECT: Final = np.zeros(len(KINDS), dtype=np.uint8)
_CART_EFFECT[KINDS["purchase"]] = PURCHASE
_CART_EFFECT[KINDS["add_to_cart"]] = ADD_TO_CART
_CART_EFFECT[KINDS["remove_from_cart"]] = REMOVE_FROM_CART


AHEAD: Final = 16  # records looked at for each user that a nearly full shard has room for


class Lesson(NamedTuple):
    """What a batch taught: `event` is the batch position of each touch's event, `item` its item."""

    deltas: Deltas
    sample: Sample
    columns: EventColumns
    item: NDArray[np.int32]
    event: NDArray[np.int32]


class UserStage:
    """The user stage of one process.

    Parameters
    ----------
    space
        The process's items.
    keys
        Builder of Redis keys.
    rules
        What the shop decided.
    partitions
        Number of partitions of topic ``events``.
    topic
        Its name on the broker, which dead letters tell.
    """

    def __init__(self, space: ItemSpace, keys: Keys, rules: UserRules, partitions: int, topic: str = "events") -> None:
        self.space = space
        self.keys = keys
        self.rules = rules
        self.partitions = partitions
        self.topic = topic
        self.shards: dict[int, UserShard] = {}
        kinds = np.array(list(KIND_WEIGHTS.values()), dtype=np.float32)
        self.weights: Weighting = weighting(kinds)
        self.votes: Query = query(kinds)
        self.segmenting = Segmenting(space)
        self.set_offers([])
        space.reclaimer.holders.append(self._mark_items)

    def open(self, partition: int, arrays: Mapping[str, NDArray[Any]] | None) -> None:
        """Start a shard: empty, or from a snapshot."""
        self.shards[partition] = (
            UserShard(self.rules, self.space.partitions)
            if arrays is None
            else UserShard.restore(self.rules, self.space, arrays)
        )

    def copy(self, partition: int) -> Copying:
        """Begin a copy of a shard's state."""
        return self.shards[partition].copy(self.space)

    def close(self, partition: int) -> None:
        """Forget a shard."""
        self.shards.pop(partition, None)

    def learn(self, partition: int, records: Sequence[Record]) -> Learned:
        """Learn from one fetch.

        Parameters
        ----------
        partition
            The shard.
        records
            Records above everything learned before, in offset order.

        Returns
        -------
        Learned
            Deltas, samples, dead letters and re-keyed events to send, and the users to rank.

        Notes
        -----
        About 5 us per event in batches of 2,000, half of it decoding.
        """
        self.space.reclaimer.step()
        shard = self.shards[partition]
        learned: Learned | None = None
        while records:
            dropped = shard.make_room()
            ahead = records[: AHEAD * (self.rules.users - len(shard.users))]
            batch = decode(ahead)
            full = filled_at(shard, batch, partition, self.partitions)
            if full is not None:
                ahead = [record for record in ahead if record.offset <= full]
                batch = decode(ahead)
            part = self._learn_batch(partition, shard, batch, ahead[-1].offset)
            learned = part if learned is None else learned.without(dropped).then(part)
            records = records[len(ahead) :]
        assert learned is not None
        return learned

    def _learn_batch(self, partition: int, shard: UserShard, batch: Batch, last: int) -> Learned:
        """Learn from records up to the offset `last`, for whose users there is room."""
        admitted = admit(shard, batch, partition, self.partitions)
        shard.changes.add(admitted.index[admitted.index >= 0])
        shard.counts.update({f"shape:{shape}": count for shape, count in batch.shapes.items()})
        sends = [self._dead_letter(partition, letter, shard) for letter in batch.dead]
        sends += [_rekeyed(partition, batch, event, self.partitions) for event in admitted.foreign]
        if len(admitted.events):
            lesson = self._learn(shard, batch, admitted)
            sends += self._deltas(partition, shard, batch, lesson, last)
            sends += self._samples(partition, batch, admitted, lesson)
        profiles = shard.profiles.arrays
        event_ms = np.array(batch.ts, dtype=np.int64)[admitted.events] // 1000
        shard.counts["controls"] += len(batch.controls)
        if any(isinstance(control, RankAll) for _, control in batch.controls):
            shard.profiled_ms[:] = 0
            everyone = np.flatnonzero(profiles.events[: shard.users.size]).astype(np.int32)
            return Learned(sends, everyone, _last_ms(profiles, everyone), event_ms, shard.watermark // 1000, force=True)
        again = self._asked(shard, batch.controls)
        shard.profiled_ms[again] = 0
        heard = np.concatenate((admitted.events, admitted.told))
        users, ts_ms = newest(
            np.concatenate((admitted.index[heard], again)),
            np.concatenate((np.array(batch.ts, dtype=np.int64)[heard] // 1000, np.zeros(len(again), dtype=np.int64))),
        )
        learned = profiles.events[users] > 0
        users, ts_ms = users[learned], ts_ms[learned]
        ts_ms = np.maximum(ts_ms, _last_ms(profiles, users))
        return Learned(sends, users, ts_ms, event_ms, force=len(again) > 0)

    def set_offers(self, offers: Sequence[Offer]) -> None:
        """Replace the offers that may be pushed; again whenever segments got other labels."""
        self._offers = list(offers)
        space = self.space
        table = build_table(
            self._offers,
            lambda item: int(space.encode([item])[0]),
            lambda category: int(space.encode_categories([category])[0]),
            self.segmenting.labels,
        )
        self._columns = OfferColumns.of(table)
        self._shelf = Shelf.of(table)

    def set_model(self, model: SegmentModel) -> None:
        """Take over the segments that the global stage has learned."""
        changed = self.segmenting.replace(model)
        if changed:
            self.set_offers(self._offers)

    def rank(
        self,
        partition: int,
        users: NDArray[np.int32],
        ts_ms: NDArray[np.int64],
        *,
        force: bool = False,
        as_of_ms: int | None = None,
    ) -> Pushes:
        """Assign segments, rank lists, pick offers for some users, and render what has changed.

        Parameters
        ----------
        partition, users
            The shard, and distinct users of it.
        ts_ms
            Time of each one's newest event.
        force
            Write unchanged lists too.
        as_of_ms
            Time at which offers are judged; None = each user's own.

        Returns
        -------
        Pushes
            The Redis writes of this flush, and how many lists were ranked.

        Notes
        -----
        2-6 us per user to rank and 2-3 us per list that changed.
        """
        shard, space = self.shards[partition], self.space
        segments = self.segmenting.assign(shard.profiles.arrays, users)
        moved = segments != shard.segment[users]
        shard.segment[users] = segments
        now_ms = ts_ms if as_of_ms is None else np.maximum(ts_ms, as_of_ms)
        lists, picked = Lists.empty(len(users), self.rules.k), Picked.empty(len(users))
        rank_users(
            shard.histories.arrays,
            users,
            space.rows.arrays,
            self.votes,
            ItemFacts(space.hidden, space.category, space.ids.blob, space.ids.spans),
            self._columns,
            Shoppers(shard.profiles.arrays, shard.segment, now_ms // 1000),
            space.scratch,
            lists,
            picked,
        )
        ranked = Ranked(users, ts_ms, lists, picked, moved)
        return push(shard, space, self.keys, ranked, self._shelf, force=force)

    def seeds(self, partition: int, users: NDArray[np.int32]) -> NDArray[np.int32]:
        """Recent items of some users whose rows another worker owns; none while this process owns them all."""
        space = self.space
        if len(space.owned) == space.partitions:
            return np.zeros(0, dtype=np.int32)
        arrays = self.shards[partition].histories.arrays
        filled = np.arange(arrays.item.shape[1]) < arrays.count[users][:, None]
        items = np.unique(arrays.item[users][filled])
        return items[~np.isin(space.partition[items], list(space.owned))]

    def _asked(self, shard: UserShard, controls: Sequence[tuple[int, Control]]) -> NDArray[np.int32]:
        """Known users whom control records name."""
        named = [user for _, control in controls if isinstance(control, RankAgain) for user in control.users]
        found = shard.users.lookup(named)
        return found[found >= 0]

    def _mark_items(self) -> Iterator[None]:
        """Mark the items that offers, histories and pushed lists refer to; lists last, as rows are copied into them."""
        space = self.space
        space.marked[np.flatnonzero(np.diff(self._columns.item_start))] = True
        for shard in list(self.shards.values()):
            for start in range(0, shard.users.size, USERS):
                mark_histories(space.marked, shard.histories.arrays, start, min(start + USERS, shard.users.size))
                yield
        for shard in list(self.shards.values()):
            for start in range(0, shard.users.size, USERS):
                mark_lists(space.marked, shard.last, start, min(start + USERS, shard.users.size))
                yield

    def _learn(self, shard: UserShard, batch: Batch, admitted: Admitted) -> Lesson:
        """Profiles first (they find the sessions), then histories and deltas."""
        kept = admitted.events
        kind = np.array(batch.kind, dtype=np.uint8)
        seconds = np.array(batch.ts, dtype=np.int64) // 1_000_000 - YEAR_2000_S
        of_event = np.array(batch.touch_event, dtype=np.int32)
        names, labels = batch.touch_item, batch.touch_category
        prices = np.array(batch.touch_price, dtype=np.float32)
        if len(kept) < len(admitted.keep) and len(of_event):
            touched = np.flatnonzero(admitted.keep[of_event])
            of_event, prices = of_event[touched], prices[touched]
            names, labels = [names[t] for t in touched], [labels[t] for t in touched]
        items = self.space.encode(names)
        categories = self.space.encode_categories(labels)
        self.space.file(items, categories)
        value = np.array(batch.value, dtype=np.float32)
        value = np.where(value == 0, np.bincount(of_event, prices, minlength=len(value)), value).astype(np.float32)
        bounds = np.append(np.searchsorted(of_event, kept), len(of_event)).astype(np.int32)
        events = EventColumns(
            admitted.user,
            seconds[kept].astype(np.uint32),
            admitted.session,
            _CART_EFFECT[kind[kept]],
            value[kept],
            np.array(batch.channel, dtype=np.uint8)[kept],
            bounds,
            categories,
            self.weights.kind[kind[of_event]],
        )
        starts, sample = shard.profiles.learn(events, shard.hashes, self.rules.sample_rate)
        touches = Touches(admitted.index[of_event], items, kind[of_event], seconds[of_event].astype(np.uint32), starts)
        shard.hits += score_lists(shard.last, shard.histories.arrays, touches, self.weights.kind)
        deltas = emit(shard.histories.arrays, touches, self.weights)
        return Lesson(deltas, sample, events, items, of_event)

    def _deltas(self, partition: int, shard: UserShard, batch: Batch, lesson: Lesson, high: int) -> list[Send]:
        """One record per item partition that needs something of this batch."""
        event = lesson.event[lesson.deltas.source]
        origin = Origin(
            np.array(batch.offset, dtype=np.int64)[event],
            np.array(batch.index, dtype=np.int64)[event],
            lesson.columns.touch_category[lesson.deltas.source],
        )
        space = self.space
        packed = pack_covisits(
            lesson.deltas, origin, partition, shard.sent, high, space.partition, space.ids, space.categories
        )
        sends = []
        for target, value in enumerate(packed):
            if value is not None:
                shard.sent[target] = high
                sends.append(Send("covisits", value, partition=target))
        return sends

    def _samples(self, partition: int, batch: Batch, admitted: Admitted, lesson: Lesson) -> list[Send]:
        """Profiles of sampled users for the global stage, with the item that each had in hand."""
        sample, events, items = lesson.sample, lesson.columns, lesson.item
        if len(sample.event) == 0:
            return []
        first = events.touch[sample.event]
        has_item = events.touch[sample.event + 1] > first
        weights = np.where(has_item, events.touch_weight[np.minimum(first, len(items) - 1)] if len(items) else 0, 0)
        texts = [self.space.ids.text(items[t]) if has else "" for t, has in zip(first, has_item, strict=True)]
        names = self.space.categories
        record = Profiled(
            partition,
            [batch.offset[event] for event in admitted.events[sample.event]],
            (events.ts[sample.event].astype(np.int64) + YEAR_2000_S).tolist(),
            np.stack(
                [sample.recency, sample.frequency, sample.spend, sample.hour_sin, sample.hour_cos], axis=1
            ).tolist(),
            sample.channel.tolist(),
            [
                {names.text(c): float(w) for c, w in zip(row, weight, strict=True) if w > 0}
                for row, weight in zip(sample.category, sample.affinity, strict=True)
            ],
            texts,
            weights.tolist(),
        )
        return [Send("global", encode_global(record), partition=0)]

    def _dead_letter(self, partition: int, letter: DeadLetter, shard: UserShard) -> Send:
        shard.counts[f"dead:{letter.reason}"] += 1
        identity = {
            "reason": letter.reason,
            "detail": letter.detail,
            "topic": self.topic,
            "partition": str(partition),
            "offset": str(letter.offset),
            "index": str(letter.index),
        }
        headers = tuple((name, value.encode(errors="replace")) for name, value in identity.items())
        return Send("dlq", letter.original, key=letter.key, headers=headers)


def _last_ms(profiles: ProfileArrays, users: NDArray[np.int32]) -> NDArray[np.int64]:
    """Time of each user's newest event, to the second: an event out of order must not turn it back."""
    return (profiles.last_ts[users].astype(np.int64) + YEAR_2000_S) * 1000


def _rekeyed(partition: int, batch: Batch, event: int, partitions: int) -> Send:
    """An event of another partition's user, on its way there; an id derived from where it was found keeps it single.

    The partition is named: a topic that was given more partitions would send the event in circles.
    """
    raw, key = json_of(batch.raw[event]), batch.user[event].encode()
    if not batch.event_id[event]:
        derived = f"rekeyed-{partition}-{batch.offset[event]}-{batch.index[event]}"
        raw = b'%s,"event_id":"%s"}' % (raw.rstrip()[:-1], derived.encode())  # of two equal names the last one counts
    home = partition_of(key, partitions)
    return Send("events", raw, partition=home, key=key, timestamp_ms=batch.recorded[event] // 1000)
