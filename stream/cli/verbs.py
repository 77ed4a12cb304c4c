"""The verbs by name, what each is for, and where its code is: imported when it is called, not to show or complete it.

With all of them imported, ``rivulet --help`` and each press of the tabulator cost 2.6 s of CPU.
"""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from typing import Any, Final, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group


class Verb(NamedTuple):
    """A verb, or a group of verbs: its name, its code as ``module:attribute``, and the first paragraph of its help."""

    name: str
    code: str
    help: str


VERBS: Final = (
    Verb(
        "worker",
        "stream.cli.worker:worker",
        "Consume events, learn from each and keep every touched user's list fresh in Redis.",
    ),
    Verb(
        "gateway",
        "stream.cli.gateway:gateway",
        "Take events over HTTP and publish them: POST /v1/events, and /v1/rivulet.js for browsers.",
    ),
    Verb(
        "doctor",
        "stream.cli.doctor:doctor",
        "Check broker, topics, Redis, rights, clocks, disk, kernels and libraries; each finding says what to do.",
    ),
    Verb(
        "topics",
        "stream.cli.topics:topics",
        "Create the topics with their partitions and clean-up policies, and show them; existing ones are never"
        " changed.",
    ),
    Verb(
        "publish",
        "stream.cli.publish:publish",
        "Publish recorded events; each is checked first, and the first bad one stops with its line.",
    ),
    Verb(
        "check",
        "stream.cli.check:check",
        "Tell what each line of a file would become, by shape and name, and what would be refused and why.",
    ),
    Verb(
        "offers",
        "stream.cli.offers:offers",
        "Check offers and publish each under its id to topic offers; workers take them over within a second.",
    ),
    Verb(
        "record",
        "stream.cli.record:record",
        "Record a topic: every record's bytes, key, headers, time and place, as JSON Lines in zstd (`zstd -dc`).",
    ),
    Verb(
        "replay",
        "stream.cli.replay:replay",
        "Replay recordings at their own pace, faster, or as fast as the workers keep up.",
    ),
    Verb(
        "republish",
        "stream.cli.republish:republish",
        "Wait until the workers have drained their topics, then publish all neighbours and rank every user again.",
    ),
    Verb(
        "evaluate",
        "stream.cli.evaluate:evaluate",
        "Test, then learn a recording: each event is predicted from what came before it, then learned.",
    ),
    Verb(
        "tune",
        "stream.cli.tune:tune",
        "Search better parameters of a model by successive halving, judged on events the search has not seen.",
    ),
    Verb(
        "compare",
        "stream.cli.compare:compare",
        "Compare two configurations on one recording, with paired intervals; name the users whose lists differ most.",
    ),
    Verb("get", "stream.cli.get:get", "Show a user's recommendations with scores and reasons."),
    Verb(
        "forget",
        "stream.cli.forget:forget",
        "Forget a user: history, profile, lists, and the user's part in what was learned of items. Needs running"
        " workers.",
    ),
    Verb(
        "export",
        "stream.cli.export:export",
        "Print all that is kept of a user: history, profile, segment, consent, and the keys in Redis.",
    ),
    Verb(
        "settings",
        "stream.cli.settings:settings",
        "Print every setting, its value, its source (environment, file or default) and its meaning; no secrets.",
    ),
    Verb(
        "schemas",
        "stream.cli.schemas:schemas",
        "Write a JSON Schema per event and Redis value and the AsyncAPI document of the topics, from the types"
        " themselves.",
    ),
    Verb(
        "compile",
        "stream.cli.compile_:compile_",
        "Compile every kernel into the cache (about a minute once after each update).",
    ),
    Verb(
        "demo",
        "stream.demo.command:demo",
        "Run broker, Redis, worker and a synthetic shop; Ctrl-C ends all of it and leaves nothing behind.",
    ),
    Verb(
        "shop",
        "stream.cli.shop:shop",
        "Publish what the visitors of a synthetic shop do, with its catalogue and offers, until Ctrl-C or SIGTERM.",
    ),
    Verb("snapshot", "stream.cli.snapshot:app", "List, check and delete snapshots; workers may run meanwhile."),
    Verb("catalogue", "stream.cli.catalogue:app", "Look after the catalogue: topic items."),
    Verb(
        "dlq",
        "stream.cli.dlq:app",
        "List, show, send again or drop dead letters: what could not be taken, with its reason and its bytes.",
    ),
)


class Later(TyperCommand):
    """Stands for a verb until it is called."""

    def __init__(self, verb: Verb) -> None:
        super().__init__(verb.name, help=verb.help)
        self._verb = verb

    @cached_property
    def loaded(self) -> Any:
        """The verb, or group of verbs, as typer makes it."""
        module, _, attribute = self._verb.code.partition(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            return get_group(found)
        alone = typer.Typer(add_completion=False)
        alone.command(self._verb.name)(found)
        return get_command(alone)

    def make_context(self, *words: Any, **more: Any) -> Any:
        """Parse a call; the context is the verb's own, and so is all that follows, completion included."""
        return self.loaded.make_context(*words, **more)


class Verbs(TyperGroup):
    """All verbs, none of them imported."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"commands": {verb.name: Later(verb) for verb in VERBS}})
