import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.features import CHANNELS, FEATURES, MAX_CATEGORIES, Profile, Vectoriser, channel_of

CATEGORIES = ["camping", "tea", "books", "toys"]
amounts = st.floats(0, 1e6, width=32)
profiles = st.builds(
    Profile,
    recency=amounts,
    frequency=amounts,
    spend=amounts,
    hour_sin=st.floats(-1, 1, width=32),
    hour_cos=st.floats(-1, 1, width=32),
    channel=st.integers(0, len(CHANNELS) - 1),
    categories=st.dictionaries(st.sampled_from([*CATEGORIES, "unknown"]), st.floats(0, 1e6, width=32), max_size=4),
)


@settings(deadline=None)  # a kernel's first call compiles
@given(st.lists(profiles, max_size=5))
def test_matrix_and_vector_are_the_same_numbers(given_profiles: list[Profile]) -> None:
    known = [*CATEGORIES, "unknown"]
    vectoriser = Vectoriser(CATEGORIES)
    n = len(given_profiles)
    columns = np.array([p[:5] for p in given_profiles], np.float32).reshape(n, 5)
    ids, weights = np.full((n, 6), -1, np.int32), np.zeros((n, 6), np.float32)
    for i, profile in enumerate(given_profiles):
        for j, (name, weight) in enumerate(profile.categories.items()):
            ids[i, j], weights[i, j] = known.index(name), weight
    channel = np.array([p.channel for p in given_profiles], np.int32)
    matrix = vectoriser.matrix(columns, channel, ids, weights, vectoriser.slots(known))
    expected = [[*vectoriser.vector(profile).values()] for profile in given_profiles]
    np.testing.assert_allclose(matrix, np.array(expected).reshape(n, len(vectoriser.names)), rtol=1e-5, atol=1e-7)


@settings(deadline=None)  # a kernel's first call compiles
@given(profiles)
def test_vectors_have_named_bounded_features(profile: Profile) -> None:
    vector = Vectoriser(CATEGORIES).vector(profile)
    assert tuple(vector)[: len(FEATURES)] == FEATURES == tuple(sorted(FEATURES))
    assert all(-1 <= value <= 15 for value in vector.values())
    assert sum(value for name, value in vector.items() if name.startswith("channel:")) == 1
    assert sum(value for name, value in vector.items() if name.startswith("category_share:")) <= 1 + 1e-9


def test_columns_keep_their_meaning_when_categories_are_added() -> None:
    first = Vectoriser().extended({"tea": 1.0, "books": 5.0, "toys": 1.0})
    assert first.categories == ("books", "tea", "toys")
    later = first.extended({"camping": 100.0, "tea": 200.0})
    assert later.categories == ("books", "tea", "toys", "camping")
    assert later.extended({"tea": 1.0}) is later
    full = later.extended({f"c{i:02d}": 1.0 for i in range(40)})
    assert len(full.categories) == MAX_CATEGORIES
    assert full.extended({"late": 9.0}) is full


def test_a_vectoriser_is_rebuilt_from_its_names() -> None:
    made = Vectoriser(CATEGORIES)
    assert Vectoriser.from_names(made.names).categories == made.categories
    with pytest.raises(ValueError, match="not the features"):
        Vectoriser.from_names(["shoe_size", *made.names[1:]])


@pytest.mark.parametrize("categories", [["a", "a"], [str(i) for i in range(17)]])
def test_bad_categories_are_refused(categories: list[str]) -> None:
    with pytest.raises(ValueError, match="at most 16 distinct"):
        Vectoriser(categories)


@pytest.mark.parametrize(
    ("medium", "channel"),
    [(None, "direct"), ("(none)", "direct"), (" Email", "email"), ("CPC", "ads"), ("referral", "other")],
)
def test_channels(medium: str | None, channel: str) -> None:
    assert CHANNELS[channel_of(medium)] == channel
