"""Whether a worker gets on: the one notion of progress behind the watchdog, the health pages and the lag metrics.

Progress is that offsets move, or that there is nothing to do and the broker says so again and again. That a server is
away is not a standstill: a new process would not bring it back.
"""

from __future__ import annotations

from collections.abc import Iterator

from stream.broadcast import Broadcast
from stream.fetches import TP
from stream.gate import Gate
from stream.outage import Outage
from stream.shard import LOG_START, Shard
from stream.shards import ShardHost
from stream.watchdog import Standstill


class Pulse:
    """Feels, once a beat, what stands still and whether Kafka answers.

    What stands still is a sentence that says where it stands; as long as the same sentence is true, its age grows.

    Parameters
    ----------
    host
        Owner of the shards.
    broadcast, gate
        What events wait for.
    redis
        Whether Redis is away.
    session_s
        Session timeout of the group; half of it without an answer and Kafka counts as away.

    Attributes
    ----------
    kafka
        Whether Kafka is away.
    longest
        What has stood still longest, None if everything gets on.
    felt_s
        Seconds looked after so far, beat by beat.
    topic_missing
        Whether somebody has deleted a topic: nothing gets on without it, and a new process would not even start.
    """

    def __init__(self, host: ShardHost, broadcast: Broadcast, gate: Gate, redis: Outage, session_s: float) -> None:
        self._host, self._broadcast, self._gate, self._redis = host, broadcast, gate, redis
        self._session_s = session_s
        self._ages: dict[str, float] = {}
        self._answered: object = None
        self._silent_s = 0.0
        self.kafka = Outage("kafka")
        self.longest: Standstill | None = None
        self.felt_s = 0.0
        self.topic_missing = False

    def feel(self, seconds: float) -> Standstill | None:
        """One beat, so many seconds after the one before; what has stood still longest."""
        self.felt_s += seconds
        self._feel_kafka(seconds)
        away = self.kafka.trouble or self._redis.trouble or self._host.snapshots_away.trouble
        excused = away or self._host.stopping or self.topic_missing
        standing = () if excused else self._standing()
        self._ages = {what: self._ages.get(what, -seconds) + seconds for what in standing}
        self.longest = max((Standstill(*each) for each in self._ages.items()), key=lambda each: each[1], default=None)
        return self.longest

    def lags(self) -> dict[TP, int]:
        """Records that wait in each partition of this worker, as far as the broker has told."""
        lags = ((tp, self._lag(shard)) for tp, shard in self._host.shards.items())
        return {tp: lag for tp, lag in lags if lag is not None}

    def in_group(self) -> bool:
        """Whether the group counts on this worker."""
        consumer = self._host.consumer
        return consumer.generation >= 0 and consumer.contact_age() < self._session_s

    def _feel_kafka(self, seconds: float) -> None:
        """Kafka is away when neither the consumer without a group, which asks all the time, nor the group's answers."""
        answered = self._broadcast.answered()
        self._silent_s = 0.0 if answered != self._answered else self._silent_s + seconds
        self._answered = answered
        silent_s = min(self._silent_s, self._host.consumer.contact_age())
        if silent_s > self._session_s / 2:
            self.kafka.begin(f"no answer for {silent_s:.0f} s")
        else:
            self.kafka.end()

    def _lag(self, shard: Shard) -> int | None:
        log = self._host.consumer.log_of(shard.tp)
        if log is None:
            return None
        if shard.next == LOG_START:  # nothing of it was taken yet; what was fetched waits in Faust's queue
            return max(log.end - log.position, 0) + min(log.fetches, 1)
        return max(log.end - shard.next, 0)

    def _standing(self) -> Iterator[str]:
        if not self._broadcast.caught_up.is_set():
            yield f"the broadcast topics are read to record {self._broadcast.read} and not to their ends"
        if self._silent_s > self._session_s / 2:
            yield "the broker answers, but the broadcast topics are not fetched any more"
        if not self.in_group():
            yield "the broker answers, but this worker is no member of its group"
        elif not self._host.consumer.flow_active:
            yield f"records do not flow after an assignment of which {len(self._host.shards)} shards were taken up"
        else:
            yield from filter(None, map(self._place, list(self._host.shards.values())))

    def _place(self, shard: Shard) -> str | None:
        """Where a shard stands; None if it has said itself why it must wait."""
        if shard.failures:  # although all servers answer: perhaps another process, or another worker, fares better
            return f"{shard.name} is reloaded again and again and does not get beyond offset {max(shard.failed_at, 0)}"
        if self._gate.closed and shard.topic == self._gate.topic:
            return None
        if self._lag(shard):
            return f"{shard.name} stands at offset {shard.next}"
        log = self._host.consumer.log_of(shard.tp)
        return f"{shard.name} is not fetched any more ({log and log.answered_ms})"
