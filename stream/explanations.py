"""From a reason in a list to a sentence for a person.

A reason is the item that led to a recommendation (or None) and the name of the model that found it. Any name works: one
without words of its own gets those for ``"*"``, so a new model needs no change here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from string import Formatter
from typing import Final

from stream.errors import ConfigurationError
from stream.keys import Reason

ORIGIN: Final = "origin"
ANY: Final = "*"

# By model's name: words with ``{origin}`` for reasons that name an item, and words without it for those that do not.
Templates = Mapping[str, tuple[str, str]]

ENGLISH: Final[Templates] = {
    ANY: ("Because you looked at {origin}", "Recommended for you"),
    "covisit": ("Others who looked at {origin} also looked at this", "Recommended for you"),
    "transition": ("Often looked at right after {origin}", "Often looked at next"),
    "sessions": ("Visits like yours, with {origin}, went on to this", "Visits like yours went on to this"),
    "walk": ("Goes with what goes with {origin}", "Recommended for you"),
    "repeat": ("You have looked at this before", "You have looked at this before"),
    "content": ("Similar to {origin}", "Similar to what you looked at"),
    "trending": ("Popular now", "Popular now"),
    "popular": ("Popular now", "Popular now"),
    "new": ("New here", "New here"),
}


def with_templates(own: Templates, base: Templates = ENGLISH) -> dict[str, tuple[str, str]]:
    """Templates of which some are replaced or added.

    Raises
    ------
    ConfigurationError
        If a template has a field other than ``{origin}``, or its second form has one.

    Examples
    --------
    >>> german = with_templates({"*": ("Weil Sie {origin} angesehen haben", "Für Sie")})
    >>> explain(("tent", "new-model"), {"tent": "das Zelt"}, german)
    'Weil Sie das Zelt angesehen haben'
    """
    for model, forms in own.items():
        for form, allowed in zip(forms, ({ORIGIN}, set[str]()), strict=True):
            try:
                fields = {name for _, name, spec, conversion in Formatter().parse(form) if name is not None}
            except ValueError as error:
                raise ConfigurationError(f"template of {model!r}: {error}: {form!r}") from error
            if fields - allowed:
                raise ConfigurationError(
                    f"template of {model!r}: unknown field {sorted(fields - allowed)[0]!r}: {form!r}"
                )
    return {**base, **own}


def explain(reason: Reason, titles: Mapping[str, str] | None = None, templates: Templates = ENGLISH) -> str:
    """Say why an item is recommended.

    Parameters
    ----------
    reason
        As in a list's ``why``.
    titles
        What to call items, by id; one that is not in it is called by its id.
    templates
        See `with_templates`.

    Examples
    --------
    >>> explain(("tent", "covisit"), {"tent": "Tunnel tent"})
    'Others who looked at Tunnel tent also looked at this'
    >>> explain((None, "trending")), explain((None, "new-model"))
    ('Popular now', 'Recommended for you')
    """
    origin, model = reason
    about, plain = templates.get(model) or templates.get(ANY) or ENGLISH[ANY]
    return plain.format() if origin is None else about.format(origin=(titles or {}).get(origin, origin))


def origins(reasons: Iterable[Reason]) -> list[str]:
    """The items that reasons name, each once, in their order."""
    return list(dict.fromkeys(origin for origin, _ in reasons if origin is not None))
