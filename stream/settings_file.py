"""A TOML file of settings, named by ``RIVULET_SETTINGS`` or ``rivulet --settings``: below the environment.

Its keys are the settings' names without prefix (``kafka = "broker:9092"``); `rivulet tune` writes such files, too. What
it may not hold is refused by name: an unknown key is a typing error that would otherwise change nothing, and a file is
copied, shared and put under version control more easily than a secret should be.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr
from pydantic_settings import BaseSettings, TomlConfigSettingsSource

from stream.errors import ConfigurationError

VARIABLE: Final = "RIVULET_SETTINGS"
EVALUATE: Final = "evaluate"  # table of what `rivulet tune` found and a worker has fixed: passed over


def settings_file() -> str:
    """Path of the file that the environment names; empty if none."""
    return os.environ.get(VARIABLE, "")


def file_source(settings: type[BaseSettings]) -> TomlConfigSettingsSource:
    """What the file says, for pydantic-settings; nothing if there is no file.

    Raises
    ------
    ConfigurationError
        If the file cannot be read, is not TOML, or has a key that is no setting or a secret; names file and key.
    """
    path = settings_file()
    if not path:
        return TomlConfigSettingsSource(settings, None)
    try:
        Path(path).open("rb").close()  # pydantic-settings passes over a file that is not there
        source = TomlConfigSettingsSource(settings, Path(path))
    except OSError as error:
        raise ConfigurationError(f"settings file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"settings file {path} is not TOML: {error}") from error
    _check(path, source.toml_data, settings)
    return source


def _check(path: str, found: Mapping[str, Any], settings: type[BaseSettings]) -> None:
    fields = settings.model_fields
    for key, value in found.items():
        if key == EVALUATE and isinstance(value, dict):
            if "model" in value:
                why = f"no worker ranks by {value['model']}; this is for `rivulet compare` alone"
                raise ConfigurationError(f"settings file {path}: [{EVALUATE}] model: {why}")
            continue
        if key not in fields:
            near = get_close_matches(key, fields, 1)
            hint = f"did you mean {near[0]}?" if near else "see `rivulet settings` for all"
            raise ConfigurationError(f"settings file {path}: {key} is no setting; {hint}")
        if fields[key].annotation is SecretStr:
            raise ConfigurationError(
                f"settings file {path}: {key} is a secret: take it out and set RIVULET_{key.upper()} in the environment"
            )
        if key == "redis" and isinstance(value, str) and _has_password(value):
            raise ConfigurationError(
                f"settings file {path}: redis holds a password: take it out and set RIVULET_REDIS_PASSWORD"
            )


def _has_password(url: str) -> bool:
    parts = urlsplit(url)
    return bool(parts.password) or "password" in parse_qs(parts.query)
