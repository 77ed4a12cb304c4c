"""A user shard's snapshot: how its state is copied while it goes on, and brought back in another process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.blend import Blend
from models.conversion import resized_lists, resized_rings
from models.dedup import SeenWindow
from models.histories import Histories
from models.nesting import part, prefixed
from models.newcomers import Newcomers
from models.profiles import CUSTOMER, Profiles
from models.references import translate
from models.tombstones import Tombstones
from models.vocabulary import Vocabulary
from stream.copying import AGAIN, Copying, Rows, Source, Used, again, facts, renewed, spans, texts_of
from stream.errors import ConfigurationError
from stream.stages.claims import Claims
from stream.stages.space import ItemSpace
from stream.stages.user_shard import LINKED, UserRules, UserShard

ITEM_COLUMNS: Final = ("histories.item", "last")  # hold indices of items


def copy(shard: UserShard, space: ItemSpace) -> Copying:
    """Begin a copy of the whole state, with the ids of the items it refers to; no walk over users in Python."""
    shard.reserve()
    used = Used(space.ids)
    shard.changes.watch()
    ending = ExitStack()  # no index may go to another item before the ids are copied, which comes last
    ending.enter_context(space.reclaimer.paused())
    ending.callback(shard.changes.take)

    def see(name: str, piece: NDArray[Any]) -> None:
        if name in ("blend.items", "newcomers.item") or name.removeprefix(AGAIN) in ITEM_COLUMNS:
            used.add(piece)

    def still() -> dict[str, Source]:
        shard.reserve()
        return {
            **again(shard.columns(), shard.changes.take()),
            **prefixed("users", _rows(shard.users.arrays())),
            **prefixed("seen", _rows(shard.seen.arrays())),
            **prefixed("tombstones", _rows(shard.tombstones.arrays())),
            **prefixed("linked", _rows(shard.linked.arrays())),
            **prefixed("claims", _rows(shard.claims.arrays())),
            "blend.items": Known(shard.blend),
            **prefixed("blend", {name: Known(shard.blend, array) for name, array in shard.blend.by_item().items()}),
            **prefixed("blend", _rows(shard.blend.state())),
            **prefixed("newcomers", _rows(shard.newcomers.snapshot())),
            **prefixed("items", used.sources()),
            **prefixed("categories", _rows(space.categories.arrays())),
            "sent": Rows(shard.sent),
            "hits": Rows(shard.hits),
            "shelf": Rows(shard.shelf),
            "facts": facts(_told(shard)),
        }

    n = shard.users.size
    large = {name: Rows(array[:n]) for name, array in shard.columns().items()}
    return Copying(large, still, see, ending.close)


def _told(shard: UserShard) -> dict[str, Any]:
    return {
        "watermark": shard.watermark,
        "counts": dict(shard.counts),
        "hand": shard.hand,
        "shortest": shard.shortest,
        "placements": [placement.name for placement in shard.rules.placements],
        "named": sorted(shard.named),
        "heard": sorted((*source, place) for source, place in shard.heard.items()),
    }


def restore(rules: UserRules, space: ItemSpace, arrays: Mapping[str, NDArray[Any]]) -> UserShard:
    """A shard from the arrays of `copy` (they become its own), translated to this process's indices.

    About 0.5 s per million users; no walk over them in Python. Kept under other settings, they are converted.

    Raises
    ------
    ConfigurationError
        A setting has changed that no conversion can follow.
    """
    check_targets(space, arrays)
    unpacked = unpack(rules, arrays)
    unpacked.translate_items(arrays["items.codes"], space.encode(texts_of(arrays["items.texts"])))
    unpacked.translate_categories(space, arrays)
    return unpacked.shard


def check_targets(space: ItemSpace, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse a snapshot of another number of item partitions."""
    if len(arrays["sent"]) != space.partitions:
        raise ConfigurationError(
            f"RIVULET_COVISITS_PARTITIONS={space.partitions}, but the snapshot was made with {len(arrays['sent'])}:"
            " items belong to partitions by that count, which cannot be changed"
        )


