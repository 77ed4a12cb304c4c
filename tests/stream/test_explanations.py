"""Reasons as sentences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.ranking import REASONS
from stream.errors import ConfigurationError
from stream.explanations import ENGLISH, explain, origins, with_templates


@given(st.none() | st.text(), st.text(), st.dictionaries(st.text(), st.text()))
def test_every_reason_has_a_sentence(origin: str | None, model: str, titles: dict[str, str]) -> None:
    """Whatever model made it, and whatever braces a title has."""
    sentence = explain((origin, model), titles)
    assert sentence
    if origin is not None and "{origin}" in ENGLISH.get(model, ENGLISH["*"])[0]:
        assert titles.get(origin, origin) in sentence


@pytest.mark.parametrize("model", REASONS)
def test_every_model_that_can_be_a_reason_has_words_of_its_own(model: str) -> None:
    """A new reason without words fails here; only readers of lists of later versions fall back to ``*``."""
    about, plain = ENGLISH[model]
    assert about != ENGLISH["*"][0]
    assert plain
    assert explain(("tent", model)) == about.format(origin="tent")


def test_own_words_replace_some() -> None:
    own = with_templates({"covisit": ("Zu {origin}", "Für Sie"), "my-model": ("{{{origin}}}", "mine")})
    assert explain(("tent", "covisit"), {"tent": "Zelt"}, own) == "Zu Zelt"
    assert explain((None, "covisit"), {}, own) == "Für Sie"
    assert explain(("tent", "my-model"), {}, own) == "{tent}"
    assert explain((None, "trending"), {}, own) == "Popular now"


def test_templates_without_words_for_any_model_still_work() -> None:
    assert explain((None, "new"), {}, {}) == "Recommended for you"


@pytest.mark.parametrize("form", ["{title}", "{origin.__class__}", "{origin", "{0}", "{}"])
def test_a_bad_template_is_refused_at_once(form: str) -> None:
    with pytest.raises(ConfigurationError, match="template of 'covisit'"):
        with_templates({"covisit": (form, "x")})
    with pytest.raises(ConfigurationError, match="template of 'covisit'"):
        with_templates({"covisit": ("x", "{origin}")})


def test_origins_come_once_and_in_order() -> None:
    assert origins([("b", "x"), (None, "x"), ("a", "y"), ("b", "z")]) == ["b", "a"]
