"""``rivulet replay --local``: the same recording gives the same bytes; bad options and files say what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from stream.cli import build
from stream.demo.shop import Shop
from stream.errors import BadInputError, ConfigurationError
from stream.recordings.frames import Mark
from stream.recordings.records import Raw, encode_line
from stream.recordings.segments import Segments
from tests.records import T0_US, event

ROOT = Path(__file__).parents[3]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "shop.jsonl"
    path.write_bytes(b"\n".join(Shop(users=50, concurrent=10).json_events(2_000)))
    return path


def replayed(recording: Path, out: Path, seed: str, **settings: str) -> dict[str, int]:
    command = [
        sys.executable,
        "-m",
        "stream.cli",
        "replay",
        str(recording),
        "--local",
        "--republish",
        "--out",
        str(out),
    ]
    env = os.environ | {"PYTHONHASHSEED": seed} | settings
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counts: dict[str, int] = msgspec.json.decode(done.stdout)
    return counts


def test_two_runs_leave_the_same_bytes(recording: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    counts = replayed(recording, one, "1")
    assert counts == replayed(recording, two, "2")
    assert counts["learned"] == 2_000
    assert one.read_bytes() == two.read_bytes()
    keys = [msgspec.json.decode(line)["key"] for line in one.read_bytes().splitlines()]
    assert keys == sorted(keys)
    assert len(keys) == counts["keys"]
    assert {"rv:trending:all", "rv:trending:category:camping"} <= set(keys)


def test_a_placements_file_adds_its_lists_and_changes_no_other(recording: Path, tmp_path: Path) -> None:
    file = tmp_path / "placements.toml"
    file.write_text('[[placements]]\nname = "home"\nk = 4\nexploration = 0.25\n')
    plain, more = tmp_path / "plain", tmp_path / "more"
    replayed(recording, plain, "1")
    replayed(recording, more, "2", RIVULET_PLACEMENTS=str(file))
    lines = more.read_bytes().splitlines()
    homes = [line for line in lines if msgspec.json.decode(line)["key"].endswith("}:recs:home")]
    assert [line for line in lines if line not in homes] == plain.read_bytes().splitlines()
    assert len(homes) > 10
    assert any(b'\\"new\\"' in line for line in homes)


def test_it_does_what_a_worker_with_the_same_settings_does(recording: Path, tmp_path: Path) -> None:
    def sizes(out: Path, kind: str) -> set[int]:
        lines = map(msgspec.json.decode, out.read_bytes().splitlines())
        found = [msgspec.json.decode(line["value"]) for line in lines if line["key"].startswith(f"rv:{kind}:")]
        return {len(value["items"]) for value in found}

    plain, small = tmp_path / "plain", tmp_path / "small"
    replayed(recording, plain, "1")
    replayed(recording, small, "1", RIVULET_NEIGHBOURS="2", RIVULET_TRANSITIONS="2", RIVULET_K="5")
    assert max(sizes(plain, "similar")) == max(sizes(plain, "trending")) == 20
    assert max(sizes(small, "similar")) <= 4
    assert max(sizes(small, "trending")) == 5


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "RIVULET_PLACEMENTS={file}: No such file or directory"),
        ("\xff".encode("latin-1"), "RIVULET_PLACEMENTS={file}: not UTF-8"),
        (b"[[placements]]\nk = 3", "{file}: placement number 1: Object missing required field `name`"),
        (b"[[placements]]\nname = 'a'\nk = 0", "{file}: placement 'a': k must be 1 to 100, not 0"),
    ],
)
def test_a_bad_placements_file_is_one_line(
    recording: Path, tmp_path: Path, text: bytes | None, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "placements.toml"
    if text is not None:
        file.write_bytes(text)
    monkeypatch.setenv("RIVULET_PLACEMENTS", str(file))
    result = CliRunner().invoke(build(), ["replay", str(recording), "--local"])
    assert isinstance(result.exception, ConfigurationError)
    assert str(result.exception) == why.format(file=file)


@pytest.mark.parametrize("speed", ["0", "-1", "fast", "nan"])
def test_a_bad_speed_is_named(recording: Path, speed: str) -> None:
    result = CliRunner().invoke(build(), ["replay", str(recording), "--speed", speed])
    assert isinstance(result.exception, BadInputError)
    assert "--speed" in str(result.exception)


def run(*arguments: str, code: int = 0) -> Any:
    """What ``rivulet replay`` prints as JSON."""
    result = CliRunner().invoke(build(), ["replay", *arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def lines(*events: dict[str, Any] | bytes) -> bytes:
    return b"".join((each if isinstance(each, bytes) else msgspec.json.encode(each)) + b"\n" for each in events)


def test_a_dry_run_tells_what_would_be_sent(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(event("a", "x"), event("b", "y", at=5), event("b", name="login", at=9)))
    found = run(str(path), "--dry-run")
    assert (found["lines"], found["taken"], found["refused"]) == (3, 3, 0)
    assert found["events"] == {"view_item": 2, "login": 1}
    assert found["shapes"] == {"rivulet": 3}
    assert (found["first"], found["last"]) == ("2025-06-15T15:06:40.000Z", "2025-06-15T15:06:49.000Z")
    found = run(str(path), "--dry-run", "--from", "2025-06-15T15:06:45Z", "--until", "1750000009000", "--loop", "3")
    assert (found["taken"], found["first"]) == (3, "2025-06-15T15:06:45.000Z")


def test_records_of_a_topic_are_judged_with_their_bad_ones(tmp_path: Path) -> None:
    records = [
        Raw(0, T0_US // 1000, b"a", msgspec.json.encode(event("a", "x"))),
        Raw(1, T0_US // 1000, None, b"{nonsense"),
        Raw(2, T0_US // 1000, b"a", b'{"control":"rank_all"}'),
        Raw(3, T0_US // 1000, b"a", b'{"control":"forget","user":"a"}'),
        Raw(4, T0_US // 1000, b"a", msgspec.json.encode({"user_id": "a"})),
    ]
    with Segments(tmp_path, "events") as segments:
        segments.append(Mark(topic="events", next={0: 5}), b"".join(encode_line("events", 0, raw) for raw in records))
    found = run(str(tmp_path), "--dry-run", code=BadInputError.exit_code)
    assert (found["taken"], found["refused"], found["controls"], found["controls_left_out"]) == (1, 2, 1, 1)
    assert {reason: one["count"] for reason, one in found["reasons"].items()} == {"not_json": 1, "schema": 1}
    counts = run(str(tmp_path), "--local")
    assert (counts["learned"], counts["dead:not_json"], counts["dead:schema"]) == (1, 1, 1)


def test_only_events_are_replayed(tmp_path: Path) -> None:
    with Segments(tmp_path, "covisits") as segments:
        segments.append(Mark(topic="covisits", next={0: 1}), encode_line("covisits", 0, Raw(0, 0, None, b"x")))
    with pytest.raises(BadInputError, match="holds records of topic covisits, not of events"):
        run(str(tmp_path), "--dry-run")


def test_damaged_lines_are_skipped_and_counted_on_request(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(event("a", "x"), b"{nonsense", event("a", "y", at=1), b'{"event_name":1}'))
    with pytest.raises(BadInputError, match=r"a\.jsonl, line 2, "):
        run(str(path), "--dry-run")
    found = run(str(path), "--dry-run", "--skip-bad")
    assert (found["taken"], found["skipped"]) == (2, 2)
    found = run(str(path), "--local", "--skip-bad", "--loop", "2", "--users", "-{round}")
    assert (found["learned"], found["skipped"]) == (4, 4)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--loop", "0"], "--loop takes"),
        (["--loop", "forever", "--local"], "never ends"),
        (["--from", "yesterday"], "--from takes"),
        (["--users", "{"], "--users takes"),
        (["--speed", "pause"], "only with --steer"),
        (["--map", "x"], "--map takes"),
    ],
)
def test_bad_options_are_named(recording: Path, arguments: list[str], problem: str) -> None:
    with pytest.raises(BadInputError, match=problem):
        run(str(recording), *arguments)


def test_standard_input_is_read_once(recording: Path) -> None:
    for arguments, problem in (
        (["--loop", "2"], "only once"),
        (["--steer"], "holds the events"),
        ([str(recording)], "alone"),
    ):
        with pytest.raises(BadInputError, match=problem):
            run("-", *arguments)


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"event_name":"view_item","user_id":"u","event_timestamp":1700000000000000}\n{"nope"\n')
    result = CliRunner().invoke(build(), ["replay", str(path), "--local"])
    assert isinstance(result.exception, BadInputError)
    assert "line 2" in str(result.exception)