@dataclass(slots=True)
class Unpacked:
    """A shard with the indices of the process that copied it, and what waits for its own until they are translated."""

    shard: UserShard
    blend: dict[str, NDArray[Any]]
    newcomers: dict[str, NDArray[Any]]

    def translate_items(self, theirs: NDArray[np.int32], ours: NDArray[np.int32]) -> None:
        """Put this process's indices of items in place of another's; may run in a thread before the shard is used."""
        columns = self.shard.columns()
        for name in ITEM_COLUMNS:
            translate(columns[name], theirs, ours)
        if self.blend:
            for name in ("items", "popular"):
                translate(self.blend[name], theirs, ours)
            rules = self.shard.rules
            self.shard.blend = Blend.restore(self.blend, rules.blend_rate, frozen=rules.blend_frozen)
        if self.newcomers:
            translate(self.newcomers["item"], theirs, ours)
            self.shard.newcomers = Newcomers.restore(self.newcomers)

    def translate_categories(self, space: ItemSpace, arrays: Mapping[str, NDArray[Any]]) -> None:
        """The same for the categories of a snapshot."""
        names = Vocabulary.from_arrays(part(arrays, "categories"))
        known = np.arange(names.size, dtype=np.int32)
        translate(self.shard.columns()["profiles.category"], known, space.encode_categories(names.texts(known)))


def unpack(rules: UserRules, arrays: Mapping[str, NDArray[Any]]) -> Unpacked:
    """The shard as it was where it was copied. Touches nothing else: may run in a thread."""
    shard = UserShard(rules, len(arrays["sent"]))
    shard.users = Vocabulary.from_arrays(part(arrays, "users"))
    columns = {name: renewed(arrays, name, shard.users.size) for name in shard.columns() if name in arrays}
    columns["last"] = resized_lists(columns["last"], rules.k)
    shard.histories = Histories.restore(resized_rings(part(columns, "histories"), rules.history))
    shard.profiles = Profiles.restore(part(columns, "profiles"))
    for name in ("touched", "last", "pushed_ms", "segment", "profiled_ms", "offers"):
        setattr(shard, name, columns[name])
    shard.seen = SeenWindow.from_arrays(part(arrays, "seen"), rules.dedup)
    shard.tombstones = Tombstones.from_arrays(part(arrays, "tombstones"), rules.tombstones)
    shard.sent, shard.hits = arrays["sent"], arrays["hits"]
    shard.shelf = arrays.get("shelf", np.zeros(1, dtype=np.uint64))  # not known: everyone's offers are looked at
    told = msgspec.json.decode(arrays["facts"].tobytes())
    shard.watermark, shard.hand = told["watermark"], told["hand"]
    shard.counts.update(told["counts"])
    if "heard" in told:
        shard.heard = {(kind, source): place for kind, source, place in told["heard"]}
        shard.linked = SeenWindow.from_arrays(part(arrays, "linked"), LINKED)
        shard.claims = Claims.from_arrays(part(arrays, "claims") if rules.link else {})
    else:
        shard.profiles.arrays.flags[:] |= CUSTOMER  # who is one was not noted then: better none moves than theirs
    shard.shortest = min(rules.history, told.get("shortest", columns["histories.item"].shape[1]))
    shard.named.update(told.get("named", ()))
    shard.placed = _replaced(columns.get("placed"), told.get("placements", ()), rules, shard.users.size)
    newcomers = part(arrays, "newcomers") if rules.explores else {}
    return Unpacked(shard, part(arrays, "blend"), newcomers)


class Known(NamedTuple):
    """The items a blend knows, or what a column of it says of each of them."""

    blend: Blend
    column: NDArray[Any] | None = None

    def slices(self) -> Iterator[NDArray[Any]]:
        """See `Source`: a search in one go would hold the event loop for some milliseconds per million items."""
        for span in spans(len(self.blend.arrays.tallies.slow), 8):
            items = self.blend.items(span)
            yield items if self.column is None else self.column[items]


def _replaced(
    before: NDArray[np.uint64] | None, names: Sequence[str], rules: UserRules, users: int
) -> NDArray[np.uint64]:
    """Signatures of the present placements' lists from those of other placements."""
    placed = np.zeros((users, len(rules.placements)), dtype=np.uint64)
    for column, placement in enumerate(rules.placements):
        if before is not None and placement.name in names:
            placed[:, column] = before[:, names.index(placement.name)]
    return placed


def _rows(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Source]:
    return {name: Rows(array) for name, array in arrays.items()}
