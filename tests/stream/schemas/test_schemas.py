"""The files say what the types say, follow the official schemas of their kind, and fit what is sent and written.

``asyncapi-3.0.0.json.gz`` is ``schemas/3.0.0-without-$id.json`` of the npm package @asyncapi/specs 6.11.1, unchanged
(Apache-2.0, the AsyncAPI Initiative).
"""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator
from referencing import Registry, Resource

from models.offers import load_offers
from stream import schemas
from stream.decoding import decode
from stream.keys import parse_list
from stream.local import LocalPipeline, LocalRecord
from stream.memory_store import MemoryStore
from stream.schemas.generation import ASYNCAPI, documents, rendered
from stream.topics import layout
from tests.records import T0_US, event

FOLDER = Path(schemas.__path__[0])
DOCUMENTS = documents()
SCHEMAS = {name: document for name, document in DOCUMENTS.items() if name != ASYNCAPI}
REGISTRY: Registry[Any] = Registry().with_resources(
    (name, Resource.from_contents(document)) for name, document in SCHEMAS.items()
)
GOLDEN = Path(__file__).parents[1] / "adapters" / "golden"
OFFERS = '[[offers]]\nid = "o"\nitems = ["tent"]\nvalue = 6.0\nvalid_until = 2027-01-01T00:00:00Z\n'


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(SCHEMAS[f"{name}.schema.json"], registry=REGISTRY)


def test_files_are_what_the_types_give() -> None:
    """After a change of a type: ``rivulet schemas stream/schemas``."""
    assert {path.name for path in FOLDER.glob("*.json")} == set(DOCUMENTS)
    for name, document in DOCUMENTS.items():
        assert (FOLDER / name).read_bytes() == rendered(document), name


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_follow_the_official_meta_schema(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])


def test_asyncapi_follows_the_official_schema() -> None:
    official = json.loads(gzip.decompress(Path(__file__).with_name("asyncapi-3.0.0.json.gz").read_bytes()))
    errors = [error.message for error in Draft7Validator(official).iter_errors(DOCUMENTS[ASYNCAPI])]
    assert errors == []
    broken = {**DOCUMENTS[ASYNCAPI], "channels": {"events": {"bindings": {"kafka": {"partitions": "four"}}}}}
    assert not Draft7Validator(official).is_valid(broken)


def references(part: Any) -> list[str]:
    if isinstance(part, dict):
        found = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return found + [reference for inner in part.values() for reference in references(inner)]
    return [reference for inner in part for reference in references(inner)] if isinstance(part, list) else []


def test_asyncapi_names_every_topic_and_nothing_that_is_not_there() -> None:
    document = DOCUMENTS[ASYNCAPI]
    found = {
        channel["address"]: channel["bindings"]["kafka"]["partitions"] for channel in document["channels"].values()
    }
    assert found == {topic.name: topic.partitions for topic in layout()}
    for reference in references(document):
        file, _, path = reference.partition("#")
        part: Any = SCHEMAS[file] if file else document
        for step in path.strip("/").split("/") if path else ():
            part = part[step]
        assert part


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 5, -1.5, 1e13, "", "a", "x" * 257, "ü" * 256, [], {}, [{}], [{"item_id": "a"}], [{"item_id": ""}]]
)
FIELDS = [
    "event_name",
    "event_id",
    "event_timestamp",
    "user_id",
    "user_pseudo_id",
    "items",
    "item_id",
    "value",
    "other",
]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), ODD, max_size=3))
def test_the_schema_of_events_accepts_what_the_types_accept(fields: dict[str, Any]) -> None:
    value = event("u", "tent") | fields
    (reason, *_) = [
        dead.reason for dead in decode([LocalRecord(0, T0_US // 1000, None, msgspec.json.encode(value))]).dead
    ] or [""]
    assert validator("event").is_valid(value) == (reason not in ("schema", "missing_user")), reason


def test_what_other_shapes_become_fits_the_schema() -> None:
    becoming = [
        made
        for file in GOLDEN.glob("*.json")
        for case in json.loads(file.read_text())["cases"]
        for made in case["becomes"]
    ]
    assert becoming
    for made in becoming:
        validator("event").validate(made)
    validator("batch").validate({"events": becoming})
    validator("batch").validate(becoming)
    assert not validator("batch").is_valid([])
    assert not validator("batch").is_valid({"events": [{"event_name": "x"}]})
    validator("control").validate({"control": "rank_all"})
    (offer,) = load_offers(OFFERS, "offers.toml")
    validator("offer").validate(json.loads(msgspec.json.encode(offer)))


def test_what_is_written_to_redis_fits_the_schemas() -> None:
    store = MemoryStore()

    async def run() -> None:
        pipeline = LocalPipeline(store, offers=load_offers(OFFERS, "offers.toml"))
        made = [
            event(
                f"u{n % 40}",
                f"{'tent' if n % 2 else 'pan'}{n % 7}",
                at=n,
                name="purchase" if n % 9 == 0 else "view_item",
            )
            for n in range(3_000)
        ]
        made += [event("u1", "tent", at=3_000)]
        await pipeline.feed((e["user_id"].encode(), e["event_timestamp"] // 1000, msgspec.json.encode(e)) for e in made)
        await pipeline.republish()

    asyncio.run(run())
    seen = set()
    for key, value in store.items():
        kind = schema_of(key.decode())
        if kind is None:
            continue
        seen.add(kind)
        if isinstance(value, dict):
            validator(kind).validate({name.decode(): text.decode() for name, text in value.items()})
        else:
            validator(kind).validate(json.loads(value))
            if kind == "redis-list":
                parse_list(value)
    assert seen == {"redis-list", "redis-offers", "redis-profile", "redis-segment"}


def schema_of(key: str) -> str | None:
    """Schema of a key's value; neighbours for other workers have none."""
    _, kind, *_ = key.replace("}", "").split(":")
    if kind.startswith("{"):
        kind = key.split(":")[2]
    kinds = {"recs": "list", "similar": "list", "trending": "list", "offers": "offers", "profile": "profile"}
    kinds |= {"segment": "segment", "meta": "meta"}
    return f"redis-{kinds[kind]}" if kind in kinds else None
