"""What a replay publishes: times chosen, rounds shifted, visitors renamed; and at which pace."""

from __future__ import annotations

import asyncio
import os
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream.errors import BadInputError
from stream.moments import moment_ms
from stream.pacing import Pacer, parse_speed, steer
from stream.recordings.files import expand
from stream.recordings.records import Parcel, Raw, restore
from stream.rounds import GAP_US, Item, Source, Users, between, rounds, time_us
from tests.patience import PATIENCE_S
from tests.records import T0_US, event

EVENTS: list[Item] = [event("ann", "tent", at=0, event_id="e1", session_id="s"), event("ben", "bag", at=10)]


def test_rounds_follow_each_other_as_other_visitors() -> None:
    found = list(rounds(lambda: EVENTS, 3, Users("-{round}")))
    assert [each["user_id"] for each in found if isinstance(each, dict)] == [
        f"{u}-{n}" for n in (1, 2, 3) for u in ("ann", "ben")
    ]
    span = 10_000_000 + GAP_US
    times = [time_us(each) for each in found]
    assert times == [T0_US + n * span + at for n in range(3) for at in (0, 10_000_000)]
    assert found[0]["event_id"] == "e1~1"  # type: ignore[call-overload]  # a dict
    assert EVENTS[0]["event_id"] == "e1"  # type: ignore[call-overload]  # left alone


def test_without_renaming_the_first_round_is_untouched_and_later_ones_are_no_repeats() -> None:
    found: list[Any] = list(rounds(lambda: EVENTS, 2, Users()))
    assert found[:2] == EVENTS
    assert (found[2]["user_id"], found[2]["event_id"], found[2]["session_id"]) == ("ann", "e1~2", "s~2")
    assert "event_id" not in found[3]


def test_for_ever_is_for_ever_and_nothing_ends() -> None:
    assert len(list(islice(rounds(lambda: EVENTS, None, Users()), 25))) == 25
    assert list(rounds(lambda: [], None, Users())) == []


