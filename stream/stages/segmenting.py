"""A user's segment, from the profile in hand and the centres that the global stage broadcasts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.features import CHANNELS, Vectoriser
from models.profiles import ProfileArrays
from models.segments import assign
from stream.stages.global_ import SegmentModel
from stream.stages.space import ItemSpace

_DIRECT = CHANNELS.index("direct")


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
        columns = np.stack(
            [
                profiles.recency[users],
                profiles.frequency[users],
                profiles.spend[users],
                profiles.hour_sin[users],
                profiles.hour_cos[users],
            ],
            axis=1,
        )
        said = profiles.channel[users].astype(np.int32)
        channel = np.where(said > 0, said - 1, _DIRECT).astype(np.int32)
        weights = profiles.affinity[users]
        ids = np.where(weights > 0, profiles.category[users], -1).astype(np.int32)
        matrix = self._vectoriser.matrix(columns, channel, ids, weights, self._slots)
        return assign(matrix, self._centres, self._means, self._stds)
