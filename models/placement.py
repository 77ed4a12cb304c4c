"""Rules of a placement: what a list on the home page, an item's page or in the cart may show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import msgspec

from models.tables import read_tables

Exclusion: TypeAlias = Literal["nothing", "bought", "seen"]
MOST_EXPLORED: Final = 0.5  # share of a list
LONGEST: Final = 100  # items of a list
MOST: Final = 16  # placements
WIDER: Final = 3  # times k: candidates of a placement whose rules choose among them


class PlacementError(ValueError):
    """A file of placements that cannot be used; one line that names file, placement and field."""


@dataclass(frozen=True, slots=True)
class Placement:
    """What a list of one placement may show.

    Attributes
    ----------
    name
        As in the Redis key and in ``item_list_id``.
    k
        Items per list, 1 to 100.
    exclude
        What is not shown again: nothing (repeats are welcome, as where people buy the same again), what the visitor
        bought, or all that the visitor has seen or bought. The item the visitor is on is never shown.
    per_category
        Most items of one category, > 0; None = any number. A list may be shorter for it.
    diversity
        0 to 1: how much unlikeness to the items before it counts against an item's score. 0 leaves the order alone.
    exploration
        Share of the places given to new items, 0 to 0.5.
    without
        Categories of which nothing is shown.

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
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        problems = (
            (not self.name, "name", "must not be empty"),
            (not 1 <= self.k <= LONGEST, "k", f"must be 1 to {LONGEST}"),
            (self.exclude not in get_args(Exclusion), "exclude", f"must be one of {', '.join(get_args(Exclusion))}"),
            (self.per_category is not None and self.per_category < 1, "per_category", "must be > 0"),
            (not 0 <= self.diversity <= 1, "diversity", "must be 0 to 1"),
            (not 0 <= self.exploration <= MOST_EXPLORED, "exploration", f"must be 0 to {MOST_EXPLORED}"),
        )
        for wrong, field, rule in problems:
            if wrong:
                raise ValueError(f"placement {self.name!r}: {field} {rule}, not {getattr(self, field)!r}")

    def candidates(self, history: int) -> int:
        """How many ranked items the list is made from, for visitors of whom so many touches are remembered."""
        chooses = self.per_category is not None or self.diversity > 0 or self.without
        return self.k * (WIDER if chooses else 1) + (0 if self.exclude == "nothing" else history)


PLACEMENTS: Final = {
    placement.name: placement
    for placement in (
        Placement("home", per_category=6, diversity=0.2, exploration=0.05),
        Placement("item", k=12, exclude="bought"),
        Placement("cart", k=8, exclude="seen", per_category=3, diversity=0.1),
    )
}
"""Sensible rules of three usual placements."""


def load_placements(text: str, source: str) -> tuple[Placement, ...]:
    r"""Read placements from TOML: an array of tables ``[[placements]]``.

    Parameters
    ----------
    text
        The file's content.
    source
        Its name, for messages.

    Returns
    -------
    tuple of Placement
        In file order.

    Raises
    ------
    PlacementError
        Not TOML, unknown keys, missing or wrong fields, a name used twice, too many.

    Examples
    --------
    >>> load_placements("[[placements]]\nname = 'home'\nk = 4", "shop.toml")[0].k
    4
    >>> load_placements("[[placements]]\nname = 'home'\nk = 0", "shop.toml")
    Traceback (most recent call last):
    models.placement.PlacementError: shop.toml: placement 'home': k must be 1 to 100, not 0
    """
    try:
        entries = read_tables(text, source, "placements")
    except ValueError as error:
        raise PlacementError(str(error)) from None
    if len(entries) > MOST:
        raise PlacementError(f"{source}: {len(entries)} placements, at most {MOST} are possible")
    placements: dict[str, Placement] = {}
    for number, entry in enumerate(entries, 1):
        placement = _checked(entry, source, number)
        if placement.name in placements:
            raise PlacementError(f"{source}: placement {placement.name!r}: name: used twice")
        placements[placement.name] = placement
    return tuple(placements.values())


def _checked(entry: object, source: str, number: int) -> Placement:
    given = entry.get("name") if isinstance(entry, dict) else None
    where = f"placement {given!r}" if isinstance(given, str) and given else f"placement number {number}"
    if isinstance(entry, dict) and (unknown := sorted(entry.keys() - Placement.__dataclass_fields__.keys())):
        known = ", ".join(Placement.__dataclass_fields__)
        raise PlacementError(f"{source}: {where}: {unknown[0]}: unknown field; known are {known}")
    try:
        return msgspec.convert(entry, Placement)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$.")
        if not path and not problem.startswith("placement "):
            problem = f"{where}: {problem}"
        if path:
            problem = f"{where}: {path.rstrip('`')}: {problem}"
        raise PlacementError(f"{source}: {problem}") from None
