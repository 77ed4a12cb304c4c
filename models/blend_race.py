"""What races in the blend: the short memories of popularity, by how likely each makes what the visitor did next."""

from __future__ import annotations

from models.blend_features import TRENDING, Desk, trend
from models.kernel import lean_kernel
from models.listwise import NEGLIGIBLE
from models.race import LEADER, compare, gain_of
from models.tallies import MEMORIES, NEVER, Tallies


@lean_kernel
def race_memories(tallies: Tallies, desk: Desk, found: int, target: int) -> None:
    """Judge all memories by a lesson, whose chances are on the desk; its scores are overwritten. 2-3 us."""
    race, candidates = tallies.race, desk.candidates
    chance, change = desk.chance[:found], desk.score[:found]
    for memory in range(len(MEMORIES)):
        if memory == race.lead[LEADER]:
            continue
        for c in range(found):
            change[c] = 0.0
            item = candidates.item[c]
            if (chance[c] > NEGLIGIBLE or c == target) and item < len(tallies.slow) and tallies.slow[item] > NEVER:
                change[c] = desk.weight[TRENDING] * (trend(tallies, item, memory) - candidates.x[TRENDING, c])
        if compare(race, memory, gain_of(chance, change, target)):
            return
