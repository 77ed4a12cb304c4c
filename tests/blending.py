"""Teaching the blend, beside its slow reference, and looking at what it gathers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.blend_features import Desk, Sources, describe, votes
from models.blend_ranker import BlendRanker
from models.histories import Touches
from models.text_features import Facts
from tests.plain_features import PlainFeatures
from tests.streams import ITEM_IDS, Touch, stream_of

WORDS, PRICES = ("red", "tent", "mat"), (8.0, 16.0, None)
# a word and a price band each: what three items are asked for is less than what a query looks up
FACTS = {ITEM_IDS[n]: Facts(WORDS[n % 3], price=PRICES[n // 3]) for n in range(7)}


def teach(model: BlendRanker, touches: list[Touch], facts: Mapping[str, Facts] | None = None) -> PlainFeatures:
    """Describe items, then let visitors touch them; returns what the reference knows then."""
    plain = PlainFeatures(model.history)
    for name, known in (facts or {}).items():
        model.describe_one(name, {"title": known.title, "price": known.price})
        plain.describe(ITEM_IDS.index(name), known)
    stream = stream_of(touches)
    since_2000 = (stream.ts - 946_684_800).tolist()
    for key, item, ts in zip(stream.key.tolist(), stream.item.tolist(), since_2000, strict=True):
        model.learn_one(str(key), ITEM_IDS[item], 1, {"ts": ts})
        plain.learn(key, item, ts)
    return plain


def learn_all(
    model: BlendRanker, touches: Sequence[tuple[str, str]], seconds: Sequence[int] = (), batch: int = 100
) -> None:
    """Let users touch items, in the same second unless told, and in batches: much faster than one by one."""
    ts = np.array(seconds or [0] * len(touches), dtype=np.uint32)
    for start in range(0, len(touches), batch):
        _learn_batch(model, touches[start : start + batch], ts[start : start + batch])


def _learn_batch(model: BlendRanker, touches: Sequence[tuple[str, str]], ts: NDArray[np.uint32]) -> None:
    users, items = (list(column) for column in zip(*touches, strict=True))
    user, item = model._users.encode(users), model._items.encode(items)
    model._histories.reserve(len(model._users))
    model._rows.reserve(len(model._items))
    model._rows.learn(
        model._emit(Touches(user, item, np.zeros_like(ts, np.uint8), ts, np.zeros_like(ts, np.bool_))),
        np.zeros(len(model._items), dtype=np.int32),
    )


def described(model: BlendRanker, user: str) -> tuple[dict[str, list[float]], Desk]:
    """What the blend knows of a user's candidates, and the desk it was gathered on."""
    model.blend.consult(model._contents.catalogue)
    work = model._desk()
    arrays = model.blend.arrays
    state = (arrays.postings, arrays.tallies, arrays.races, arrays.catalogue)
    sources = Sources(model._histories.arrays, model._rows.arrays, *state)
    found = describe(sources, int(model._users.lookup([user])[0]), votes(), work)
    texts = model._items.texts(work.candidates.item[:found])
    return dict(zip(texts, work.candidates.x[:, :found].T.tolist(), strict=True)), work
