"""The README's "From zero to your own shop" as it stands there, on real servers; and the synthetic shop."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.offers import load_offers
from stream.cli import build
from stream.demo.shop import Shop
from tests.worker_process import Installation

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOT_HERE = ("docker compose ", "pip install ")


def commands(title: str) -> list[tuple[str, str]]:
    """Commands of a section, each with the remark behind it."""
    section = README.partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\$ (.*)$", section, re.M)
    return [(command.strip(), remark) for command, _, remark in (line.partition("  # ") for line in lines)]


def run(command: str) -> str:
    """What a command prints; what comes before its pipe is the shell's business, ``rivulet`` runs in this process."""
    before, pipe, last = command.rpartition(" | ")
    stdin = subprocess.run(["bash", "-c", before], capture_output=True, text=True, check=True).stdout if pipe else None
    program, *arguments = shlex.split(last)
    assert program == "rivulet"
    result = CliRunner().invoke(build(), arguments, input=stdin, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_from_zero_to_your_own_shop(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"KAFKA": kafka, "REDIS": redis_url, "TOPIC_PREFIX": topic_prefix, "PREFIX": f"{topic_prefix}rv"}
    for name, value in (names | {"SNAPSHOT_FOLDER": str(tmp_path), "GROUP": f"{topic_prefix}group"}).items():
        monkeypatch.setenv(f"RIVULET_{name}", value)
    script = commands("From zero to your own shop in ten minutes")
    seen: list[str] = []

    async def follow() -> None:
        shop = Installation(kafka, redis_url, tmp_path, topic_prefix)
        async with shop:
            for command, remark in script:
                if command.startswith(NOT_HERE):
                    continue
                if command == "rivulet worker &":
                    shop.start()
                    continue
                if command.startswith("rivulet get "):
                    await shop.drained()  # a reader is not as quick
                    page = json.loads(await asyncio.to_thread(run, f"{command} --json"))["recommendations"]
                    item, _, origin = remark.partition(", because of ")
                    assert page["source"] == "recs"
                    assert [item, origin] == [page["items"][0], page["why"][0][0]], (command, page)
                    seen.append(item)
                else:
                    said = await asyncio.to_thread(run, command)
                    assert remark in said
                    if "publish" in command and seen == []:
                        await shop.drained()

    asyncio.run(follow())
    assert seen == ["stove", "kettle", "stove", "lamp"]


def test_the_shop_publishes_into_any_kafka(
    kafka: str, topic_prefix: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIVULET_KAFKA", kafka)
    monkeypatch.setenv("RIVULET_TOPIC_PREFIX", topic_prefix)
    refused = CliRunner().invoke(build(), ["shop", "--duration", "1"])
    assert f"topic {topic_prefix}events does not exist: run `rivulet topics`" in str(refused.exception)
    assert refused.exception.exit_code == 2  # type: ignore[union-attr]  # what main() ends with

    async def counted() -> tuple[dict[str, object], dict[str, int]]:
        async with Installation(kafka, redis_url, tmp_path, topic_prefix) as shop:
            verb = [sys.executable, "-m", "stream.cli", "shop", "--rate", "200", "--duration", "1", "--json"]
            done = await asyncio.to_thread(subprocess.run, verb, cwd=ROOT, capture_output=True, text=True, check=True)
            told = json.loads(done.stdout)
            return told, {role: len(await shop.read(role)) for role in ("events", "items", "offers")}

    told, there = asyncio.run(counted())
    assert told == {"published": there["events"], "topic": f"{topic_prefix}events"}
    assert 0 < there["events"] <= 200
    assert there["items"] == len(Shop().products)
    assert there["offers"] == len(load_offers((ROOT / "stream" / "demo" / "offers.toml").read_text(), "offers.toml"))
