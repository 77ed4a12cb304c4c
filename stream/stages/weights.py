"""Weights of the partitions' blends, as each sent them last, and their mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.weight_averaging import Opinion, mean_of
from stream.copying import Rows, Source
from stream.stages.sends import Send
from stream.wire import BlendModel, Weighed

BLEND_KEY: Final = b"blend"


class Weights:
    """Part of the global stage: one opinion per partition of topic ``events``, 2 kB each.

    Attributes
    ----------
    version
        Means published so far.
    changed
        Whether there is a mean that was not published.
    """

    def __init__(self) -> None:
        self.version = 0
        self.changed = False
        self._opinions: dict[int, tuple[int, Opinion]] = {}  # by partition, with the offset it was sent at

    def learn(self, message: Weighed) -> None:
        """Replace a partition's opinion; one that a restarted worker sends again changes nothing."""
        if message.offset <= self._opinions.get(message.source, (-1,))[0] or not message.lessons:
            return
        opinion = Opinion(np.array(message.weight), np.array(message.square), message.lessons)
        shape = opinion.weight.shape  # workers of another version have other features
        self._opinions = {s: held for s, held in self._opinions.items() if held[1].weight.shape == shape}
        self._opinions[message.source] = message.offset, opinion
        self.changed = True

    def publish(self) -> list[Send]:
        """Broadcast the mean, if it changed."""
        if not self.changed:
            return []
        self.changed = False
        self.version += 1
        mean = mean_of([opinion for _, (_, opinion) in sorted(self._opinions.items())])
        model = BlendModel(
            version=self.version,
            lessons=mean.lessons,
            weight=mean.weight.tolist(),
            square=mean.square.tolist(),
            heard={source: offset for source, (offset, _) in self._opinions.items()},
        )
        return [Send("models", msgspec.json.encode(model), partition=0, key=BLEND_KEY)]

    def state(self) -> dict[str, Source]:
        """Everything, as `restore` takes it."""
        held = sorted(self._opinions.items())
        numbers = [[source, offset, opinion.lessons] for source, (offset, opinion) in held]
        return {
            "numbers": Rows(np.array([[-1, self.version, int(self.changed)], *numbers], dtype=np.int64)),
            "weight": Rows(np.array([opinion.weight for _, (_, opinion) in held])),
            "square": Rows(np.array([opinion.square for _, (_, opinion) in held])),
        }

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]]) -> Weights:
        """From the arrays of `state`."""
        weights = cls()
        (_, weights.version, changed), *numbers = arrays["numbers"].tolist()
        weights.changed = bool(changed)
        held = zip(numbers, arrays["weight"], arrays["square"], strict=True)
        weights._opinions = {
            source: (offset, Opinion(weight, square, lessons)) for (source, offset, lessons), weight, square in held
        }
        return weights
