"""Variables that look like settings and are none: typing errors that would change nothing and say nothing."""

from __future__ import annotations

import os
from difflib import get_close_matches
from typing import Final

from stream.settings import Settings
from stream.settings_file import VARIABLE

PREFIX: Final = "RIVULET_"
OTHERS: Final = {VARIABLE.removeprefix(PREFIX), "KERNEL_CACHE", "DATA"}  # read by us, and no settings


def strangers() -> list[tuple[str, str]]:
    """Such variables, each with what may have been meant; the tests' own are none."""
    known = {name.upper() for name in Settings.model_fields} | OTHERS
    found = []
    for variable in sorted(os.environ):
        prefix, name = variable[: len(PREFIX)].upper(), variable[len(PREFIX) :].upper()  # in any case, as pydantic does
        if prefix == PREFIX and name not in known and not name.startswith("TEST_"):
            near = get_close_matches(name, known, 1)
            hint = f"Did you mean {PREFIX}{near[0]}?" if near else "See `rivulet settings` for all."
            found.append((variable, hint))
    return found
