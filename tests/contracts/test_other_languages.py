"""The README's examples in Node, PHP and redis-cli give what the Python reader gives, from the same real Redis."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from stream.client import SyncClient
from stream.keys import Keys
from tests.conftest import missing
from tests.patience import PATIENCE_S
from tests.reader_shop import rendered

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
USERS = ["u1", "nobody", "a:b{c}%7B", "7", "tied", "fond"]
WISHES: list[dict[str, Any]] = [
    {},
    {"placement": "cart", "k": 3},
    {"placement": "no such:place", "k": 4, "exclude": ["a", "x"]},
    {"category": "shoes"},
    {"category": "100%", "k": 2},
    {"k": 5, "exclude": ["shoe"]},
    {"placement": "cart", "k": 4, "exclude": ["c", "a", "é:{}%"]},
]
Ask = Callable[[str, str], Any]

NODE = """
import { createClient } from "redis";
import { readFileSync } from "fs";
const { url, prefix, calls } = JSON.parse(readFileSync(0));
const redis = await createClient({ url }).connect();
const found = [];
for (const [user, wish] of calls) found.push(await recommendations(redis, user, { ...wish, prefix }));
console.log(JSON.stringify(found));
await redis.close();
"""
PHP = """
['host' => $host, 'port' => $port, 'prefix' => $prefix, 'calls' => $calls] =
    json_decode(stream_get_contents(STDIN), true);
$redis = new Redis();
$redis->connect($host, $port, 60.0);
$ask = fn ($call) => recommendations($redis, $call[0], ['prefix' => $prefix] + $call[1]);
echo json_encode(array_map($ask, $calls));
"""


def example(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", README, re.S)
    return str(found)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Node with the example and its package."""
    folder = tmp_path_factory.mktemp("node")
    if not (shutil.which("node") and shutil.which("npm")):
        missing("no node and npm: the example in Node is not run")
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), "redis@5"]
    if subprocess.run(install, capture_output=True, timeout=600, check=False).returncode:
        missing("npm cannot install its package redis: the example in Node is not run")
    (folder / "example.mjs").write_text(example("js") + NODE)
    return ["node", str(folder / "example.mjs")]


@pytest.fixture(scope="module")
def php(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """PHP with the example."""
    if not shutil.which("php"):
        missing("no php: the example in PHP is not run")
    if b"redis" not in subprocess.run(["php", "-m"], capture_output=True, check=True).stdout:
        missing("php has no extension redis: the example in PHP is not run")
    file = tmp_path_factory.mktemp("php") / "example.php"
    file.write_text("<?php\n" + example("php") + PHP)
    return ["php", str(file)]


def fill(client: redis.Redis, keys: Keys) -> None:
    lists = {
        keys.recs("u1"): ["a", "gone", "b", "shoe", "12"],
        keys.recs("u1", "cart"): ["c", "a", "é:{}%"],
        keys.recs("a:b{c}%7B"): ["a"],
        keys.recs("7"): [],
        keys.recs("tied"): ["12", "hat", "shoe"],
        keys.recs("fond"): ["hat", "gone", "é:{}%", "s"],
        keys.recs("7", "cart"): ["c"],
        keys.trending(): ["gone", "x", "shoe", "y", "é:{}%"],
        keys.trending(segment=3): ["s", "x"],
        keys.trending(segment=0): ["z"],
        keys.trending(category="shoes"): ["boot", "shoe", "hat"],
        keys.trending(category="hats"): ["cap", "hat"],
        keys.trending(category="tents"): ["tent"],
        keys.trending(category="100%"): ["é:{}%", "b", "pct"],
    }
    for key, items in lists.items():
        client.set(key, rendered(items), ex=3_600)
    details: dict[str, dict[str, Any]] = {
        "gone": {"hidden": True, "category": "100%"},
        "shoe": {"category": "shoes", "title": "Shoe", "price": 9.5},
        "boot": {"category": "shoes"},
        "hat": {"category": "hats"},
        "pct": {"category": "100%"},
        "é:{}%": {"category": "100%", "title": "Ünï"},
        "12": {"title": "Twelve", "category": ""},
        "tent": {"title": "Tent"},
        "bag": {"hidden": True},
    }
    for item, fields in details.items():
        client.set(keys.item(item), json.dumps({"v": 1, **fields}), ex=3_600)
    client.hset(keys.profile("u1"), mapping={"segment": "3"})
    client.hset(keys.profile("tied"), mapping={"segment": "0"})


@pytest.mark.parametrize("language", ["node", "php"])
def test_an_example_gives_what_the_python_reader_gives(
    request: pytest.FixtureRequest, language: str, redis_url: str, topic_prefix: str
) -> None:
    command: list[str] = request.getfixturevalue(language)
    calls = [(user, wish) for user in USERS for wish in WISHES]
    with redis.Redis.from_url(redis_url) as client:
        fill(client, Keys(topic_prefix))
        place = client.connection_pool.connection_kwargs
    address = {"url": redis_url, "host": place["host"], "port": place["port"]}
    sent = json.dumps({**address, "prefix": topic_prefix, "calls": calls})
    done = subprocess.run(command, input=sent.encode(), capture_output=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr.decode()
    with SyncClient(redis_url, prefix=topic_prefix, strict=True, timeout=PATIENCE_S) as reader:
        for (user, wish), theirs in zip(calls, json.loads(done.stdout), strict=True):
            ours = reader.recommendations(user, **wish)
            assert [each["item"] for each in theirs] == ours.items, (user, wish)
            titles = [known and known.title for known in ours.details]
            assert [each.get("title") for each in theirs] == titles, (user, wish)
        assert any(reader.recommendations(user, **wish).items for user, wish in calls)


def test_redis_cli_shows_what_the_readme_says(redis_url: str, topic_prefix: str) -> None:
    if not shutil.which("redis-cli"):
        missing("no redis-cli: its examples are not run")
    with redis.Redis.from_url(redis_url) as client:
        fill(client, Keys(topic_prefix))
    shown: list[list[str]] = []
    for line in re.findall(r"^\$ (redis-cli .*?)(?:  +#.*)?$", README, re.M):
        program, *words = (word.replace("rv:", f"{topic_prefix}:", 1) for word in shlex.split(line))
        done = subprocess.run([program, "-u", redis_url, *words], capture_output=True, text=True, check=True)
        shown.append(done.stdout.splitlines())
    (cart, plain), segment, (of_segment,), (of_category,), (of_all,), (tent, bag) = shown
    lists = (cart, plain, of_segment, of_category, of_all)
    assert [json.loads(found)["items"][0] for found in lists] == ["c", "a", "s", "tent", "gone"]
    assert segment == ["3"]
    assert json.loads(tent)["title"] == "Tent"
    assert '"hidden":true' in bag.replace(" ", "")
