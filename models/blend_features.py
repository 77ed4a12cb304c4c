"""What the blend knows about each candidate: votes of several models, and a few facts about the item.

Candidates come from co-visitation and transitions of the recent items, from the neighbours of the best neighbours (a
*walk* of two steps, which finds what was never seen beside the item in hand), from similar sessions, from what the
visitor has seen, from what is popular, and from what the catalogue says is alike. A model's votes become
``v / (v + EDGE * sum of its votes)``: from 0 to almost 1, steep where votes are weak, so that a sum of them ranks
nearly as a product of chances would.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.blend_constants import MEMORY, RECENCY, leading
from models.blend_content import DIMENSIONS, LATEST, Catalogue, compare_prices, vote_alike
from models.blend_content import FEATURES as ITEM_FEATURES
from models.blend_content import NEAR as NEAREST
from models.candidates import ROOM, Candidates, add_cells, column
from models.content_search import Workspace, workspace
from models.covisitation import power_law
from models.decay import remains, seconds
from models.histories import SESSION_START, HistoryArrays
from models.kernel import lean_kernel
from models.neighbour_rows import NO_ROW, RowArrays
from models.postings import Postings
from models.race import LEADER, Races
from models.ranking import Query, Scratch, find_voters, query
from models.session_votes import Matches, Neighbourhood, distinct_recent, vote_sessions
from models.tallies import FADED, MEMORIES, NEVER, SLOW, Tallies, strength

# features by row of the candidates' table: first the votes ...
NEWEST, PREVIOUS, EARLIER, STEP, SESSIONS, WALK, SEEN, BACK, NEAR, TIMES, POPULAR, TRENDING = range(12)
CONTENT, PRICE, NEW = range(12, 15)
NAMES: Final = (
    *("newest", "previous", "earlier", "step", "sessions", "walk"),
    *("seen", "back", "near", "times", "popular", "trending", "content", "price", "new"),
)
FEATURES: Final = len(NAMES)
VOTES: Final = 6  # ... the first so many are votes
EDGE: Final = 0.05  # share of a model's votes that counts half
VOTERS: Final = 10  # recent items that vote
NEAR_POWER: Final = 1.5  # how fast their votes fall with their place
OLDER: Final = (PREVIOUS, EARLIER)  # votes of touches before the item in hand, which fade with their age
STEPS: Final = 5  # best neighbours whose neighbours vote
REACH: Final = Neighbourhood(sample=50, neighbours=25, length=3, half_life_s=np.inf)
LENGTHS: Final = 5  # groups by items of this visit: 1, 2, 3-4, 5-9, more
EVIDENCES: Final = 5  # groups by decayed visits of the item in hand: under 5, 20, 80, 320, more
GROUPS: Final = LENGTHS + EVIDENCES
CURRENT: Final = 0  # column of the item the visitor is on, which is never shown


class Sources(NamedTuple):
    """What votes: state of the item stage (`rows`) and of the user's partition (all else)."""

    histories: HistoryArrays
    rows: RowArrays
    postings: Postings
    tallies: Tallies
    races: Races
    catalogue: Catalogue


class Desk(NamedTuple):
    """Working memory of one thread for one list.

    `scratch`, `matches`, `candidates`: those of the voters, the sessions and the candidates. `recent`: the visitor's
    distinct items, newest first; `voters`: how many vote, and how many make the query in content space; `content`: room
    for that; `best`: cells from which the walk goes on; `group`: the list's rows of weights; `weight`: their sum;
    `gradient`: room for a lesson; `since`: seconds from the touch before the item in hand to that, and from the one
    before both. By candidate: `score`, `chance`; `age`, the seconds since the visitor saw it, if he did. By place in
    the list: `clue`, kept from the candidates, and `asked`, whether content is to name it.
    """

    scratch: Scratch
    matches: Matches
    candidates: Candidates
    recent: NDArray[np.int32]
    voters: NDArray[np.int64]
    group: NDArray[np.int64]
    weight: NDArray[np.float32]
    score: NDArray[np.float32]
    chance: NDArray[np.float32]
    clue: NDArray[np.int32]
    content: Workspace
    best: NDArray[np.int64]
    gradient: NDArray[np.float64]
    asked: NDArray[np.bool_]
    since: NDArray[np.float64]
    age: NDArray[np.float64]


