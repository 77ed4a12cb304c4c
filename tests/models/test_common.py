"""What every model must keep to. A new model is covered the moment it is listed."""

from __future__ import annotations

import copy
import inspect
import pickle
import pkgutil
import random
from collections.abc import Callable, Hashable, Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import pytest
from river.reco.base import Ranker

import models as package
from models.biased_mf import BiasedMF
from models.blend_ranker import BlendRanker
from models.content import ContentBased
from models.item_similarity import ItemSimilarity
from models.popularity import Popularity
from models.rising import Rising
from models.sequential_rules import SequentialRules
from models.session_knn import SessionKNN
from models.tencent_rec import TencentRec
from models.time_aware import TimeAware
from stream.snapshots import SnapshotStore
from tests.plain import equal_arrays


class Model(Protocol):
    """River's ranker, in types that mypy can check (River says ``numbers.Number``)."""

    def learn_one(self, user: Hashable, item: Hashable, y: Any, x: dict[str, Any] | None = None) -> None: ...
    def predict_one(self, user: Hashable, item: Hashable, x: dict[str, Any] | None = None) -> float: ...
    def rank(self, user: Hashable, items: set[Hashable], x: dict[str, Any] | None = None) -> list[Hashable]: ...
    def clone(self) -> Any: ...
    def _get_params(self) -> dict[str, Any]: ...


Make = Callable[[], Model]

MODELS: dict[str, Make] = {
    "biased_mf": lambda: BiasedMF(max_users=40, max_items=50),
    "content": lambda: ContentBased(dimensions=1 << 10, max_users=40, max_items=50),
    "blend": lambda: BlendRanker(blocks=50, max_users=40, max_items=50),
    "item_similarity": lambda: ItemSimilarity(neighbours=10, transitions=5, max_users=40, max_items=50),
    "popularity": lambda: Popularity(half_life_s=3600, max_items=50),
    "sequential_rules": lambda: SequentialRules(rules=10, max_users=40, max_items=50),
    "rising": lambda: Rising(short_s=600, long_s=3600, max_items=50),
    "time_aware": lambda: TimeAware(short_s=600, long_s=3600, max_users=40, max_items=50),
    "tencent_rec": lambda: TencentRec(neighbours=10, max_users=40, max_items=50),
    "session_knn": lambda: SessionKNN(sample=20, neighbours=10, blocks=50, max_sessions=40, max_items=50),
}

models = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


def events(n: int, users: int = 20, items: int = 30, seed: int = 1) -> Iterator[tuple[str, str, int, dict[str, Any]]]:
    chance = random.Random(seed)
    for second in range(n):
        user, item = chance.randrange(users), chance.randrange(items)
        facts = {"title": f"{item % 7} {item % 11}", "category": f"c{item % 5}", "price": 1.0 + item % 13}
        yield f"u{user}", f"i{item}", 1, {"ts": 10 * second, **facts}


def taught(make: Make, n: int = 300) -> Model:
    model = make()
    for event in events(n):
        model.learn_one(*event)
    return model


def answers(model: Model) -> list[Any]:
    items: set[Hashable] = {f"i{n}" for n in range(35)}
    return [
        (user, model.rank(user, items), [model.predict_one(user, item) for item in sorted(items, key=str)])
        for user in ("u0", "u1", "u19", "stranger")
    ]


def rankers() -> Iterator[type]:
    """Every recommender in `models` that is ready for use."""
    for module in pkgutil.iter_modules(package.__path__):
        for _, found in inspect.getmembers(import_module(f"models.{module.name}"), inspect.isclass):
            ready = issubclass(found, Ranker) and not inspect.isabstract(found)
            if ready and found.__module__ == f"models.{module.name}":
                yield found


@pytest.mark.parametrize("ranker", list(rankers()), ids=lambda ranker: ranker.__name__)
def test_every_model_is_listed_above_has_an_example_and_tests_of_its_own(ranker: type) -> None:
    assert ranker in {type(make()) for make in MODELS.values()}
    assert any("learn_one(" in line for line in (ranker.__doc__ or "").splitlines() if ">>>" in line or "..." in line)
    file = ranker.__module__.removeprefix("models.")
    names = {f"test_{file}.py", f"test_{file.removesuffix('_ranker')}.py"}
    assert any((Path(__file__).parent / name).is_file() for name in names)


@models
def test_works_before_learning(make: Make) -> None:
    model = make()
    assert model.predict_one("ann", "tent") == 0
    assert model.rank("ann", {"b", "c", "a"}) == ["a", "b", "c"]


@models
def test_changes_no_input(make: Make) -> None:
    model = make()
    for user, item, y, x in events(50):
        context = dict(x)
        items: set[Hashable] = {"i1", "i2"}
        model.learn_one(user, item, y, context)
        model.predict_one(user, item, context)
        model.rank(user, items, context)
        assert (context, items) == (x, {"i1", "i2"})