def test_records_are_renamed_event_by_event_and_bad_ones_stay() -> None:
    value = msgspec.json.encode([event("ann", "tent", event_id="e1"), {"bad": 1}])
    parcels, _ = restore(0, Raw(3, T0_US // 1000, b"ann", value))
    forget, _ = restore(0, Raw(4, T0_US // 1000, b"ann", b'{"control":"forget","user":"ann"}'))
    found: list[Any] = list(rounds(lambda: [*parcels, *forget], 2, Users("{round}.{user}")))
    assert [each["user_id"] for each in found if isinstance(each, dict)] == ["1.ann", "2.ann"]
    assert [each["event_id"] for each in found if isinstance(each, dict)] == ["e1~1", "e1~2"]
    others = [each for each in found if isinstance(each, Parcel)]
    assert [each.value for each in others if b"bad" in (each.value or b"")] == [b'{"bad":1}'] * 2
    requests = [msgspec.json.decode(each.value or b"") for each in others if b"forget" in (each.value or b"")]
    assert [(each["user"], each["asked_ms"]) for each in requests] == [
        ("1.ann", T0_US // 1000),
        ("2.ann", (T0_US + GAP_US) // 1000),
    ]


def test_bounds_of_time() -> None:
    items: list[Item] = [*EVENTS, {"event_name": "login", "user_id": "u"}]
    assert list(between(items, None, None)) == items
    assert list(between(items, T0_US + 1, None)) == EVENTS[1:]
    assert list(between(items, T0_US, T0_US + 10_000_000)) == EVENTS[:1]


@pytest.mark.parametrize("pattern", ["{", "{user", "{0}", "{other}", "{user.x}"])
def test_a_bad_pattern_is_said(pattern: str) -> None:
    with pytest.raises(BadInputError, match="--users takes"):
        Users(pattern)


@pytest.mark.parametrize(
    ("text", "ms"),
    [("now", 10**12), ("90s", 10**12 - 90_000), ("1700000000000", 17 * 10**11), ("1970-01-02", 86_400_000)],
)
def test_moments(text: str, ms: int) -> None:
    assert moment_ms("--from", text, 10**12) == ms


@pytest.mark.parametrize("text", ["12", "soon", "-5m", "2024-13-01", "1700000000000.5", ""])
def test_what_is_no_moment_is_said(text: str) -> None:
    with pytest.raises(BadInputError, match="--from takes a time"):
        moment_ms("--from", text, 0)


def test_files_and_folders(tmp_path: Path) -> None:
    for name in ("b.jsonl.zst", "a.csv.gz", "notes.txt"):
        (tmp_path / name).touch()
    assert expand([str(tmp_path), "-"][:1]) == [str(tmp_path / "a.csv.gz"), str(tmp_path / "b.jsonl.zst")]
    for names, problem in (
        (["-", "a.csv"], "read alone"),
        ([str(tmp_path / "c.csv")], "No such file"),
        ([str(tmp_path / "folder")], "No such file"),
        ([str(tmp_path / "notes.txt")], "not .csv"),
    ):
        with pytest.raises(BadInputError, match=problem):
            expand(names)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInputError, match="without recordings"):
        expand([str(tmp_path / "empty")])


def test_a_source_says_where_it_is_and_goes_on_behind_a_file_that_ends_badly(tmp_path: Path) -> None:
    good, torn = tmp_path / "good.jsonl", tmp_path / "a.jsonl.gz"
    good.write_bytes(b"\n\n".join(msgspec.json.encode(each) for each in EVENTS))
    torn.write_bytes(b"\x1f\x8b\x08")
    told: list[str] = []
    source = Source([str(torn), str(good)], None, lambda error: told.append(str(error)))
    assert list(source) == EVENTS
    assert list(source) == EVENTS
    assert source.where == f"{good}, line 3"
    assert [str(torn) in text for text in told] == [True, True]


# -- pace ---


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_pace_that_changes_goes_on_from_where_the_replay_stands() -> None:
    clock = Clock()
    pacer = Pacer(10.0, clock)
    assert pacer.wait_s(T0_US) == 0
    assert pacer.wait_s(T0_US + 60_000_000) == pytest.approx(6)
    clock.now += 1  # ten seconds of the recording have passed
    pacer.set(5.0)
    assert pacer.wait_s(T0_US + 60_000_000) == pytest.approx(10)
    pacer.set(0.0)
    assert pacer.wait_s(T0_US + 60_000_000) is None
    clock.now += 1000
    pacer.set(50.0)
    assert pacer.wait_s(T0_US + 60_000_000) == pytest.approx(1)
    pacer.set(None)
    assert pacer.wait_s(T0_US + 60_000_000) == 0


async def test_from_full_speed_to_a_pace() -> None:
    clock = Clock()
    pacer = Pacer(None, clock)
    await pacer.until(T0_US)
    await pacer.until(T0_US + 500_000_000)
    pacer.set(1.0)
    assert pacer.wait_s(T0_US + 501_000_000) == pytest.approx(1)


async def test_lines_of_a_descriptor_steer_a_replay_that_waits() -> None:
    read_end, write_end = os.pipe()
    pacer, told = Pacer(0.0), asyncio.Queue[str]()
    steer(pacer, told.put_nowait, read_end)
    waiting = asyncio.ensure_future(pacer.until(T0_US))
    try:
        async with asyncio.timeout(PATIENCE_S):
            os.write(write_end, b"fast\n\n2.")
            assert "takes a number above 0" in await told.get()
            os.write(write_end, b"5\nmax\n")
            assert [await told.get(), await told.get()] == ["speed 2.5", "speed max"]
            await waiting
    finally:
        os.close(write_end)
    assert pacer.speed is None


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "fast"])
def test_what_is_no_speed_is_said(text: str) -> None:
    with pytest.raises(BadInputError, match="--speed"):
        parse_speed(text)