def desk(work: Scratch, history: int, dimensions: int = DIMENSIONS) -> Desk:
    """Working memory over a scratch, whose room by item is shared: 290 kB more, and 8 bytes per content dimension."""
    candidates = Candidates.empty(0, FEATURES)._replace(place=work.place, item=work.touched)
    matches = Matches.empty(REACH.sample, REACH.length)
    return Desk(
        work,
        matches,
        candidates,
        np.zeros(history, dtype=np.int32),
        np.zeros(2, dtype=np.int64),
        np.zeros(2, dtype=np.int64),
        np.zeros(FEATURES, dtype=np.float32),
        np.zeros(ROOM, dtype=np.float32),
        np.zeros(ROOM, dtype=np.float32),
        np.zeros(ROOM, dtype=np.int32),
        workspace(LATEST * ITEM_FEATURES, dimensions),
        np.full(STEPS, -1, dtype=np.int64),
        np.zeros(FEATURES),
        np.zeros(ROOM, dtype=np.bool_),
        np.zeros(len(OLDER)),
        np.zeros(ROOM),
    )


def votes(kinds: NDArray[np.float32] | None = None, near: float = NEAR_POWER) -> Query:
    """How recent items vote in the blend: as in `models.ranking`, but only the newest of them, by ``1/i^near``."""
    return query(kinds)._replace(near=power_law(near, VOTERS))


@lean_kernel
def describe(sources: Sources, user: int, query: Query, desk: Desk) -> int:
    """Gather a user's candidates with their features, and the groups of the list; returns how many there are.

    Column 0 is the item the visitor is on. 0 if there is none.
    """
    candidates = desk.candidates
    distinct = distinct_recent(sources.histories, user, desk.recent)
    if distinct == 0:
        return 0
    found = 1
    column(candidates, desk.recent[0], 0)
    voters = find_voters(sources.histories, user, sources.rows, query, desk.scratch)
    desk.voters[0] = voters
    found = _neighbours(sources.rows, voters, desk, found)
    found = _walk(sources.rows, voters, desk, found)
    found = vote_sessions(
        sources.postings,
        sources.histories,
        desk.recent[:distinct],
        user,
        sources.histories.ts[user, sources.histories.head[user]],
        REACH,
        desk.matches,
        candidates,
        SESSIONS,
        found,
    )
    half_life_s = leading(sources.races, RECENCY)
    found = _seen(sources.histories, user, half_life_s, desk, found)
    for item in sources.tallies.popular:
        if item >= 0:
            found += column(candidates, item, found) == found
    desk.voters[1] = min(distinct, LATEST)
    latest = desk.recent[: desk.voters[1]]
    found = vote_alike(sources.catalogue, latest, NEAREST, desk.content, candidates, CONTENT, found)
    compare_prices(sources.catalogue.price, latest, candidates, PRICE, found)
    _level(candidates, found)
    _recede(half_life_s, desk, found)
    _popularity(sources.tallies, sources.races.lead[MEMORY, LEADER], candidates, found)
    known = sources.rows.total[desk.scratch.row[0]] if voters > 0 and desk.scratch.seed[0] == desk.recent[0] else 0.0
    desk.group[0] = 1 + _length_group(_visit(sources.histories, user))
    desk.group[1] = 1 + LENGTHS + _evidence_group(known)
    return found


@lean_kernel
def _visit(histories: HistoryArrays, user: int) -> int:
    """Touches of the visit a user is on, as far as the ring remembers them."""
    size = histories.item.shape[1]
    head = np.int64(histories.head[user])
    count = np.int64(histories.count[user])
    for i in range(count):
        if histories.kind[user, head - i if head >= i else head - i + size] & SESSION_START:
            return int(i + 1)
    return int(count)


@lean_kernel
def voter_feature(desk: Desk, v: int) -> int:
    """Row of the v-th voter's votes: of the item in hand, of the one before, or of those before that."""
    age = v if desk.scratch.seed[v] == desk.recent[0] or v > 0 else 1
    return min(NEWEST + age, EARLIER)


@lean_kernel
def _neighbours(rows: RowArrays, voters: int, desk: Desk, found: int) -> int:
    work, candidates = desk.scratch, desk.candidates
    for v in range(voters):
        row = work.row[v]
        feature = voter_feature(desk, v)
        found = add_cells(candidates, feature, rows.item[row], rows.value[row], rows.size[row], work.vote[v], found)
        if work.step[v] > 0.0:
            step = work.step[v]
            found = add_cells(candidates, STEP, rows.step_item[row], rows.step_value[row], rows.steps[row], step, found)
    return found


