"""What the verbs share: settings from flags and environment."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from stream.errors import ConfigurationError
from stream.settings import Settings


def load_settings(**flags: Any) -> Settings:
    """Settings from flags that were given, then the environment, then the defaults.

    Raises
    ------
    ConfigurationError
        One line that names the setting, its value and what is wrong.
    """
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        shown = "" if "password" in name or "key" in name else f"={first['input']!r}"
        raise ConfigurationError(f"setting {name} (RIVULET_{name.upper()}){shown}: {first['msg']}") from None
