"""``rivulet dlq`` on a real Kafka with a real worker: what is sent again is learned, and never counts twice."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from typer.testing import CliRunner

from stream.cli import build
from stream.errors import RivuletError
from stream.letters import SETTLED
from tests.patience import PATIENCE_S
from tests.records import event
from tests.worker_process import Installation, balance, environment

AHEAD_S = 3600 + 15  # refused for being an hour ahead of its record, and no more some seconds later


async def dlq(shop: Installation, *arguments: str) -> tuple[int, Any]:
    """``rivulet dlq`` as somebody would type it: exit code, and what it prints."""
    run = partial(CliRunner().invoke, build(), ["dlq", *arguments, "--json"], env=environment(shop.settings))
    result = await asyncio.to_thread(run)
    if isinstance(result.exception, RivuletError):
        return result.exception.exit_code, str(result.exception)
    assert result.exit_code in (0, 4), result.output
    return result.exit_code, json.loads(result.stdout)


async def retried_at_last(shop: Installation, *arguments: str) -> Any:
    """Retry until nothing is refused any more; before, nothing may be sent of what is refused."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            code, outcome = await dlq(shop, "retry", *arguments)
            if code == 0:
                return outcome
            assert outcome["refused"].keys() == {"time_absurd"}


async def test_retried_letters_are_learned_once_however_often_they_are_sent(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with Installation(kafka, redis_url, tmp_path, topic_prefix) as shop:
        shop.start()
        soon = round((time.time() + AHEAD_S) * 1e6)
        with_id, without = event("ann", "tent", event_id="e1"), event("ben", "bag")
        future = [each | {"event_timestamp": soon} for each in (with_id, without)]
        raw = [msgspec.json.encode(each) for each in future]
        await shop.publish([raw[0]], key="ann")
        await shop.publish([b'{"events":[%s,%s]}' % (msgspec.json.encode(event("ben", "pan")), raw[1])], key="ben")
        await shop.publish([b"{nonsense"], key="nobody")
        await shop.drained()
        before = await shop.counts()
        assert (before["learned"], before["dead:time_absurd"], before["dead:not_json"]) == (1, 2, 1)

        code, listed = await dlq(shop, "list")
        assert code == 0
        assert listed["reasons"] == {"time_absurd": 2, "not_json": 1}
        code, shown = await dlq(shop, "list", "--reason", "not_json", "--since", "1h")
        (nonsense,) = shown["letters"]
        code, whole = await dlq(shop, "show", nonsense["number"])
        assert (code, whole["value"], whole["key"], whole["topic"]) == (
            0,
            "{nonsense",
            "nobody",
            f"{topic_prefix}events",
        )
        assert (await dlq(shop, "show", "4711"))[0] == 4
        place = ["--topic", "events", "--partition", str(nonsense["partition"]), "--offset", str(nonsense["offset"])]
        assert [one["number"] for one in (await dlq(shop, "list", *place))[1]["letters"]] == [nonsense["number"]]

        # sent once it is no more refused; what still is stays
        outcome = await retried_at_last(shop, "--reason", "time_absurd")
        assert outcome["letters"] <= 2  # the rest in an earlier round
        code, outcome = await dlq(shop, "retry", "--all")
        assert (code, outcome["letters"], outcome["refused"]) == (4, 0, {"not_json": 1})
        await shop.drained()
        after = await shop.counts()
        assert after["learned"] == 3
        assert after["duplicates"] == before["duplicates"]
        # the same bytes, and an id from the place where there was none
        (of_ben,) = (one for one in listed["letters"] if one["index"] == 1)
        named = b',"event_id":"rekeyed-%d-%d-1"}' % (of_ben["partition"], of_ben["offset"])
        values = Counter(record.value for record in await shop.read("events"))
        assert values[raw[0]] == 2
        assert values[raw[1][:-1] + named] == 1

        # once more, as after a crash before they were marked: the books know them
        code, outcome = await dlq(shop, "retry", "--reason", "time_absurd", "--again")
        assert (code, outcome["letters"], outcome["records"]) == (0, 2, 2)
        await shop.drained()
        books = await shop.counts()
        assert (books["learned"], books["duplicates"]) == (3, after["duplicates"] + 2)
        assert balance(books) == sum((await shop.progress.ends("events")).values()) + 1  # of one record two events

        assert await dlq(shop, "drop", nonsense["number"]) == (0, {"dropped": 1})
        _, listed = await dlq(shop, "list", "--settled")
        assert Counter(letter["state"] for letter in listed["letters"]) == {"retried": 2, "dropped": 1}
        assert (await dlq(shop, "list"))[1]["letters"] == []
        markers = [record for record in await shop.read("dlq") if SETTLED in dict(record.headers)]
        assert len(markers) >= 2
