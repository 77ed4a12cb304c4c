"""JSON Schemas and AsyncAPI from the types and topic layouts that the code itself uses, so that neither can drift.

A record that is not JSON (internal topics) has no payload schema; Redis hashes, which have no type in the code, are
described by hand here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from models import offers as offer_files
from stream import keys
from stream.answers import Exported, Forgotten
from stream.catalogue import CatalogueItem
from stream.events import Control, Event, Request
from stream.stages.serving import Served
from stream.topics import Topic, layout

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
FORMAT: Final = "application/schema+json;version=draft-2020-12"
ASYNCAPI: Final = "asyncapi.json"

Schema = dict[str, Any]

_TYPES: Final[dict[str, tuple[Any, str]]] = {
    "event": (Event, "One thing a visitor did: a record of topic events, or an element of a batch"),
    "control": (Control, "A control record of topic events"),
    "request": (Request, "A record of topic privacy"),
    "item": (CatalogueItem, "A record of topic items"),
    "offer": (offer_files.Offer, "A record of topic offers"),
    "served": (Served, "A record of topic served: lists that were written"),
    "redis-list": (keys.Recommendations, "Value of the keys recs, similar and trending"),
    "redis-item": (keys.ItemDetails, "Value of the key item"),
    "redis-offers": (keys.Offers, "Value of the key offers"),
    "redis-privacy": (Forgotten | Exported, "Value of the key privacy"),
}
_NOT_IN_REDIS: Final = ("source", "details", "fault")  # set by readers

_WHOLE: Final = {"type": "string", "pattern": "^-?[0-9]+$"}
_NUMBER: Final = {"type": "string", "pattern": "^-?[0-9.]+(e[+-]?[0-9]+)?$"}
_HASHES: Final[dict[str, Schema]] = {
    "redis-profile": {
        "title": "Fields of the hash profile, written when segment or consent changes, else hourly at most",
        "required": ["segment", "last_ts", "events", "value", "consent"],
        "properties": {
            "segment": {
                **_WHOLE,
                "description": "Number of the segment; -1 before there are any",
            },
            "last_ts": {**_WHOLE, "description": "Time of the newest event, ms UTC"},
            "events": {**_WHOLE, "description": "Events learned"},
            "value": {**_NUMBER, "description": "Money spent, in the shop's currency; counts half after 14 days"},
            "consent": {**_WHOLE, "description": "Two bits for each grant: 1 granted, 2 denied, 0 not said"},
        },
        "additionalProperties": False,  # else a new field would be missed here
    },
    "redis-segment": {
        "title": "Fields of the hash segment",
        "required": ["size", "label"],
        "properties": {
            "size": {**_WHOLE, "description": "Samples seen"},
            "label": {"type": "string", "description": "What tells the segment from the others"},
        },
        "additionalProperties": {**_NUMBER, "description": "The centroid, in original units by feature name"},
    },
    "redis-meta": {
        "title": "Fields of the hash meta",
        "properties": {"contract": {**_WHOLE, "description": "Version of this contract"}},
        "additionalProperties": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "Facts of a shard (<topic>-<partition>) or of a worker (worker-<pid>@<host>);"
            " 1: the shard has been owned (owned-<topic>-<partition>)",
        },
    },
}

_HEADERS: Final = ("reason", "detail", "topic", "partition", "offset", "index", "timestamp")
_SENT: Final = frozenset(("models", "covisits", "global", "served", "messages", "events.dlq"))
_READ: Final = frozenset(("events", "items", "offers", "models", "covisits", "global", "privacy"))
_PAYLOADS: Final[Mapping[str, tuple[str, ...]]] = {
    "events": ("event", "batch", "control"),
    "items": ("item",),
    "offers": ("offer",),
    "privacy": ("request",),
    "served": ("served",),
}
_KEYS: Final[Mapping[str, str]] = {
    "events": "Canonical user: user_id, else user_pseudo_id; partitioned by murmur2",
    "items": "Item id",
    "offers": "Offer id",
    "privacy": "The user whom the request is about",
    "events.dlq": "Key of the refused record",
}


def documents() -> dict[str, Schema]:
    """Every document by its file name."""
    schemas = {name: _of_type(name, made, title) for name, (made, title) in _TYPES.items()}
    schemas["batch"] = _batch()
    schemas |= {name: {"$schema": DRAFT, "type": "object", **body} for name, body in _HASHES.items()}
    return {f"{name}.schema.json": schema for name, schema in sorted(schemas.items())} | {ASYNCAPI: asyncapi()}


def rendered(document: Schema) -> bytes:
    """A document as it is written to its file."""
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def _of_type(name: str, made: Any, title: str) -> Schema:
    (reference,), parts = msgspec.json.schema_components([made], ref_template="#/$defs/{name}")
    for part in parts.values():
        part["description"] = part.get("description", "").split("\n\n")[0].replace("``", "")
    if name == "event":
        parts["Event"]["anyOf"] = [_has("user_id"), _has("user_pseudo_id")]
    if name == "redis-list":
        for field in _NOT_IN_REDIS:
            del parts["Recommendations"]["properties"][field]
        del parts["ItemDetails"]
    return {"$schema": DRAFT, "title": title, **reference, "$defs": parts}


def _has(field: str) -> Schema:
    return {"required": [field], "properties": {field: {"type": "string"}}}


def _batch() -> Schema:
    events = {"type": "array", "minItems": 1, "items": {"$ref": "event.schema.json"}}
    envelope = {"type": "object", "required": ["events"], "properties": {"events": events}}
    return {"$schema": DRAFT, "title": "Several events in one record of topic events", "oneOf": [events, envelope]}


def asyncapi() -> Schema:
    """The topics as an AsyncAPI 3.0 document; partition counts are the defaults."""
    topics = layout()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Rivulet",
            "version": str(keys.CONTRACT_VERSION),
            "description": "Topics of one installation. Values that are not JSON are internal and may change.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {_id(topic): _channel(topic) for topic in topics},
        "operations": dict(_operations(topics)),
        "components": {"messages": {name: _message(name) for names in _PAYLOADS.values() for name in names}},
    }


def _id(topic: Topic) -> str:
    return topic.name.replace(".", "_")


def _channel(topic: Topic) -> Schema:
    config: Schema = {
        name: [value] if name == "cleanup.policy" else int(value) if value.isdigit() else value
        for name, value in topic.config.items()
    }
    bindings = {"partitions": topic.partitions, "topicConfiguration": config, "bindingVersion": "0.5.0"}
    messages = {name: {"$ref": f"#/components/messages/{name}"} for name in _PAYLOADS.get(topic.name, ())}
    return {
        "address": topic.name,
        "description": topic.purpose,
        "messages": messages or {"record": _opaque(topic)},
        "bindings": {"kafka": bindings},
    }


def _message(name: str) -> Schema:
    topic = next(topic for topic, names in _PAYLOADS.items() if name in names)
    payload = {"schemaFormat": FORMAT, "schema": {"$ref": f"{name}.schema.json"}}
    return {"name": name, "payload": payload, **({"bindings": _key(topic)} if topic in _KEYS else {})}


def _opaque(topic: Topic) -> Schema:
    """A record whose value is not JSON of ours: a dead letter's original bytes, or an internal layout."""
    message: Schema = {"contentType": "application/octet-stream"}
    if topic.name in _KEYS:
        message["bindings"] = _key(topic.name)
    if topic.name == "events.dlq":
        text = {"type": "string"}
        message["summary"] = "The refused value as it was sent; the headers say why and where"
        message["headers"] = {
            "type": "object",
            "required": list(_HEADERS),
            "properties": dict.fromkeys(_HEADERS, text),
        }
    return message


def _key(topic: str) -> Schema:
    return {"kafka": {"key": {"type": "string", "description": _KEYS[topic]}, "bindingVersion": "0.5.0"}}


def _operations(topics: tuple[Topic, ...]) -> Iterator[tuple[str, Schema]]:
    """What Rivulet does with each topic, seen from Rivulet."""
    for topic in topics:
        for action, names in (("receive", _READ), ("send", _SENT)):
            if topic.name in names:
                channel = {"$ref": f"#/channels/{_id(topic)}"}
                yield f"{action}_{_id(topic)}", {"action": action, "channel": channel}
