"""Lists of the blend, in kernels: rank a visitor's candidates, explain what is shown, learn from what came next."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.blend_content import Catalogue, name_alike
from models.blend_features import (
    CONTENT,
    NEWEST,
    POPULAR,
    PRICE,
    SEEN,
    SESSIONS,
    STEP,
    TRENDING,
    WALK,
    Desk,
    Sources,
    describe,
    voter_feature,
)
from models.blend_race import race_constants
from models.candidates import clear
from models.covisitation import Deltas, Weighting, emit_touch
from models.histories import HistoryArrays, Touches
from models.kernel import lean_kernel
from models.listwise import Learner, learn, mixed, score, softmax
from models.neighbour_rows import RowArrays
from models.postings import Postings
from models.race import Races
from models.ranking import COVISIT, MICRO, Lists, Query, explain
from models.session_votes import learn_touch
from models.tallies import Tallies, tally
from models.vocabulary import id_less

NEXT, ALIKE, ONWARD, AGAIN, TREND, FRESH, LIKE = range(1, 8)  # of `models.ranking.REASONS`, behind COVISIT
ALL_TEACH: Final = 20_000  # so many first lists teach the weights, ...
MANY_TEACH: Final = 40_000  # ... until there were so many lessons each so many-th, ...
OFTEN: Final = 4
EVERY: Final = 8  # ... and later each so many-th: enough to follow, at an eighth of the cost
ALERTED: Final = 2_000  # after a drift so many lists, each of them, teach again
RACED: Final = 4  # one lesson in so many judges the variants of constants
GRID: Final = 1e5  # scores that agree to 1e-5 rank by id
TOP: Final = 20  # a hit is a target among so many
TOUCHES, LESSONS, HITS, ALERT = range(4)  # counts; the last: until so many lessons every list teaches


class BlendArrays(NamedTuple):
    """What kernels read and write of a partition; the catalogue they only read."""

    postings: Postings
    tallies: Tallies
    learner: Learner
    races: Races
    counts: NDArray[np.int64]
    catalogue: Catalogue


@lean_kernel
def weigh(arrays: BlendArrays, histories: HistoryArrays, user: int, rows: RowArrays, query: Query, desk: Desk) -> int:
    """Gather and score a user's candidates; returns how many there are, the first being the item the user is on."""
    sources = Sources(histories, rows, arrays.postings, arrays.tallies, arrays.races, arrays.catalogue)
    found = describe(sources, user, query, desk)
    if found > 0:
        mixed(arrays.learner, desk.group, desk.weight)
        score(desk.candidates.x, found, desk.weight, desk.score)
        desk.score[0] = -np.inf
    return found


@lean_kernel
def learn_touches(
    arrays: BlendArrays,
    histories: HistoryArrays,
    rows: RowArrays,
    touches: Touches,
    start: int,
    end: int,
    weighting: Weighting,
    query: Query,
    frozen: bool,
    rate: float,
    desk: Desk,
    out: Deltas,
    visits: int,
) -> int:
    """Test and learn some touches, then append each to its user's history, one after another.

    Their deltas go behind those of so many visits; returns how many visits there are then.
    """
    for n in range(start, end):
        user, item = touches.user[n], touches.item[n]
        if weighting.kind[touches.kind[n]] > 0 and not on_item(histories, user, item):
            if not frozen and is_lesson(arrays.counts, histories, user):
                found = weigh(arrays, histories, user, rows, query, desk)
                teach(arrays, desk, found, item, rate)
                clear(desk.candidates, found)
            remember(arrays, histories, user, item)
        visits = emit_touch(histories, touches, n, weighting, out, visits)
    return visits


@lean_kernel
def on_item(histories: HistoryArrays, user: int, item: int) -> bool:
    """Whether a user is on an item already: a repeat, which teaches nothing."""
    return bool(histories.count[user] > 0 and histories.item[user, histories.head[user]] == item)


@lean_kernel
def is_lesson(counts: NDArray[np.int64], histories: HistoryArrays, user: int) -> bool:
    """Whether the next touch of a user is to teach the weights: each at first and after a drift, else some."""
    lessons = counts[LESSONS]
    every = 1 if lessons < max(ALL_TEACH, counts[ALERT]) else (OFTEN if lessons < MANY_TEACH else EVERY)
    return bool(counts[TOUCHES] % every == 0 and histories.count[user] > 0)


@lean_kernel
def remember(arrays: BlendArrays, histories: HistoryArrays, user: int, item: int) -> None:
    """Learn a touch in the models that belong to the partition."""
    arrays.counts[TOUCHES] += 1
    tally(arrays.tallies, item)
    learn_touch(arrays.postings, histories, user, item)


@lean_kernel
def teach(arrays: BlendArrays, desk: Desk, found: int, item: int, rate: float) -> None:
    """Move the weights towards the item that was touched, if it was a candidate; count lesson and hit."""
    arrays.counts[LESSONS] += 1
    target: int = np.int64(desk.candidates.place[item]) - 1  # type: ignore[assignment]  # Numba: signed
    if target <= 0:
        return
    scores = desk.score[:found]
    better = 0
    for value in scores:
        better += value > scores[target]
    arrays.counts[HITS] += better < TOP
    softmax(scores, desk.chance[:found])
    if arrays.counts[LESSONS] % RACED == 0:
        race_constants(arrays.races, arrays.tallies, desk, found, target)
    learn(arrays.learner, desk.candidates.x, desk.chance[:found], target, desk.group, desk.gradient, rate)


