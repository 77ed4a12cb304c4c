"""What the verbs share: settings from flags, environment and file."""

from __future__ import annotations

import os
import sys
from typing import Any

from pydantic import ValidationError

from stream.errors import ConfigurationError
from stream.settings import Settings
from stream.settings_file import file_source, settings_file
from stream.strangers import strangers


def load_settings(**flags: Any) -> Settings:
    """Settings from flags that were given, then the environment, then the settings file, then the defaults.

    A variable that looks like a setting and is none is told on stderr, and no error: it may be another program's.

    Raises
    ------
    ConfigurationError
        One line that names the setting, where it was set, its value and what is wrong.
    """
    for name, hint in strangers():
        sys.stderr.write(f"rivulet: {name} is no setting. {hint}\n")
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        shown = "" if "password" in name or "key" in name else f"={first['input']!r}"
        raise ConfigurationError(
            f"{_place(name, given)}{shown}: {first['msg'].removeprefix('Value error, ')}"
        ) from None


def source_of(name: str) -> str:
    """Where a setting's value comes from, if no flag was given: environment, file or default."""
    if variable(name) in os.environ:
        return "environment"
    return "file" if name in file_source(Settings).toml_data else "default"


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"RIVULET_{name.upper()}"


def _place(name: str, given: dict[str, Any]) -> str:
    if name in given:
        return f"--{name.replace('_', '-')}"
    if source_of(name) == "file":
        return f"settings file {settings_file()}: {name}"
    return f"setting {name} ({variable(name)})"
