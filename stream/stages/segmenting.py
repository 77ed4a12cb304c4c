"""A user's segment, from the profile in hand and the centres that the global stage broadcasts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.features import CHANNELS, Vectoriser
from models.kernel import lean_kernel
from models.profiles import ProfileArrays
from models.segments import assign
from stream.stages.global_ import SegmentModel
from stream.stages.space import ItemSpace

COLUMNS = 5  # recency, frequency, spend, hour_sin, hour_cos
_DIRECT = CHANNELS.index("direct")


@lean_kernel
def _gather(
    profiles: ProfileArrays,
    users: NDArray[np.int32],
    columns: NDArray[np.float32],
    channel: NDArray[np.int32],
    ids: NDArray[np.int32],
    weights: NDArray[np.float32],
) -> None:
    """What a vectoriser takes of some users; by numpy's calls it cost a batch of one user 35 us."""
    for i, user in enumerate(users):
        columns[i, 0] = profiles.recency[user]
        columns[i, 1] = profiles.frequency[user]
        columns[i, 2] = profiles.spend[user]
        columns[i, 3] = profiles.hour_sin[user]
        columns[i, 4] = profiles.hour_cos[user]
        said = profiles.channel[user]
        channel[i] = said - 1 if said > 0 else _DIRECT
        for j in range(ids.shape[1]):
            weights[i, j] = profiles.affinity[user, j]
            ids[i, j] = profiles.category[user, j] if weights[i, j] > 0 else -1


class Segmenting:
    """Assigns segments with the latest model; -1 while there is none.

    Parameters
    ----------
    space
        The process's items; its categories' indices are the ones in the profiles.
    """

    def __init__(self, space: ItemSpace) -> None:
        self._space = space
        self._vectoriser = Vectoriser()
        self._slots = np.zeros(0, dtype=np.int32)
        self._centres = np.zeros((0, 0))
        self._means = np.zeros(0)
        self._stds = np.zeros(0)
        self.labels: tuple[str, ...] = ()

    def replace(self, model: SegmentModel) -> bool:
        """Take over a model; True if the labels changed."""
        self._vectoriser = Vectoriser.from_names(model.names)
        self._slots = np.zeros(0, dtype=np.int32)
        self._centres, self._means, self._stds = np.array(model.centres), np.array(model.means), np.array(model.stds)
        changed = self.labels != tuple(model.labels)
        self.labels = tuple(model.labels)
        return changed

    def assign(self, profiles: ProfileArrays, users: NDArray[np.int32]) -> NDArray[np.int16]:
        """Segment of each user, -1 before there are segments; about 0.5 us each."""
        if len(self._centres) == 0:
            return np.full(len(users), -1, dtype=np.int16)
        if len(self._slots) != len(self._space.categories):
            self._slots = self._vectoriser.slots(self._space.categories.texts(range(len(self._space.categories))))
        columns = np.empty((len(users), COLUMNS), dtype=np.float32)
        channel = np.empty(len(users), dtype=np.int32)
        ids = np.empty((len(users), profiles.category.shape[1]), dtype=np.int32)
        weights = np.empty(ids.shape, dtype=np.float32)
        _gather(profiles, users, columns, channel, ids, weights)
        matrix = self._vectoriser.matrix(columns, channel, ids, weights, self._slots)
        return assign(matrix, self._centres, self._means, self._stds)
