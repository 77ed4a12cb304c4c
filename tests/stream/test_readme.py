"""The README's tables say what the code says."""

from __future__ import annotations

import dataclasses
import importlib
import re
import shlex
import tomllib
from operator import attrgetter
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from pydantic import SecretStr
from redis.asyncio.connection import parse_url

from models.offers import load_offers
from models.placement import Placement, load_placements
from stream.adapters import LetterReason, Shape, metarank, recognition, segment, snowplow
from stream.app import Worker
from stream.catalogue import CatalogueItem
from stream.client import Client
from stream.decoding import decode
from stream.events import KIND_WEIGHTS, MAX_ITEMS, MAX_RECORD_BYTES, Event, Item
from stream.keys import Keys
from stream.redis_address import redis_address
from stream.settings import Settings
from stream.stages.serving import decode_served
from stream.topics import layout
from stream.web.metrics import DOOR_FAMILIES, FAMILIES, Family, SeenCollector
from tests.records import record
from tests.tree import COMMAND, VERBS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.S | re.M)
    assert found, title
    return found[1]


def rows(title: str) -> list[list[str]]:
    lines = [line for line in section(title).splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def settings_table() -> str:
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = "" if default is None or "password" in name else str(default)
        lines.append(f"| `RIVULET_{name.upper()}` | {f'`{shown}`' if shown else '-'} | {field.description} |")
    return "\n".join(lines)


def test_settings() -> None:
    assert settings_table() in section("Settings")


EVERY_FAMILY: tuple[Family[Any], ...] = (*FAMILIES, *DOOR_FAMILIES)


def metrics_table() -> str:
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for family in EVERY_FAMILY:
        kind = family.kind("x", "").type
        name = family.name + ("_total" if kind == "counter" else "")
        labels = " ".join(f"`{label}`" for label in family.labels) or "-"
        lines.append(f"| `{name}` | {kind} | {labels} | {family.meaning} |")
    return "\n".join(lines)


def test_metrics() -> None:
    assert metrics_table() in section("Health and metrics")


def test_every_metric_can_be_read_of_a_worker_that_has_not_begun() -> None:
    worker = Worker(Settings(web_port=0))
    collectors = SeenCollector(FAMILIES, worker), SeenCollector(DOOR_FAMILIES, worker.door)
    found = [metric.name for collector in collectors for metric in collector.collect()]
    assert found == [family.name for family in EVERY_FAMILY]


def test_commands() -> None:
    assert [row[0].strip("`").split()[1] for row in rows("Commands")] == list(COMMAND.commands)


def console_lines() -> list[str]:
    """Calls of ``rivulet`` in the README's consoles, without what the shell does around them."""
    blocks = re.findall(r"```console\n(.*?)```", README, re.S)
    lines = [line for block in blocks for line in re.findall(r"^\$ (.*)$", block, re.M)]
    calls = [re.sub(r"\s+(#.*|&|> \S+)$", "", re.sub(r"  +# .*$", "", line)).strip() for line in lines]
    return [call[call.index("rivulet ") :] for call in calls if re.search(r"(^|[|&/] ?)rivulet ", call)]


@pytest.mark.parametrize("line", console_lines())
def test_commands_in_consoles_are_understood(line: str) -> None:
    _, *words = shlex.split(line)
    path = next(path for path in VERBS if tuple(words[: len(path)]) == path)
    assert not VERBS[path].make_context(line, words[len(path) :]).args


def test_event_fields() -> None:
    documented = {row[0].strip("`") for row in rows("Events")}
    assert documented == {field.encode_name for field in msgspec.structs.fields(Event)}
    items = next(row[3] for row in rows("Events") if row[0] == "`items`")
    assert set(re.findall(r"`(\w+)`", items)) == {field.encode_name for field in msgspec.structs.fields(Item)}


def test_event_weights() -> None:
    sentence = section("Events").split("Weights by event name:")[1].split(".\n")[0].split(". All")[0]
    documented: dict[str, float] = {}
    for part in re.split(r";", sentence):
        weight = float(re.findall(r"(?<![\w`])(\d+(?:\.\d+)?)(?![\w`])", part)[0])
        documented |= dict.fromkeys(re.findall(r"`(\w+)`", part), weight)
    assert documented == {name: weight for name, weight in KIND_WEIGHTS.items() if weight > 0}


GOOD = {"event_name": "view_item", "user_id": "u"}
REFUSED: dict[str, Any] = {  # one value for each reason
    "empty": [],
    "too_large": GOOD | {"event_params": {"more": "x" * MAX_RECORD_BYTES}},
    "not_json": b"{",
    "unknown_shape": "view_item",
    "too_many": GOOD | {"items": [{"item_id": "i"}] * (MAX_ITEMS + 1)},
    "unmapped": {"type": "group", "userId": "u"},
    "schema": GOOD | {"item_id": 7},
    "missing_user": {"event_name": "view_item"},
    "id_invalid": {"event_name": "view_item", "user_id": "\n"},
    "time_absurd": GOOD | {"event_timestamp": 1},
}


def test_dead_letter_reasons() -> None:
    text = section("Events").split("Reasons:")[1].split("Duplicates")[0]
    documented = re.findall(r"`(\w+)`", text)
    assert sorted(documented) == sorted(get_args(LetterReason)) == sorted(REFUSED)


@pytest.mark.parametrize("reason", REFUSED)
def test_every_dead_letter_reason_is_given(reason: str) -> None:
    assert [letter.reason for letter in decode([record(0, REFUSED[reason])]).dead] == [reason]


def test_shapes() -> None:
    text = section("Shapes you already send")
    shapes = {found.name for found in vars(recognition).values() if isinstance(found, Shape)}
    assert {row[0].strip("`") for row in rows("Shapes you already send")} >= shapes
    for ours in segment.NAMES.values():
        assert f"-> `{ours}`" in text, ours
    for names in (snowplow.NAMES, metarank.NAMES):
        for theirs, ours in names.items():
            assert f"{theirs} -> `{ours}`" in text, theirs


def test_topics() -> None:
    documented = {row[0].strip("`"): row[1:3] for row in rows("Topics")}
    assert set(documented) == {topic.name for topic in layout()}
    for topic in layout(7, 9):
        count = {"P (4)": 7, "P": 7, "Q (4)": 9}.get(documented[topic.name][0]) or int(documented[topic.name][0])
        assert count == topic.partitions, topic.name
        assert documented[topic.name][1] == topic.config["cleanup.policy"], topic.name


def test_redis_keys() -> None:
    text = section("Redis keys")
    keys = Keys("rv")
    made = [
        keys.recs("U"),
        keys.recs("U", "P"),
        keys.offers("U"),
        keys.profile("U"),
        keys.privacy("U"),
        keys.similar("I"),
        keys.trending(),
        keys.trending(category="C"),
        keys.trending(segment=0),
        keys.segment(0),
        keys.meta,
        keys.neighbours("I"),
        keys.item("I"),
    ]
    for key in made:
        pattern = re.sub(r"\{U\}", "{<user>}", key.decode())
        for short, long in ((":P", ":<placement>"), (":I", ":<item>"), (":C", ":<c>"), (":0", ":<n>")):
            pattern = re.sub(rf"{short}$", long, pattern)
        assert f"`{pattern}`" in text, pattern


def test_catalogue_fields() -> None:
    documented = {name for row in rows("Catalogue") for name in re.findall(r"`(\w+)`", row[0])}
    assert documented == {field.encode_name for field in msgspec.structs.fields(CatalogueItem)}


def test_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["demo"]]
    text = section("Dependencies")
    for requirement in wanted:
        assert re.split(r"[\[<>=]", requirement)[0] in text, requirement


