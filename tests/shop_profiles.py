"""Profiles of the shop's visitors, accumulated in plain dicts as the user stage does in arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from models.features import Profile, channel_of

WEIGHTS = {"view_item": 1, "like": 2, "add_to_wishlist": 2, "add_to_cart": 3, "purchase": 4, "email_click": 1}
HALF_LIFE_S = 14 * 86_400


@dataclass
class Visitor:
    events: int = 0
    frequency: float = 0.0
    spend: float = 0.0
    sin: float = 0.0
    cos: float = 0.0
    recency: float = 0.0
    channel: int = 0
    last_s: float = 0.0
    session: str = ""
    categories: dict[str, float] = field(default_factory=dict)

    def learn(self, event: dict[str, Any]) -> None:
        now = event["event_timestamp"] / 1e6
        if self.events:
            self._decay(0.5 ** ((now - self.last_s) / HALF_LIFE_S))
            if event["session_id"] != self.session:
                self.recency = (now - self.last_s) / 3600
        self.events, self.session, self.last_s = self.events + 1, event["session_id"], now
        angle = 2 * math.pi * (now % 86_400) / 86_400
        self.frequency += 1
        self.sin += math.sin(angle)
        self.cos += math.cos(angle)
        self.spend += math.log1p(event.get("value", 0.0))
        self.channel = channel_of(event["traffic_source"]["medium"])
        weight = WEIGHTS.get(event["event_name"], 0)
        for item in event.get("items", ()) if weight else ():
            self._like(item["item_category"], weight)

    def _decay(self, factor: float) -> None:
        self.frequency *= factor
        self.spend *= factor
        self.sin *= factor
        self.cos *= factor
        self.categories = {name: weight * factor for name, weight in self.categories.items()}

    def _like(self, category: str, weight: float) -> None:
        if category not in self.categories and len(self.categories) == 6:
            del self.categories[min(self.categories, key=lambda name: (self.categories[name], name))]
        self.categories[category] = self.categories.get(category, 0.0) + weight

    def profile(self) -> Profile:
        return Profile(
            self.recency,
            self.frequency,
            self.spend,
            self.sin / self.frequency,
            self.cos / self.frequency,
            self.channel,
            self.categories,
        )


def visitor_of(event: dict[str, Any]) -> str:
    name: str = event.get("user_id") or event["user_pseudo_id"]
    return name


def accumulate(events: Iterator[dict[str, Any]], seen: Callable[[str, Visitor], None]) -> dict[str, Visitor]:
    visitors: dict[str, Visitor] = {}
    for event in events:
        user = visitor_of(event)
        visitor = visitors.setdefault(user, Visitor())
        visitor.learn(event)
        seen(user, visitor)
    return visitors