@lean_kernel
def rank_blended(
    arrays: BlendArrays,
    histories: HistoryArrays,
    users: NDArray[np.int32],
    rows: RowArrays,
    query: Query,
    hidden: NDArray[np.bool_],
    blob: NDArray[np.uint8],
    spans: NDArray[np.int64],
    desk: Desk,
    out: Lists,
) -> None:
    """Rank and explain a list for each of some users."""
    for u in range(len(users)):
        found = weigh(arrays, histories, users[u], rows, query, desk)
        list_candidates(arrays, found, rows, hidden, blob, spans, desk, out, u)


@lean_kernel
def list_candidates(
    arrays: BlendArrays,
    found: int,
    rows: RowArrays,
    hidden: NDArray[np.bool_],
    blob: NDArray[np.uint8],
    spans: NDArray[np.int64],
    desk: Desk,
    out: Lists,
    u: int,
) -> None:
    """Turn weighed candidates into a list with its reasons, and clear the desk."""
    filled = choose(found, -np.inf, hidden, blob, spans, desk, out.item[u], out.micro[u])
    reasons = out.reason[u]
    usual = usual_popularity(desk.weight, desk.candidates.x[:, :found])
    for i in range(filled):
        at = desk.candidates.place[out.item[u, i]] - 1
        reasons[i] = main_reason(desk.weight, desk.candidates.x[:, at], usual)
        desk.clue[i] = desk.candidates.clue[at]
        desk.asked[i] = reasons[i] == LIKE
    latest = desk.recent[: desk.voters[1]]
    vectors, work = arrays.catalogue.vectors, desk.content
    name_alike(vectors, latest, out.item[u, :filled], desk.asked, work, desk.chance, desk.clue)
    clear(desk.candidates, found)
    weigh_voters(desk)
    explain(rows, desk.voters[0], desk.scratch, out.item[u], out.why[u])
    for i in range(filled):
        out.why[u, i] = origin(reasons[i], out.item[u, i], out.why[u, i], desk.scratch.seed[0], desk.clue[i])
    out.why[u, filled:] = -1


@lean_kernel
def weigh_voters(desk: Desk) -> None:
    """Let each recent item's votes count as the weights have it, and its transitions not: they are no co-visitation."""
    work = desk.scratch
    for v in range(desk.voters[0]):
        work.vote[v] *= max(desk.weight[voter_feature(desk, v)], np.float32(0.0))
        work.step[v] = 0.0


@lean_kernel
def origin(reason: int, item: int, voter: int, newest: int, clue: int) -> int:
    """The visitor's own item that led to a listed one, -1 for none."""
    if reason == COVISIT:
        return voter
    if reason in (NEXT, ONWARD):
        return newest
    if reason in (ALIKE, LIKE):
        return clue
    return item if reason == AGAIN else -1


@lean_kernel
def choose(
    found: int,
    least: float,
    hidden: NDArray[np.bool_],
    blob: NDArray[np.uint8],
    spans: NDArray[np.int64],
    desk: Desk,
    items: NDArray[np.int32],
    micros: NDArray[np.int64],
) -> int:
    """Write the best candidates by rounded score, then id; returns how many.

    Only scores above `least` count. What is written as an item's score is its chance, in millionths of the first one's.
    """
    k = len(items)
    filled = 0
    floor = np.float32(least)
    for c in range(1, found):
        if desk.score[c] <= floor:  # most candidates end here
            continue
        item = desk.candidates.item[c]
        if hidden[item]:
            continue
        key = np.int64(np.floor(desk.score[c] * GRID + 0.5))
        at = filled
        while at > 0 and (
            key > micros[at - 1] or (key == micros[at - 1] and id_less(blob, spans, item, items[at - 1]))
        ):
            if at < k:
                items[at] = items[at - 1]
                micros[at] = micros[at - 1]
            at -= 1
        if at < k:
            items[at] = item
            micros[at] = key
            filled = min(filled + 1, k)
        if filled == k:
            floor = np.float32(max((micros[k - 1] - 1) / GRID, least))
    for i in range(filled - 1, -1, -1):
        below = (micros[0] - micros[i]) / GRID
        micros[i] = np.int64(max(np.exp(-below) * MICRO, 1.0) + 0.5)
    items[filled:] = -1
    micros[filled:] = 0
    return filled


@lean_kernel
def usual_popularity(weight: NDArray[np.float32], x: NDArray[np.float32]) -> float:
    """What popularity adds to the mean candidate."""
    total = 0.0
    for c in range(1, x.shape[1]):
        total += weight[POPULAR] * x[POPULAR, c] + weight[TRENDING] * x[TRENDING, c]
    return float(total / max(x.shape[1] - 1, 1))


@lean_kernel
def main_reason(weight: NDArray[np.float32], x: NDArray[np.float32], usual: float) -> int:
    """The model that adds most to a candidate's score: a model of all items, popularity, beyond what is usual."""
    best, reason = max(weight[POPULAR] * x[POPULAR] + weight[TRENDING] * x[TRENDING] - usual, 0.0), TREND
    parts = (
        (COVISIT, NEWEST, STEP),
        (NEXT, STEP, SESSIONS),
        (ALIKE, SESSIONS, WALK),
        (ONWARD, WALK, SEEN),
        (AGAIN, SEEN, POPULAR),
        (LIKE, CONTENT, PRICE),
    )
    for which, first, end in parts:
        part = 0.0
        for k in range(first, end):
            part += weight[k] * x[k]
        if part > best:
            best, reason = part, which
    return reason