def test_nobody_is_told_to_install_a_stranger() -> None:
    """The package index has a rivulet that is not this one: only what lies in the folder has this name."""
    for file in (ROOT / "README.md", *(ROOT / "stream").rglob("*.py")):
        assert not re.search(r"pip\s+install\s+'?rivulet", file.read_text(encoding="utf-8")), file


def test_offers_example() -> None:
    example = section("Offers").split("```toml\n")[1].split("```")[0]
    (offer,) = load_offers(example, "README.md")
    assert offer.id == "night-out"


def test_readers_take_the_address_with_login_and_ca() -> None:
    (address,) = re.findall(r"`(rediss://\S+)`", section("Readers"))
    Client(address)
    said = Settings(redis="rediss://cache:6380/0", redis_username="frontend", redis_password=SecretStr("PASSWORD"))
    given = {"username": "frontend", "password": "PASSWORD", "ssl_ca_certs": "/etc/rivulet/ca.pem"}
    assert parse_url(address) == parse_url(redis_address(said)) | given


def test_placements() -> None:
    documented = {row[0].strip("`"): row[1].strip("`") for row in rows("Placements")}
    defaults = {field.name: field.default for field in dataclasses.fields(Placement)}
    shown = {name: {None: "-", dataclasses.MISSING: "-", (): "none"}.get(value) for name, value in defaults.items()}
    assert documented == {name: shown[name] or str(value).removesuffix(".0") for name, value in defaults.items()}


def test_placements_examples() -> None:
    text = section("Placements")
    placements = load_placements(text.split("```toml\n")[1].split("```")[0], "README.md")
    assert [placement.name for placement in placements] == ["home", "cart"]
    served = decode_served(text.split("```json\n")[1].split("```")[0].encode())
    assert [served.ids[item] for item in served.lists[0].items] == ["tent", "mug", "bag"]


@pytest.mark.parametrize(("name", "path"), re.findall(r"`([\w.]+)` in `((?:stream|models)/[\w/]+\.py)`", README))
def test_named_functions_are_in_the_named_files(name: str, path: str) -> None:
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    function = attrgetter(name)(module)
    assert (function.__module__, function.__qualname__) == (module.__name__, name)


def test_the_way_of_an_event_names_a_function_in_each_row() -> None:
    assert all(
        re.fullmatch(r"`[\w.]+` in `stream/[\w/]+\.py`", function) for _, function, _ in rows("The way of an event")
    )