@lean_kernel
def _walk(rows: RowArrays, voters: int, desk: Desk, found: int) -> int:
    """Let the neighbours of the best neighbours of the newest item vote, as far as their rows are at hand."""
    if voters == 0:
        return found
    row = desk.scratch.row[0]
    best = desk.best
    best[:] = -1
    for c in range(rows.size[row]):
        at = STEPS if rows.item[row, c] != desk.recent[0] else 0
        while at > 0 and (best[at - 1] < 0 or rows.value[row, c] > rows.value[row, best[at - 1]]):
            if at < STEPS:
                best[at] = best[at - 1]
            at -= 1
            best[at] = c
    for cell in best:
        item = rows.item[row, cell]
        onward = rows.row[item] if cell >= 0 and item < len(rows.row) else NO_ROW
        if onward != NO_ROW and rows.total[onward] > 0:
            vote = rows.value[row, cell] / rows.total[onward]
            cells, values, size = rows.item[onward], rows.value[onward], rows.size[onward]
            found = add_cells(desk.candidates, WALK, cells, values, size, vote, found)
    return found


@lean_kernel
def _seen(histories: HistoryArrays, user: int, half_life_s: float, desk: Desk, found: int) -> int:
    """Note which candidates the visitor saw before, how long ago in touches and time, and how often."""
    candidates = desk.candidates
    size = histories.item.shape[1]
    head = np.int64(histories.head[user])
    desk.since[:] = 0.0
    for i in range(1, histories.count[user]):
        slot = head - i if head >= i else head - i + size
        age = seconds(histories.ts[user, slot], histories.ts[user, head])
        if i <= len(OLDER):
            desk.since[i - 1] = age
        at = column(candidates, histories.item[user, slot], found)
        if at < 0:
            continue
        found += at == found
        if candidates.x[SEEN, at] == 0.0:
            candidates.x[SEEN, at] = 1.0
            candidates.x[BACK, at] = 1.0 if i == 1 else 0.0
            candidates.x[NEAR, at] = remains(age, half_life_s) / i
            desk.age[at] = age
        candidates.x[TIMES, at] += 1.0
    return found


@lean_kernel
def _level(candidates: Candidates, found: int) -> None:
    """Bring votes of any size to 0 .. 1."""
    for feature in range(VOTES):
        edge = np.float32(EDGE * candidates.total[feature])
        if edge > 0.0:
            x = candidates.x[feature, :found]
            for c in range(found):
                x[c] = x[c] / (x[c] + edge)


@lean_kernel
def _recede(half_life_s: float, desk: Desk, found: int) -> None:
    """Let the votes of touches before the item in hand count by their age."""
    for k in range(len(OLDER)):
        left = np.float32(remains(desk.since[k], half_life_s))
        x = desk.candidates.x[OLDER[k], :found]
        for c in range(found):
            x[c] *= left


@lean_kernel
def _popularity(tallies: Tallies, memory: int, candidates: Candidates, found: int) -> None:
    slow = tallies.events[0] / SLOW
    for c in range(found):
        item = candidates.item[c]
        if item < len(tallies.slow) and tallies.slow[item] > NEVER:
            candidates.x[POPULAR, c] = strength(tallies.slow[item], slow) / 8.0
            candidates.x[TRENDING, c] = trend(tallies, item, memory)
        elif candidates.x[SEEN, c] == 0.0:  # what the visitor saw, somebody has touched, whether it is counted or not
            candidates.x[NEW, c] = 1.0
            candidates.x[POPULAR, c] = FADED / 8.0  # as if touched once, just now
            candidates.x[TRENDING, c] = FADED / 8.0


@lean_kernel
def trend(tallies: Tallies, item: int, memory: int) -> float:
    """How popular a counted item is over one of the short memories."""
    return strength(tallies.fast[item, memory], tallies.events[0] / MEMORIES[memory]) / 8.0


@lean_kernel
def _length_group(visit: int) -> int:
    if visit <= 2:
        return max(visit - 1, 0)
    return 2 if visit <= 4 else (3 if visit <= 9 else 4)


@lean_kernel
def _evidence_group(visits: float) -> int:
    group = 0
    edge = 5.0
    while visits >= edge and group < EVIDENCES - 1:
        group += 1
        edge *= 4.0
    return group
