"""Online matrix factorisation of explicit ratings: River's `BiasedMF`, bounded and safe to read."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from river import optim, reco

from models.evaluation import Stream
from models.kernel import kernel
from models.nesting import part, prefixed
from models.toplist import place, rounded
from models.vocabulary import Vocabulary

FACTORS: Final = 10
RATE: Final = 0.05
PENALTY: Final = 0.02


class BiasedMF(reco.base.Ranker):
    """Predicts ratings: the mean, how high a user rates, how high an item is rated, and how their tastes agree.

    River's model makes parameters for whoever is asked about, so that reading grows it; here only known users and items
    are asked for, and what was touched longest ago is forgotten above a bound. Right for ratings on a scale; wrong for
    clicks, and for the question what a visitor looks at next: it prefers what is liked, not what is near.

    Parameters
    ----------
    n_factors
        Tastes, > 0. More fits finer, and needs more ratings.
    rate
        Step of the stochastic gradient, > 0.
    penalty
        Shrinkage of all parameters towards 0, >= 0.
    max_users, max_items
        Users and items with parameters; those rated longest ago are forgotten first.
    seed
        Of the first tastes, which are drawn. The same seed and ratings give the same model.

    Notes
    -----
    `learn_one` costs about 40 us, `recommend` about 30 us per 1,000 items. Memory: about 500 bytes per user and item.
    A forgotten user's parameters are deleted; the part a user had in the items' shared ones cannot be subtracted.

    Examples
    --------
    >>> model = BiasedMF(seed=1)
    >>> for user, item, stars in [("ann", "Alien", 5), ("ann", "Heat", 5), ("bob", "Heat", 2), ("bob", "Cats", 1)]:
    ...     model.learn_one(user, item, stars)
    >>> model.rank("cyd", {"Heat", "Cats", "Alien"})
    ['Alien', 'Heat', 'Cats']
    >>> model.predict_one("nobody", "nothing")
    3.25

    References
    ----------
    Koren, Bell, Volinsky (2009), "Matrix factorization techniques for recommender systems".
    """

    def __init__(
        self,
        n_factors: int = FACTORS,
        rate: float = RATE,
        penalty: float = PENALTY,
        max_users: int = 100_000,
        max_items: int = 100_000,
        seed: int | None = 0,
    ) -> None:
        super().__init__(seed)
        self.n_factors = n_factors
        self.rate = rate
        self.penalty = penalty
        self.max_users = max_users
        self.max_items = max_items
        self._model = reco.BiasedMF(
            n_factors=n_factors,
            bias_optimizer=optim.SGD(rate),
            latent_optimizer=optim.SGD(rate),
            l2_bias=penalty,
            l2_latent=penalty,
            latent_initializer=optim.initializers.Normal(mu=0.0, sigma=0.1, seed=seed),
        )

    def learn_one(self, user: Hashable, item: Hashable, y: Any, x: dict[str, Any] | None = None) -> None:
        """Learn a rating above 0; others say nothing. Ids are what their text says."""
        if not y > 0:
            return
        name, title, model = str(user), str(item), self._model
        model.learn_one(name, title, float(y))  # type: ignore[no-untyped-call]  # River's
        for key, biases, latents, most in (
            (name, model.u_biases, model.u_latents, self.max_users),
            (title, model.i_biases, model.i_latents, self.max_items),
        ):
            biases[key], latents[key] = biases.pop(key), latents.pop(key)  # last in order = rated last
            if len(biases) > most:
                oldest = next(iter(biases))
                del biases[oldest], latents[oldest]

    def predict_one(self, user: Hashable, item: Hashable, x: dict[str, Any] | None = None) -> Any:
        """Expected rating; of an unknown user or item, what is known without. 0 before the first rating."""
        name, title, model = str(user), str(item), self._model
        mean = float(model.global_mean.get()) + model.u_biases.get(name, 0.0) + model.i_biases.get(title, 0.0)
        if name in model.u_latents and title in model.i_latents:
            mean += float(model.u_latents[name] @ model.i_latents[title])
        return mean

    def rank(self, user: Hashable, items: set[Hashable], x: dict[str, Any] | None = None) -> list[Hashable]:
        """Items by decreasing expected rating, equal ones by their text."""
        return sorted(items, key=lambda item: (-round(self.predict_one(user, item), 6), str(item)))

    def recommend(self, user: Hashable, k: int = 20) -> list[tuple[str, float]]:
        """At most k (item, expected rating) pairs of the rated items, best first, ties by item id."""
        ranked = [(title, float(self.predict_one(user, title))) for title in map(str, self._model.i_biases)]
        return sorted(ranked, key=lambda cell: (-round(cell[1], 6), cell[0]))[:k]

    def forget_one(self, user: Hashable) -> None:
        """Delete a user's parameters."""
        self._model.u_biases.pop(str(user), None)
        self._model.u_latents.pop(str(user), None)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The parameters of users and items, and the mean, as arrays."""
        mean = self._model.global_mean
        flat: dict[str, NDArray[Any]] = {"mean": np.array([mean.n, mean.get()], dtype=np.float64)}
        sides = (("users", self._model.u_biases, self._model.u_latents),)
        for name, biases, latents in (*sides, ("items", self._model.i_biases, self._model.i_latents)):
            ids = Vocabulary(max(len(biases), 1))
            ids.encode([str(key) for key in biases])
            numbers = {"bias": np.array(list(biases.values()), dtype=np.float64)}
            numbers["latent"] = np.array([latents[key] for key in biases]).reshape(len(biases), self.n_factors)
            flat |= prefixed(name, ids.arrays() | numbers)
        return flat

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over the parameters that `arrays` described. First tastes of later users are drawn anew."""
        count, mean = arrays["mean"].tolist()
        self._model.global_mean.n, self._model.global_mean._mean = count, mean
        model = self._model
        for name, biases, latents in (
            ("users", model.u_biases, model.u_latents),
            ("items", model.i_biases, model.i_latents),
        ):
            mine = part(arrays, name)
            ids = Vocabulary.from_arrays(mine)
            biases.clear()
            latents.clear()
            for key, bias, latent in zip(
                ids.texts(range(len(ids))), mine["bias"].tolist(), mine["latent"], strict=True
            ):
                biases[key], latents[key] = bias, latent.copy()


