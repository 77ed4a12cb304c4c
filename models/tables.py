"""Arrays of tables in TOML files that people write: offers, placements."""

from __future__ import annotations

import tomllib

__all__ = ["read_tables"]


def read_tables(text: str, source: str, name: str) -> list[object]:
    r"""Entries of the one array of tables that a file may have, not looked at yet; none if it is not there.

    Parameters
    ----------
    text
        The file's content.
    source
        Its name, for messages.
    name
        Name of the array.

    Raises
    ------
    ValueError
        Not TOML, other keys beside the array, or something else under its name.

    Examples
    --------
    >>> read_tables("[[offers]]\nid = 'x'", "shop.toml", "offers")
    [{'id': 'x'}]
    >>> read_tables("[offers]\nid = 'x'", "shop.toml", "offers")
    Traceback (most recent call last):
    ValueError: shop.toml: offers: write [[offers]] with double brackets
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{source}: not TOML: {error}") from None
    entries = content.pop(name, [])
    if content:
        raise ValueError(f"{source}: unknown key {min(content)!r}, only [[{name}]] is known")
    if not isinstance(entries, list):
        raise ValueError(f"{source}: {name}: write [[{name}]] with double brackets")
    return entries
