"""Arrays of several parts in one flat mapping, as a snapshot holds them: name of the part, dot, name of the array."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from numpy.typing import NDArray

T = TypeVar("T")


def prefixed(name: str, arrays: Mapping[str, T]) -> dict[str, T]:
    """A part's arrays under the names they have in the whole."""
    return {f"{name}.{key}": array for key, array in arrays.items()}


def part(arrays: Mapping[str, NDArray[Any]], name: str) -> dict[str, NDArray[Any]]:
    """The arrays of one part under their own names; parts may have parts."""
    return {key.removeprefix(f"{name}."): array for key, array in arrays.items() if key.startswith(f"{name}.")}
