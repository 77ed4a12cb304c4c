"""From settings to what the stages take: the same for workers and for the pipeline without Kafka."""

from __future__ import annotations

from stream.placements_file import read_placements
from stream.settings import Settings
from stream.stages.space import ItemSpace
from stream.stages.user_shard import UserRules


def rules_of(settings: Settings) -> UserRules:
    """What the settings say about learning and lists."""
    return UserRules(
        history=settings.history,
        k=settings.k,
        lateness_s=int(settings.lateness_hours * 3600),
        dedup=settings.dedup,
        sample_rate=settings.sample_rate,
        consent=settings.consent_default == "granted",
        users=settings.users,
        tombstones=settings.tombstones,
        ranking=settings.ranking,
        blend_frozen=settings.blend_frozen,
        blend_rate=settings.blend_rate,
        near=settings.near,
        step_share=settings.step_share,
        placements=read_placements(settings.placements),
        served=settings.served,
        link=settings.link,
    )


def space_of(settings: Settings) -> ItemSpace:
    """An empty space for as many items and neighbours as the settings say."""
    return ItemSpace(
        settings.covisits_partitions,
        neighbours=settings.neighbours,
        transitions=settings.transitions,
        half_life_s=settings.half_life_days * 86_400,
    )