@models
def test_reading_leaves_the_state_equal(make: Make) -> None:
    model = taught(make)
    answers(model)  # may make room once
    before = pickle.dumps(model)
    answers(model)
    for n in range(20):
        model.predict_one(f"new{n}", f"unheard{n}")
        model.rank(f"new{n}", {f"unheard{n}"})
    assert pickle.dumps(model) == before


@models
def test_survives_pickle_and_deepcopy_and_learns_on_alike(make: Make) -> None:
    model = taught(make)
    others = [pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
    for other in others:
        assert answers(other) == answers(model)
    for event in events(50, seed=2):
        for each in (model, *others):
            each.learn_one(*event)
    for other in others:
        assert answers(other) == answers(model)


@pytest.mark.parametrize("name", MODELS)
def test_survives_a_snapshot_and_learns_on_alike(name: str, tmp_path: Path) -> None:
    model: Any = taught(MODELS[name])
    other: Any = MODELS[name]()
    if hasattr(model, "forget_one"):
        model.forget_one("u3")
    store = SnapshotStore(tmp_path)
    store.write("model-0", 300, model.arrays())
    snapshot = store.latest("model-0")
    assert snapshot is not None
    other.restore(snapshot.arrays)
    assert equal_arrays(other.arrays(), model.arrays())
    assert answers(other) == answers(model)
    for event in events(50, seed=2):
        for each in (model, other):
            each.learn_one(*event)
    assert answers(other) == answers(model)


@models
def test_a_deepcopy_shares_nothing(make: Make) -> None:
    model = taught(make)
    before = answers(model)
    other = copy.deepcopy(model)
    for event in events(100, seed=3):
        other.learn_one(*event)
    assert answers(model) == before


@models
def test_same_events_give_the_same_answers(make: Make) -> None:
    assert answers(taught(make)) == answers(taught(make))


@models
def test_clones_with_its_parameters(make: Make) -> None:
    model = taught(make)
    clone = model.clone()
    assert clone._get_params() == model._get_params()
    assert clone.predict_one("u0", "i0") == 0


@models
def test_feedback_of_zero_teaches_nothing(make: Make) -> None:
    model = taught(make)
    before = answers(model)
    for user, item, _, x in events(50, seed=4):
        model.learn_one(user, item, 0, {"ts": x["ts"]})
    assert answers(model) == before


@models
def test_ranks_by_decreasing_prediction(make: Make) -> None:
    for user, ranked, _ in answers(taught(make)):
        model = taught(make)
        scores = [float(model.predict_one(user, item)) for item in ranked]
        assert all(a >= b * (1 - 2e-6) for a, b in pairwise(scores))


FORGETFUL = [  # see the README's Privacy
    *("biased_mf", "blend", "content", "item_similarity", "sequential_rules", "session_knn", "tencent_rec"),
    "time_aware",
]


def test_which_models_forget_a_user() -> None:
    assert sorted(name for name, make in MODELS.items() if hasattr(make(), "forget_one")) == FORGETFUL


@pytest.mark.parametrize("name", FORGETFUL)
def test_a_forgotten_user_is_a_stranger_who_may_come_back(name: str) -> None:
    model: Any = taught(MODELS[name])
    for user in ("u0", "u1", "nobody", "u0"):
        model.forget_one(user)
    (_, *gone), (_, *other), _, (_, *stranger) = answers(model)
    assert gone == other == stranger
    for event in events(100, seed=5):
        model.learn_one(*event)
    assert answers(model)[0][1:] != stranger


@pytest.mark.parametrize("name", ["content", "item_similarity", "sequential_rules", "session_knn", "tencent_rec"])
def test_forgetting_leaves_what_the_others_taught(name: str) -> None:
    model: Any = MODELS[name]()
    alone = MODELS[name]()
    for user, item, y, x in events(60):  # few enough for every history
        model.learn_one(user, item, y, x)
        if user != "u7":
            alone.learn_one(user, item, y, x)
    model.forget_one("u7")
    for (_, _, mine), (_, _, theirs) in zip(answers(model), answers(alone), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5, abs=2e-6)


@pytest.mark.parametrize("name", MODELS)
def test_memory_is_bounded(name: str) -> None:
    model = MODELS[name]()
    sizes = []
    for n, (user, item, y, x) in enumerate(events(6_000, users=20_000, items=10_000), 1):
        model.learn_one(user, item, y, x)
        if n % 2_000 == 0:
            sizes.append(len(pickle.dumps(model)))
    assert max(sizes[1:]) <= 1.1 * sizes[0]
