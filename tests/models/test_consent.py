from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.consent import hear
from models.profiles import ANALYTICS, DENIED
from tests.plain import bounded

USERS = 4
grants = st.integers(0, 2)
sayings = st.builds(lambda a, p, o: a | p << 2 | o << 4, grants, grants, grants)
events = st.lists(st.tuples(st.integers(0, USERS - 1), sayings, st.booleans()), max_size=40)


def plain_hear(flags: list[int], stream: list[tuple[int, int, bool]], default: int) -> list[bool]:
    """One event after another, one grant after another."""
    denied = []
    for user, said, counts in stream:
        if not counts:
            denied.append(False)
            continue
        for place in (0, 2, 4):
            grant = (said >> place) & 3
            if grant:
                flags[user] = (flags[user] & ~(3 << place)) | (grant << place)
        denied.append((((flags[user] >> ANALYTICS) & 3) or default) == DENIED)
    return denied


@bounded
@given(
    st.lists(
        st.builds(lambda said, rest: said | rest << 6, sayings, st.integers(0, 3)), min_size=USERS, max_size=USERS
    ),
    events,
    st.sampled_from([0, DENIED]),
)
def test_hearing_equals_the_plain_loop(before: list[int], stream: list[tuple[int, int, bool]], default: int) -> None:
    flags = np.array(before, dtype=np.uint8)
    users = np.array([user for user, _, _ in stream], dtype=np.int32)
    said = np.array([word for _, word, _ in stream], dtype=np.uint8)
    heard = np.array([counts for _, _, counts in stream], dtype=np.bool_)
    assert hear(flags, users, said, heard, default).tolist() == plain_hear(before, stream, default)
    assert flags.tolist() == before  # what is not about consent stays
