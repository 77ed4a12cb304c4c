"""What is learned of the synthetic shop: segments against personas, planted rules, offers. In process, no servers.

``python -m tests.benchmarks.shop [--events 100000] [--seed 1] [--json]``
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from importlib.resources import files

import msgspec
import numpy as np
from river import metrics

from models.offers import Offer, is_eligible, load_offers
from models.offers import Shopper as Eligibility
from models.ranking import Lists, rank_similar
from stream.demo.shop import Shop
from stream.keys import parse_offers
from stream.local import LocalPipeline
from stream.memory_store import MemoryStore
from tests.benchmarks.harness import arguments, report

FEWEST_EVENTS = 5  # of a user whose segment is compared
TOP = 5


def learned(shop: Shop, events: int, offers: list[Offer]) -> tuple[LocalPipeline, MemoryStore, int]:
    """The shop's events through the whole pipeline, drained and republished; and `bad_offers` before that."""

    async def run() -> tuple[LocalPipeline, MemoryStore, int]:
        store = MemoryStore()
        pipeline = LocalPipeline(store, offers=offers)
        await pipeline.feed(
            (
                (event.get("user_id") or event["user_pseudo_id"]).encode(),
                event["event_timestamp"] // 1000,
                msgspec.json.encode(event),
            )
            for event in shop.events(events)
        )
        bad, _ = await bad_offers(pipeline, store, offers)
        await pipeline.republish()
        return pipeline, store, bad

    return asyncio.run(run())


def agreement(shop: Shop, pipeline: LocalPipeline) -> float:
    """Adjusted Rand index of segments against personas, over users with enough events."""
    score = metrics.AdjustedRand()  # type: ignore[no-untyped-call]  # river
    for shard in pipeline.users.shards.values():
        for user, name in enumerate(shard.users.texts(range(len(shard.users)))):
            if shard.profiles.arrays.events[user] >= FEWEST_EVENTS and shard.segment[user] >= 0:
                score.update(shop.personas[name], int(shard.segment[user]))
    return float(score.get())  # type: ignore[no-untyped-call]


def rules_found(shop: Shop, pipeline: LocalPipeline) -> int:
    """Planted rules whose consequent is among the nearest neighbours of its antecedent."""
    space = pipeline.space
    found = 0
    for antecedent, consequent in shop.rules:
        lists = Lists.empty(1, TOP)
        seeds = space.ids.lookup([antecedent])
        ids = space.ids
        rank_similar(seeds, space.rows.arrays, 0.5, space.hidden, ids.blob, ids.spans, space.scratch, lists)
        found += consequent in ids.texts(lists.item[0][lists.item[0] >= 0])
    return found


def halves(shop: Shop, events: int) -> list[Offer]:
    """Two offers that outbid all others: one ends in the middle of the stream, one begins there."""
    middle = datetime.fromtimestamp(shop.start_ts_us / 1e6 + events / shop.rate / 2, UTC)
    categories = tuple(dict.fromkeys(product.category for product in shop.products))
    first = Offer(id="first-half", categories=categories, value=60.0, valid_until=middle)
    return [first, Offer(id="second-half", categories=categories, value=50.0, valid_from=middle)]


async def bad_offers(pipeline: LocalPipeline, store: MemoryStore, offers: list[Offer]) -> tuple[int, int]:
    """(offers in Redis that are over or not meant for their user, offers in Redis), judged by the plain rules."""
    by_id = {offer.id: offer for offer in offers}
    bad = total = 0
    categories = pipeline.space.categories
    labels = pipeline.users.segmenting.labels
    for shard in pipeline.users.shards.values():
        profiles, now_s = shard.profiles.arrays, shard.watermark // 1_000_000
        for user, name in enumerate(shard.users.texts(range(len(shard.users)))):
            value = (await store.get([pipeline.users.keys.offers(name)]))[0]
            if value is None:
                continue
            weights, segment = profiles.affinity[user], int(shard.segment[user])
            shares = {
                categories.text(c): float(w / weights.sum())
                for c, w in zip(profiles.category[user], weights, strict=True)
                if w > 0
            }
            label = labels[segment] if segment >= 0 else ""
            shopper = Eligibility(segment, label, shares, float(profiles.cart[user]))
            for offer in parse_offers(value).offers:
                total += 1
                bad += not is_eligible(by_id[offer.id], shopper, now_s)
    return bad, total


def main() -> None:
    """Run and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    offers = load_offers(files("stream.demo").joinpath("offers.toml").read_text(encoding="utf-8"), "offers.toml")
    shop = Shop(seed=options.seed)
    offers += halves(shop, options.events)
    pipeline, store, bad_before = learned(shop, options.events, offers)
    bad, total = asyncio.run(bad_offers(pipeline, store, offers))
    hits = np.sum([shard.hits for shard in pipeline.users.shards.values()], axis=0)
    report(
        {
            "ari": agreement(shop, pipeline),
            "rules_found": rules_found(shop, pipeline),
            "rules_planted": len(shop.rules),
            "bad_offers": bad,
            "bad_offers_before_republish": bad_before,
            "offers_in_redis": total,
            "hit_rate": float(hits[1] / hits[0]),
        },
        json=options.json,
    )


if __name__ == "__main__":
    main()
