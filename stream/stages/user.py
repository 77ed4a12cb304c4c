"""User stage: histories, profiles, deltas, ranking. State by user, one shard per partition of topic ``events``.

An event's way: `UserStage.learn` (decode, admit, learn, emit deltas) and, once the neighbours it needs are at hand,
`UserStage.rank` (rank, pick offers, render). Both are steps over (state, batch): they return what is to be sent and
written, and perform nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.covisitation import Weighting, weighting
from models.decay import YEAR_2000_S
from models.hashing import partition_of
from models.histories import Touches
from models.profiles import ADD_TO_CART, PURCHASE, REMOVE_FROM_CART, EventColumns, ProfileArrays
from models.ranking import score_lists
from stream.copying import Copying
from stream.decoding import Batch, Record, decode
from stream.events import (
    KIND_WEIGHTS,
    KINDS,
    Disowned,
    Export,
    Forget,
    Joined,
    Linked,
    Move,
    RankAll,
    Request,
    Returned,
)
from stream.keys import Keys
from stream.packing import Origin
from stream.stages.admission import Admitted, admit, filled_at
from stream.stages.global_ import MODEL_KEY, SegmentModel, decode_model
from stream.stages.learned import Answer, Learned, newest
from stream.stages.linking import disowned, give_back, hand_over, links, take_over
from stream.stages.offering import Offering
from stream.stages.outgoing import Lesson, dead_letter, deltas_of, rekeyed, request_for, samples_of, send_deltas
from stream.stages.placing import Placing
from stream.stages.privacy import erasure, export, forget, named_again
from stream.stages.pushing import Pushes, Ranked, push
from stream.stages.ranking import Ranking, pauses, ranking_of
from stream.stages.reclaiming import USERS, items_in_rings, mark_histories, mark_lists
from stream.stages.segmenting import Segmenting
from stream.stages.serving import served
from stream.stages.space import ItemSpace
from stream.stages.stepwise import Stepwise, at_once
from stream.stages.user_shard import UserRules, UserShard
from stream.stages.user_snapshot import copy, restore
from stream.stages.weights import BLEND_KEY
from stream.wire import decode_blend

_CART_EFFECT: Final = np.zeros(len(KINDS), dtype=np.uint8)
_CART_EFFECT[KINDS["purchase"]] = PURCHASE
_CART_EFFECT[KINDS["add_to_cart"]] = ADD_TO_CART
_CART_EFFECT[KINDS["remove_from_cart"]] = REMOVE_FROM_CART


ALONE: Final = (Forget, Export, Linked, Joined, Returned, Disowned)
AHEAD: Final = 16  # records looked at for each user that a nearly full shard has room for


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
        self.ranking: Ranking = ranking_of(rules, space, self.weights)
        self.placing = Placing(rules, space)
        self.versions: dict[str, int] = {}  # of the models taken over, by key
        # by partition, items that the deltas of a batch may name which is being learned
        self._underway: dict[int, NDArray[np.int32]] = {}
        self.segmenting = Segmenting(space)
        self.offering = Offering(space)
        space.reclaimer.holders.append(self._mark_items)
        space.reclaimer.forgetters.append(self._forget_items)

    def open(self, partition: int, arrays: Mapping[str, NDArray[Any]] | None) -> None:
        """Start a shard: empty, or from a snapshot."""
        self.adopt(
            partition,
            UserShard(self.rules, self.space.partitions) if arrays is None else restore(self.rules, self.space, arrays),
        )

    def adopt(self, partition: int, shard: UserShard) -> None:
        """Start a shard that is complete already."""
        self.shards[partition] = shard
        shard.shelve(self.offering.standing(shard.now_s))

    def copy(self, partition: int) -> Copying:
        """Begin a copy of a shard's state."""
        return copy(self.shards[partition], self.space)

    def close(self, partition: int) -> None:
        """Forget a shard."""
        self.shards.pop(partition, None)

    def learn(self, partition: int, records: Sequence[Record], decoded: Batch | None = None) -> Learned:
        """Learn from one fetch.

        Parameters
        ----------
        partition
            The shard.
        records
            Records above everything learned before, in offset order.
        decoded
            What they say, up to the first of `ALONE`, for who has it already.

        Returns
        -------
        Learned
            Deltas, samples, dead letters and re-keyed events to send, and the users to rank.

        Notes
        -----
        About 5 us per event in batches of 2,000, half of it decoding.
        """
        return at_once(self.learning(partition, records, decoded))

    def learning(self, partition: int, records: Sequence[Record], decoded: Batch | None = None) -> Stepwise[Learned]:
        """As `learn`, with pauses in which other shards may learn; this one only afterwards."""
        try:
            return (yield from self._learning(partition, records, decoded))
        finally:
            self._underway.pop(partition, None)

    def _learning(self, partition: int, records: Sequence[Record], decoded: Batch | None) -> Stepwise[Learned]:
        self.space.reclaimer.step()
        shard = self.shards[partition]
        parts = []
        at, fresh = 0, _position(records, shard.known + 1)
        while at < len(records):
            evicted = shard.make_room()
            shard.rehearses = at < fresh
            if shard.rehearses or at:
                decoded = None
            batch, end = self._ahead(partition, shard, records[:fresh] if shard.rehearses else records, at, decoded)
            request = batch.controls[-1][1] if batch.controls else None
            if isinstance(request, ALONE):
                part = self._obey(partition, shard, records[at].offset, request)
            else:
                part = yield from self._learn_batch(partition, shard, batch, records[end - 1].offset)
            part.dropped = np.append(evicted, part.dropped)
            parts.append(part)
            at = end
        return Learned.of_all(parts)

    def _ahead(
        self, partition: int, shard: UserShard, records: Sequence[Record], at: int, decoded: Batch | None
    ) -> tuple[Batch, int]:
        """The next records for whose users there is room, from position `at` on, and where they end.

        A request comes alone: what it finds must not depend on where a fetch ends. Each record is decoded twice at
        most, but for shards that are nearly full.
        """
        end = at + AHEAD * (self.rules.users - len(shard.users))
        if decoded is None or end < len(records):
            decoded = decode(records[at:end], until=ALONE)
        batch, end = decoded, min(end, len(records))
        if batch.controls and isinstance(batch.controls[-1][1], ALONE):
            end = _position(records, batch.controls[-1][0])
            if end == at:
                return batch, at + 1
            batch.controls.pop()
        filled = filled_at(shard, batch, partition, self.partitions)
        if filled is not None:
            end = _position(records, filled) + 1
            batch = decode(records[at:end])
        return batch, end

    def _learn_batch(self, partition: int, shard: UserShard, batch: Batch, last: int) -> Stepwise[Learned]:
        """Learn from records up to the offset `last`, for whose users there is room."""
        admitted = admit(shard, batch, partition, self.partitions)
        shard.counts.update({f"shape:{shape}": count for shape, count in Counter(batch.shapes).items()})
        shard.counts.update(f"dead:{letter.reason}" for letter in batch.dead)
        sends = [dead_letter(self.topic, partition, letter) for letter in batch.dead]
        sends += [rekeyed(partition, batch, event, self.partitions) for event in admitted.foreign]
        if len(admitted.events):
            lesson = yield from self._learn(partition, shard, batch, admitted)
            sends += deltas_of(lesson, self.space, shard, batch, partition, last)
            sends += samples_of(lesson, self.space, batch, admitted, partition)
            sends += self.ranking.tell(shard, partition, last)
            if batch.cookies and self.rules.link:
                sends += links(shard, batch, admitted, partition, self.partitions)
        shard.changes.add(admitted.index[admitted.index >= 0])  # behind the pauses: in one a copy may have begun
        shard.claims.expire(shard.now_s - shard.rules.lateness_s)
        profiles = shard.profiles.arrays
        event_ms = admitted.ts[admitted.events] // 1000
        shard.counts["controls"] += len(batch.controls)
        again, gone = named_again(shard, batch.controls)
        answers = [Answer(user, erasure(self.keys, [user], shard.named)) for user in gone]
        if any(isinstance(control, RankAll) for _, control in batch.controls):
            shard.profiled_ms[:] = 0
            shard.pool = None
            everyone = np.flatnonzero(profiles.events[: shard.users.size]).astype(np.int32)
            ts_ms = _last_ms(profiles, everyone)
            return Learned(sends, everyone, ts_ms, event_ms, everyone=True, force=True, answers=answers)
        shard.profiled_ms[again] = 0
        heard = np.concatenate((admitted.events, admitted.told))
        users, ts_ms = newest(
            np.concatenate((admitted.index[heard], again)),
            np.concatenate((admitted.ts[heard] // 1000, np.zeros(len(again), dtype=np.int64))),
        )
        learned = profiles.events[users] > 0
        users, ts_ms = users[learned], ts_ms[learned]
        ts_ms = np.maximum(ts_ms, _last_ms(profiles, users))
        return Learned(sends, users, ts_ms, event_ms, force=len(again) > 0, answers=answers)

    def _obey(self, partition: int, shard: UserShard, offset: int, request: Request | Move | Disowned) -> Learned:
        """Forget a user, tell what is kept, or move histories, as the record at an offset asks."""
        shard.counts["controls"] += 1
        if isinstance(request, Linked) and not self.rules.link:
            return Learned.of_request([], [])
        if isinstance(request, Linked):
            return hand_over(shard, self.space, self.weights, request, (partition, offset), self.partitions)
        if isinstance(request, Joined):
            return take_over(shard, self.space, self.weights, request, (partition, offset), self.partitions)
        if isinstance(request, Returned):
            return give_back(shard, self.space, self.weights, request, (partition, offset))
        if isinstance(request, Disowned):
            shard.claims.disown(int(request.person, 16))
            return Learned.of_request([], [])
        home = partition_of(request.user.encode(), self.partitions)
        if home != partition:
            return Learned.of_request([request_for(request, home)], [])
        if isinstance(request, Export):
            return Learned.of_request([], [export(shard, self.space, self.keys, request)])
        removed = forget(shard, self.keys, self.weights, request)
        origin = Origin.of_record(offset, len(removed.deltas.item))
        sends = send_deltas(removed.deltas, origin, self.space, shard, partition, offset)
        if self.rules.link:
            sends += disowned(request, self.partitions)
        return Learned.of_request(sends, [removed.answer], removed.users)

    def _restock(self) -> None:
        """Lay out the offers, if they or the labels of segments have changed since that was done."""
        if self.offering.lay_out(self.segmenting.labels):
            for shard in self.shards.values():
                shard.shelve(self.offering.standing(shard.now_s))

    def outdated(self, partition: int, most: int) -> NDArray[np.int32]:
        """The next users, at most so many, some of whom were given an offer that ended, was withdrawn or changed terms.

        Which offers a user was given is not kept: everyone with offers comes once, and then nobody until the next
        change.
        """
        self._restock()
        shard = self.shards[partition]
        return shard.outdated(self.offering.standing(shard.now_s), most)

    def take_model(self, key: bytes, value: bytes) -> None:
        """Take over a record of topic ``models``; other keys are for other versions."""
        if key == MODEL_KEY:
            self.set_model(decode_model(value))
        elif key == BLEND_KEY:
            model = decode_blend(value)
            self.versions["blend"] = model.version
            self.ranking.hear(model)

    def set_model(self, model: SegmentModel) -> None:
        """Take over the segments that the global stage has learned."""
        self.versions["segments"] = model.version
        changed = self.segmenting.replace(model)
        if changed:
            self.offering.doubt()

    def rank(
        self,
        partition: int,
        users: NDArray[np.int32],
        ts_ms: NDArray[np.int64],
        *,
        force: bool = False,
    ) -> Pushes:
        """Assign segments, rank lists, pick offers for some users, and render what has changed.

        Offers are judged at the highest event time of the shard: it is now that readers will find them.

        Parameters
        ----------
        partition, users
            The shard, and distinct users of it.
        ts_ms
            Time of each one's newest event.
        force
            Write unchanged lists too.

        Returns
        -------
        Pushes
            The Redis writes of this flush, how many lists were ranked, and what to send once it is written.

        Notes
        -----
        2-6 us per user to rank by co-visitation, 10-18 us by the blend, and 2-3 us per list that changed.
        """
        self._restock()
        shard = self.shards[partition]
        shard.changes.add(users)
        segments = self.segmenting.assign(shard.profiles.arrays, users)
        moved = segments != shard.segment[users]
        shard.segment[users] = segments
        lists, picked = self.ranking.rank(shard, users, self.offering.columns, self.offering.sums)
        placed = self.placing.place(shard, users, lists)
        ranked = Ranked(users, ts_ms, lists.first(self.rules.k), picked, moved, placed)
        pushes = push(shard, self.space, self.keys, ranked, self.offering.shelf, force=force)
        pushes.sends += served(partition, shard, self.space, pushes.written)
        return pushes

    def last_ms(self, partition: int, users: NDArray[np.int32]) -> NDArray[np.int64]:
        """Time of some users' newest events, ms."""
        return _last_ms(self.shards[partition].profiles.arrays, users)

    def _mark_items(self) -> Iterator[None]:
        """Mark the items that offers, histories and pushed lists refer to.

        Lists last, as items of rows, of other histories and popular ones are copied into them.
        """
        self._restock()
        space = self.space
        space.marked[self.offering.items()] = True
        for items in self._underway.values():
            space.marked[items] = True
        for shard in list(self.shards.values()):
            for start in range(0, shard.users.size, USERS):
                mark_histories(space.marked, shard.histories.arrays, start, min(start + USERS, shard.users.size))
                yield
        for shard in list(self.shards.values()):
            popular = shard.blend.arrays.tallies.popular
            space.marked[popular[popular >= 0]] = True
            for start in range(0, shard.users.size, USERS):
                mark_lists(space.marked, shard.last, start, min(start + USERS, shard.users.size))
                yield

    def _hold(self, partition: int, shard: UserShard, touches: Touches) -> None:
        """Keep the items of a batch and of the rings that it is appended to: deltas name what has left them, too."""
        held = np.append(touches.item, items_in_rings(shard.histories.arrays, touches.user))
        self._underway[partition] = held
        if self.space.reclaimer.running:  # it may have come past those who hold them, or come when they do no more
            self.space.marked[held] = True

    def _forget_items(self, items: NDArray[np.int32]) -> None:
        for shard in self.shards.values():
            shard.blend.drop_items(items)
            shard.newcomers.drop_items(items)

    def _learn(self, partition: int, shard: UserShard, batch: Batch, admitted: Admitted) -> Stepwise[Lesson]:
        """Profiles first (they find the sessions), then histories and deltas."""
        kept = admitted.events
        kind = np.array(batch.kind, dtype=np.uint8)
        seconds = admitted.ts // 1_000_000 - YEAR_2000_S
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
        if np.count_nonzero(prices):
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
        if self.placing.explores:
            shard.newcomers.learn_many(items)
        if not shard.rehearses:
            shard.hits += score_lists(shard.last, shard.histories.arrays, touches, self.weights.kind)
        if pauses(touches):
            self._hold(partition, shard, touches)
        deltas = yield from self.ranking.learn(shard, touches)
        return Lesson(deltas, sample, events, items, of_event)


def _position(records: Sequence[Record], offset: int) -> int:
    return bisect_left(records, offset, key=lambda record: record.offset)


def _last_ms(profiles: ProfileArrays, users: NDArray[np.int32]) -> NDArray[np.int64]:
    """Time of each user's newest event, to the second: an event out of order must not turn it back."""
    return (profiles.last_ts[users].astype(np.int64) + YEAR_2000_S) * 1000
