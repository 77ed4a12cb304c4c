"""``rivulet replay --local``: the same recording gives the same bytes; bad options and files say what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from stream.cli import build
from stream.demo.shop import Shop
from stream.errors import BadInputError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "shop.jsonl"
    path.write_bytes(b"\n".join(Shop(users=50, concurrent=10).json_events(2_000)))
    return path


def replayed(recording: Path, out: Path, seed: str) -> dict[str, int]:
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
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=False
    )
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


@pytest.mark.parametrize("speed", ["0", "-1", "fast", "nan"])
def test_a_bad_speed_is_named(recording: Path, speed: str) -> None:
    result = CliRunner().invoke(build(), ["replay", str(recording), "--speed", speed])
    assert isinstance(result.exception, BadInputError)
    assert "--speed" in str(result.exception)


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"event_name":"view_item","user_id":"u","event_timestamp":1700000000000000}\n{"nope"\n')
    result = CliRunner().invoke(build(), ["replay", str(path), "--local"])
    assert isinstance(result.exception, BadInputError)
    assert "line 2" in str(result.exception)
