"""A recorded stream made rough: beside its events repeats, late ones, refusals, broken records, strays and logins.

Two kinds of visitors log in: some come under a cookie of their own long before, and some browsers have two customers,
one soon after the other, so that the later login may be heard of first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from models.hashing import partition_of
from models.histories import HISTORY
from stream.recordings import open_recording
from tests.records import user_of

TWO_DAYS_US = 2 * 86_400_000_000
# Places of what happens at a shared browser, none of which is another's trouble (see `rough_stream`). So far apart that
# what was touched is written before the next login is.
TOUCHED, ONE, BETWEEN, TWO = (5, 6), 1207, (1309, 1310), 2511
BROKEN = b'{"event_name": "view_item", "user_id": '


class Written(NamedTuple):
    """A record of topic `events` as it is to be written."""

    partition: int
    key: bytes
    value: bytes


class RoughStream(NamedTuple):
    """What is written, what the workers must count of it, and whose lists are to be read.

    `counts` leaves `learned` and `denied` out: a refusal holds for whatever its user does later. `joined`
    are visitors who came under a cookie before they logged in.
    """

    records: list[Written]
    counts: dict[str, int]
    users: list[str]


def rough_stream(recording: Path, events: int, partitions: int) -> RoughStream:
    """The first `events` events of a recording, of which a few percent are replaced or followed by trouble.

    Some users are known by a cookie first and by both ids last.
    """
    numbered = list(enumerate(islice(open_recording(recording), events)))
    names, joined = _logins(numbered)
    shared = _shared(numbered, names)
    joined += len({each["user_id"] for each in shared.values() if each["user_id"]})
    records: list[Written] = []
    users: dict[str, None] = {}
    counts = dict.fromkeys(("duplicates", "late", "dead:not_json", "rekeyed"), 0) | {"joined": joined}

    def write(event: Mapping[str, Any], aside: int = 0) -> None:
        user = user_of(dict(event))
        users[user] = None
        at = (partition_of(user.encode(), partitions) + aside) % partitions
        records.append(Written(at, user.encode(), msgspec.json.encode(event)))

    for number, plain in numbered:
        event = plain | {"event_id": f"e{number}"} | names.get(number, {}) | shared.get(number, {})
        match number % 200 if number > 1000 and number not in names else 0:
            case 20:  # sent twice
                write(event)
                counts["duplicates"] += 1
            case 60:  # two days late
                event["event_timestamp"] -= TWO_DAYS_US
                counts["late"] += 1
            case 100:  # cut off
                records.append(Written(number % partitions, b"broken", BROKEN))
                counts["dead:not_json"] += 1
            case 140:  # this user does not want to be learned from any more
                event["consent"] = {"analytics_storage": "denied"}
            case 160 | 161 | 162:  # a visitor whose events some producer writes elsewhere, the last one without an id
                stray = event | {"user_id": f"stray{number // 1000}"}
                if number % 200 == 162:
                    del stray["event_id"]
                write(stray, aside=1)
                counts["rekeyed"] += 1
                continue
        write(event)
    return RoughStream(records, counts, list(users))


def _logins(numbered: list[tuple[int, dict[str, Any]]]) -> tuple[dict[int, dict[str, str | None]], int]:
    """What some events name instead of a user alone, and of how many users.

    Those who come in the first half do so under a cookie and in the last third under both ids: by then, all from
    before is written and learned in any order. What is moved must still be in the histories.
    """
    events: dict[str, list[int]] = {}
    for number, event in numbered:
        events.setdefault(event["user_id"], []).append(number)
    first, last = len(numbered) // 2, len(numbered) * 2 // 3
    chosen = {user: at for user, at in events.items() if len(at) < HISTORY and at[0] < first and at[-1] >= last}
    names: dict[int, dict[str, str | None]] = {}
    for user, at in chosen.items():
        cookie: dict[str, str | None] = {"user_pseudo_id": f"cookie-{user}"}
        alone = cookie | {"user_id": None}
        names |= {number: alone if number < first else cookie if number >= last else {} for number in at}
    return names, len(chosen)


def _shared(
    numbered: list[tuple[int, dict[str, Any]]], names: Mapping[int, Mapping[str, Any]]
) -> dict[int, dict[str, str | None]]:
    """What some events say instead: two visitors look at something at one browser, and each logs in then.

    What is touched there are different items, as how often one counts depends on what came between. Every other pair
    logs in with events that are touches themselves.
    """
    found: dict[int, dict[str, str | None]] = {}
    for start in range(1_200, len(numbered) - TWO, 200):
        places = [start + at for at in (*TOUCHED, ONE, *BETWEEN, TWO)]
        events = [numbered[at][1] for at in places]
        apart = events[2]["event_timestamp"] // 1_000_000 < events[3]["event_timestamp"] // 1_000_000
        if not apart or len({event["item_id"] for event in events}) < len(events) or names.keys() & set(places):
            continue
        cookie: dict[str, str | None] = {"user_pseudo_id": f"shared{start}", "user_id": None, "event_name": "view_item"}
        found |= dict.fromkeys(places, cookie)
        for name, at in (("one", start + ONE), ("two", start + TWO)):
            said: dict[str, str | None] = {} if start % 400 else {"event_name": "login", "item_id": None}
            found[at] = cookie | {"user_id": f"{name}-{start}"} | said
    return found


def per_partition(records: Iterable[Written], partitions: int) -> list[int]:
    """Records of each partition."""
    counts = [0] * partitions
    for record in records:
        counts[record.partition] += 1
    return counts
