"""What is gathered of profiles for the vectoriser equals the same said in plain Python."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.features import CHANNELS
from models.profiles import CATEGORIES, Profiles
from stream.stages.segmenting import COLUMNS, _gather
from tests.plain import bounded

FIELDS = ("recency", "frequency", "spend", "hour_sin", "hour_cos")


class Person(NamedTuple):
    """A profile: numbers by `FIELDS`, channel as stored (0 = never said), category and weight of each cell."""

    numbers: tuple[float, ...]
    channel: int
    cells: list[tuple[int, float]]


NUMBERS = st.tuples(*(st.floats(-1e6, 1e6, width=32) for _ in FIELDS))
WEIGHTS = st.just(0.0) | st.floats(2**-20, 100, width=32)
CELLS = st.lists(st.tuples(st.integers(0, 50), WEIGHTS), min_size=CATEGORIES, max_size=CATEGORIES)
PEOPLE = st.lists(st.builds(Person, NUMBERS, st.integers(0, len(CHANNELS)), CELLS), min_size=1, max_size=6)


def profiles_of(people: list[Person]) -> Profiles:
    profiles = Profiles()
    profiles.reserve(len(people))
    for user, person in enumerate(people):
        for field, number in zip(FIELDS, person.numbers, strict=True):
            getattr(profiles.arrays, field)[user] = number
        profiles.arrays.channel[user] = person.channel
        profiles.arrays.category[user], profiles.arrays.affinity[user] = zip(*person.cells, strict=True)
    return profiles


@bounded
@given(PEOPLE, st.data())
def test_the_gathered_columns_are_those_of_the_users_asked_for(people: list[Person], data: st.DataObject) -> None:
    users = data.draw(st.lists(st.integers(0, len(people) - 1), max_size=10))
    columns = np.full((len(users), COLUMNS), np.nan, dtype=np.float32)
    channel = np.full(len(users), 99, dtype=np.int32)
    ids = np.full((len(users), CATEGORIES), 99, dtype=np.int32)
    weights = np.full(ids.shape, np.nan, dtype=np.float32)
    _gather(profiles_of(people).arrays, np.array(users, dtype=np.int32), columns, channel, ids, weights)

    asked = [people[user] for user in users]
    assert list(map(tuple, columns.tolist())) == [person.numbers for person in asked]
    assert [CHANNELS[index] for index in channel] == [("direct", *CHANNELS)[person.channel] for person in asked]
    assert weights.tolist() == [[weight for _, weight in person.cells] for person in asked]
    assert ids.tolist() == [[name if weight > 0 else -1 for name, weight in person.cells] for person in asked]
