"""What the user stage has learned from some records: what is to be sent, and who is to be ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.resp import WriteBatch
from stream.stages.sends import Send

NOBODY: Final = np.zeros(0, dtype=np.int32)


class Answer(NamedTuple):
    """What is to be written for one user whatever the ranking says: keys to delete, a report."""

    user: str
    writes: WriteBatch


@dataclass(slots=True)
class Learned:
    """What a batch asks for: records to send, and the users to rank with the time (ms) of their newest event.

    `event_ms` holds the time of each learned event, for freshness; `everyone` says that all users are to be ranked,
    `force` that what seems unchanged is to be written, too. `answers` are to be written first, one after another.
    `dropped` are users who were known before these records.
    """

    sends: list[Send]
    users: NDArray[np.int32]
    ts_ms: NDArray[np.int64]
    event_ms: NDArray[np.int64]
    everyone: bool = False
    force: bool = False
    answers: list[Answer] = field(default_factory=list)
    dropped: NDArray[np.int32] = field(default_factory=NOBODY.copy)

    @classmethod
    def of_request(cls, sends: list[Send], answers: list[Answer], dropped: NDArray[np.int32] = NOBODY) -> Learned:
        """What a request about one user asks for: nobody is ranked."""
        none = np.zeros(0, dtype=np.int64)
        return cls(sends, NOBODY, none, none, answers=answers, dropped=dropped)

    @classmethod
    def of_users(cls, users: NDArray[np.int32], ts_ms: NDArray[np.int64]) -> Learned:
        """Users to be ranked though nothing was learned."""
        return cls([], users, ts_ms, np.zeros(0, dtype=np.int64))

    @classmethod
    def of_all(cls, parts: Sequence[Learned]) -> Learned:
        """Parts, one at least, one after the other: in pairs, as what was gathered is copied each time."""
        if len(parts) == 1:
            return parts[0]
        half = len(parts) // 2
        return cls.of_all(parts[:half]).then(cls.of_all(parts[half:]))

    def then(self, after: Learned) -> Learned:
        """Both, one after the other."""
        kept = ~np.isin(self.users, after.dropped)  # their indices may stand for others by now
        users, ts_ms = newest(np.append(self.users[kept], after.users), np.append(self.ts_ms[kept], after.ts_ms))
        return Learned(
            self.sends + after.sends,
            users,
            ts_ms,
            np.append(self.event_ms, after.event_ms),
            self.everyone or after.everyone,
            self.force or after.force,
            self.answers + after.answers,
            np.append(self.dropped, after.dropped),
        )


def newest(users: NDArray[np.int32], ts_ms: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Distinct users with the highest time of each."""
    order = users.argsort(kind="stable")
    ordered = users[order]
    first = np.ones(len(users), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    starts = first.nonzero()[0]
    return ordered[starts], np.maximum.reduceat(ts_ms[order], starts) if len(starts) else ts_ms
