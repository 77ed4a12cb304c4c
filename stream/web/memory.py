"""Where a worker's memory is: bytes of NumPy arrays per structure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from stream.app import Worker


def memory(worker: Worker) -> dict[str, int]:
    """Bytes of arrays by structure: of all shards of this worker, and of what they share.

    An array that belongs to nothing bigger counts under the name of what holds it (``user_shard``, ``item_space``).
    Arrays that grow reserve half again of what they need; untouched pages of these cost no memory.
    """
    found: Counter[str] = Counter()
    for shard in worker.users.shards.values():
        found.update(_parts("user_shard", shard))
    found.update(_parts("item_space", worker.space))
    return dict(found)


def _parts(name: str, holder: object) -> Counter[str]:
    found: Counter[str] = Counter()
    for attribute, value in vars(holder).items():
        found[name if isinstance(value, np.ndarray) else attribute] += array_bytes(value)
    return +found


def array_bytes(value: Any) -> int:
    """Bytes of the arrays in a value: an array, a tuple of values, or an object's attributes.

    Examples
    --------
    >>> array_bytes((np.zeros(3), np.zeros(2, dtype=np.int8)))
    26
    """
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, tuple):
        return sum(map(array_bytes, value))
    return sum(map(array_bytes, getattr(value, "__dict__", {}).values()))
