"""``rivulet snapshot`` as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from stream.cli import build
from stream.errors import BadInputError, ConfigurationError
from stream.snapshots import SnapshotStore

ROOT = Path(__file__).parents[3]


def run(folder: Path, *arguments: str) -> Any:
    result = CliRunner().invoke(
        build(), ["snapshot", *arguments, "--folder", str(folder), "--json"], catch_exceptions=False
    )
    assert result.exit_code == 0
    return json.loads(result.output)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four snapshots of one shard and one of another."""
    store = SnapshotStore(tmp_path, keep=9)
    for offset in (10, 20, 30, 40):
        store.write("events-0", offset, {"a": np.full(1000, offset)})
    store.write("covisits-1", 7, {"a": np.arange(3)})
    return tmp_path


def test_list(folder: Path) -> None:
    rows = run(folder, "list")
    assert [(row["shard"], row["offset"]) for row in rows] == [
        ("covisits-1", 7),
        *(("events-0", offset) for offset in (40, 30, 20, 10)),
    ]
    assert {row["bytes"] == (folder / row["file"]).stat().st_size for row in rows} == {True}
    assert [row["offset"] for row in run(folder, "list", "covisits-1")] == [7]


def test_verify(folder: Path) -> None:
    assert {row["verdict"] for row in run(folder, "verify")} == {"good"}
    damaged = folder / "events-0@00000000000000000030.snap"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(BadInputError, match="1 of 5 snapshots would be refused"):
        run(folder, "verify")
    printed = subprocess.run(
        [sys.executable, "-m", "stream.cli", "snapshot", "verify", "--folder", str(folder), "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert printed.returncode == 4
    verdicts = {row["offset"]: row["verdict"] for row in json.loads(printed.stdout)}
    assert verdicts[30] == "damaged or cut off: the checksum differs"
    assert printed.stderr.strip().startswith("rivulet: 1 of 5 snapshots")


def test_prune(folder: Path) -> None:
    left = SnapshotStore(folder).begin("events-0")
    damaged = folder / "events-0@00000000000000000040.snap"
    damaged.write_bytes(b"RVSNAP")
    assert [row["offset"] for row in run(folder, "prune", "--keep", "2", "--refused")] == [40, 10]
    left.close()
    assert sorted(path.name for path in folder.iterdir()) == [
        "covisits-1@00000000000000000007.snap",
        "events-0@00000000000000000020.snap",
        "events-0@00000000000000000030.snap",
    ]
    assert run(folder, "prune") == []


def test_prune_spares_the_newest_that_can_be_read(folder: Path) -> None:
    for offset in (30, 40):
        (folder / f"events-0@{offset:020d}.snap").write_bytes(b"RVSNAP")
    assert [row["offset"] for row in run(folder, "prune", "--keep", "1")] == [10]
    found = SnapshotStore(folder).latest("events-0")
    assert found is not None
    assert found.offset == 20


def test_prune_deletes_nothing_of_a_shard_that_cannot_be_read(folder: Path) -> None:
    for offset in (10, 20, 30, 40):
        (folder / f"events-0@{offset:020d}.snap").write_bytes(b"RVSNAP")
    assert run(folder, "prune", "--keep", "1") == []
    assert len(run(folder, "prune", "--keep", "1", "--refused")) == 4


def test_nothing_there(tmp_path: Path) -> None:
    assert run(tmp_path, "list") == run(tmp_path, "verify") == run(tmp_path, "prune") == []


def test_nothing_to_delete_is_not_nothing_there(folder: Path) -> None:
    said = CliRunner().invoke(build(), ["snapshot", "prune", "--keep", "99", "--folder", str(folder)])
    assert (said.exit_code, said.stdout) == (0, "nothing to delete\n")


def test_place_that_cannot_be_used() -> None:
    with pytest.raises(ConfigurationError, match="RIVULET_SNAPSHOT_FOLDER=nonsense://x: Protocol not known"):
        CliRunner().invoke(build(), ["snapshot", "list", "--folder", "nonsense://x"], catch_exceptions=False)
