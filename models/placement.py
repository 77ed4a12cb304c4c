"""Rules of a placement: what a list on the home page, an item's page or in the cart may show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

Exclusion: TypeAlias = Literal["nothing", "bought", "seen"]
MOST_EXPLORED: Final = 0.5  # share of a list


@dataclass(frozen=True, slots=True)
class Placement:
    """What a list of one placement may show.

    Attributes
    ----------
    name
        As in the Redis key and in ``item_list_id``.
    k
        Items per list, > 0.
    exclude
        What is not shown again: nothing (repeats are welcome, as where people buy the same again), what the visitor
        bought, or all that the visitor has seen or bought. The item the visitor is on is never shown.
    per_category
        Most items of one category, > 0; None = any number. A list may be shorter for it.
    diversity
        0 to 1: how much unlikeness to the items before it counts against an item's score. 0 leaves the order alone.
    exploration
        Share of the places given to new items, 0 to 0.5.

    Raises
    ------
    ValueError
        If one is out of range; names it.

    Examples
    --------
    >>> Placement("cart", k=4, exclude="seen").diversity
    0.0
    """

    name: str
    k: int = 20
    exclude: Exclusion = "nothing"
    per_category: int | None = None
    diversity: float = 0.0
    exploration: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        problems = (
            (not self.name, "name", "must not be empty"),
            (self.k < 1, "k", "must be > 0"),
            (self.exclude not in get_args(Exclusion), "exclude", f"must be one of {', '.join(get_args(Exclusion))}"),
            (self.per_category is not None and self.per_category < 1, "per_category", "must be > 0"),
            (not 0 <= self.diversity <= 1, "diversity", "must be 0 to 1"),
            (not 0 <= self.exploration <= MOST_EXPLORED, "exploration", f"must be 0 to {MOST_EXPLORED}"),
        )
        for wrong, field, rule in problems:
            if wrong:
                raise ValueError(f"placement {self.name!r}: {field} {rule}, not {getattr(self, field)!r}")


PLACEMENTS: Final = {
    placement.name: placement
    for placement in (
        Placement("home", per_category=6, diversity=0.2, exploration=0.05),
        Placement("item", k=12, exclude="bought"),
        Placement("cart", k=8, exclude="seen", per_category=3, diversity=0.1),
    )
}
"""Sensible rules of three usual placements."""
