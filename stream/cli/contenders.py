"""What evaluate, tune and compare share: the models by name, and a recording made ready for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress, TextColumn

from models.evaluation import Stream, prepare
from models.text_features import Facts
from stream.cli.showing import showing
from stream.errors import BadInputError
from stream.events import KIND_WEIGHTS, KINDS
from stream.item_tables import read_facts, table_beside
from stream.recordings import Recording, read_table

CONTENDERS: Final = {
    "covisit": "models.item_similarity",
    "sknn": "models.session_knn",
    "popularity": "models.popularity",
    "sequential_rules": "models.sequential_rules",
    "blend": "models.blend_ranker",
}
SINGLES: Final = {  # more models, each alone; see `NEEDS`
    "tencent_rec": "models.tencent_rec",
    "time_aware": "models.time_aware",
    "biased_mf": "models.biased_mf",
    "content": "models.content",
    "content_ahead": "models.content:run_ahead",
    "blend_ahead": "models.blend_ranker:run_ahead",
}
NEEDS: Final = {
    "content": "a catalogue",
    "content_ahead": "a catalogue",
    "blend_ahead": "a catalogue",
    "blend.content": "a catalogue",
    "biased_mf": "ratings",
}
PARTS: Final = {f"blend.{part}": part for part in ("covisit", "transition", "sessions", "walk", "repeat", "content")}
KNOWN: Final = {**CONTENDERS, **SINGLES, **dict.fromkeys(PARTS, CONTENDERS["blend"])}
BY_PARTITION: Final = {"sknn", "blend", *PARTS}  # what visitors of one partition teach, those of others do not see


@dataclass(frozen=True, slots=True)
class Loaded:
    """A recording, its catalogue (if there is one), and what each of its events weighs and rates."""

    file: str
    recording: Recording
    facts: list[Facts]

    def stream(self, start: float = 0.8, *, frozen: bool = False, until: float = 1.0) -> Stream:
        """The first `until` of it, as `models.evaluation.prepare` makes it."""
        r, end = self.recording, int(until * len(self.recording))
        kind = np.array([KINDS.get(name, 0) for name in r.kinds], dtype=np.uint8)[r.kind[:end]]
        weight = np.array(list(KIND_WEIGHTS.values()), dtype=np.float32)[kind]
        named = np.array([bool(session) for _, session in r.visitors], dtype=np.bool_)[r.key[:end]]
        stars = r.kind == r.kinds.index("rate") if "rate" in r.kinds else np.zeros(0, dtype=np.bool_)
        rating = np.where(stars, np.nan_to_num(r.value), 0).astype(np.float32)[:end] if stars.any() else None
        columns = (r.key[:end], r.item[:end], r.ts_ms[:end] // 1000, weight, r.item_ids)
        return prepare(*columns, start, frozen=frozen, facts=self.facts, rating=rating, kind=kind, named=named)

    def visitors(self, stream: Stream) -> NDArray[np.str_]:
        """Whose each scored event is: the user's with all his sessions, or the session's where no user is named."""
        names = np.array([user or session for user, session in self.recording.visitors], dtype=np.str_)
        return names[stream.key[stream.scored]]


def load(file: str, items: str | None, progress: Progress) -> Loaded:
    """Read a recording and the catalogue that is named, or lies beside it."""
    task = progress.add_task("reading", total=None)
    recording = read_table(file, lambda rows: progress.update(task, description=f"reading {rows:,} rows"))
    catalogue = items or table_beside(file)
    facts = read_facts(catalogue, recording.item_ids) if catalogue else []
    progress.update(task, description=f"{len(recording):,} rows read", total=1, completed=1)
    return Loaded(file, recording, facts)


def steps() -> Progress:
    """A line for each step that takes its time."""
    return showing(TextColumn("{task.description}"))


def run_of(name: str) -> Callable[..., NDArray[np.int32]]:
    """The function that runs a model over a stream. Its module is imported here: other verbs need none of them."""
    if name not in KNOWN:
        raise BadInputError(f"there is no model {name!r}; choose from {', '.join(KNOWN)}")
    module, _, function = KNOWN[name].partition(":")
    run: Callable[..., NDArray[np.int32]] = getattr(import_module(module), function or "run")
    return partial(run, part=PARTS[name]) if name in PARTS else run


def require(name: str, loaded: Loaded, stream: Stream) -> None:
    """Refuse a model that does not find in a recording what it needs."""
    if not able(name, stream):
        raise BadInputError(f"{loaded.file}: {name} needs {NEEDS[name]}, which it does not have")


def able(name: str, stream: Stream) -> bool:
    """Whether a model finds in a recording what it needs."""
    has = {"a catalogue": bool(stream.facts), "ratings": len(stream.rating) > 0}
    return has.get(NEEDS.get(name, ""), True)
