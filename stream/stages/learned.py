"""What the user stage has learned from some records: what is to be sent, and who is to be ranked."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stream.stages.sends import Send


@dataclass(slots=True)
class Learned:
    """What a batch asks for: records to send, and the users to rank with the time (ms) of their newest event.

    `event_ms` holds the time of each learned event, for freshness; `as_of_ms` is set if everyone is to be ranked: the
    partition's highest event time, at which offers are judged. `force` asks to write what seems unchanged, too.
    """

    sends: list[Send]
    users: NDArray[np.int32]
    ts_ms: NDArray[np.int64]
    event_ms: NDArray[np.int64]
    as_of_ms: int | None = None
    force: bool = False

    @property
    def everyone(self) -> bool:
        """Whether all users are to be ranked and written."""
        return self.as_of_ms is not None

    def without(self, users: NDArray[np.int32]) -> Learned:
        """Leave out users that were dropped since."""
        kept = ~np.isin(self.users, users)
        return replace(self, users=self.users[kept], ts_ms=self.ts_ms[kept])

    def then(self, after: Learned) -> Learned:
        """Both, one after the other."""
        users, ts_ms = newest(np.append(self.users, after.users), np.append(self.ts_ms, after.ts_ms))
        as_of_ms = self.as_of_ms if after.as_of_ms is None else after.as_of_ms
        event_ms, force = np.append(self.event_ms, after.event_ms), self.force or after.force
        return Learned(self.sends + after.sends, users, ts_ms, event_ms, as_of_ms, force)


def newest(users: NDArray[np.int32], ts_ms: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Distinct users with the highest time of each."""
    distinct, inverse = np.unique(users, return_inverse=True)
    newest = np.zeros(len(distinct), dtype=np.int64)
    np.maximum.at(newest, inverse, ts_ms)
    return distinct, newest