def run(stream: Stream, k: int) -> NDArray[np.int32]:
    """Test, then learn a whole stream: the evaluator's matrix factorisation, of streams with ratings.

    Parameters
    ----------
    stream
        The stream; events without a rating teach nothing.
    k
        Length of the lists.

    Returns
    -------
    NDArray[np.int32]
        One row of item indices per scored event, best first, -1 where the list is shorter.
    """
    out = np.full((int(stream.scored.sum()), k), -1, dtype=np.int32)
    if not len(stream.rating):
        return out
    model, items = BiasedMF(), len(stream.item_ids)
    biases, latents, met = np.zeros(items), np.zeros((items, model.n_factors)), np.zeros(items, dtype=np.bool_)
    inner, best, queries = model._model, np.empty(k, dtype=np.int64), 0
    for n, (key, item, rating) in enumerate(zip(stream.key.tolist(), stream.item.tolist(), stream.rating, strict=True)):
        name, title = str(key), str(item)
        if stream.scored[n]:
            taste = inner.u_latents.get(name, np.zeros(model.n_factors))
            scores = float(inner.global_mean.get()) + biases + latents @ taste
            _list_best(scores, met, int(stream.item[stream.previous[n]]), stream.rank, best, out[queries])
            queries += 1
        if stream.learned[n] and rating > 0:
            model.learn_one(name, title, float(rating))
            biases[item], latents[item], met[item] = inner.i_biases[title], inner.i_latents[title], True
    return out


@kernel
def _list_best(
    scores: NDArray[np.float64],
    met: NDArray[np.bool_],
    current: int,
    rank: NDArray[np.int32],
    best: NDArray[np.int64],
    out: NDArray[np.int32],
) -> None:
    filled = 0
    for item in range(len(scores)):
        if met[item] and item != current:
            filled = place(out, best, filled, item, rounded(scores[item]), rank)
