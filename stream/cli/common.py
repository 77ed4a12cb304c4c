"""What the verbs share: settings from flags and environment, and logging."""

from __future__ import annotations

import logging
from typing import Any

import structlog
from pydantic import ValidationError

from stream.errors import ConfigurationError
from stream.quiet import QuietRepeats
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
        shown = "" if "password" in name else f"={first['input']!r}"
        raise ConfigurationError(f"setting {name} (RIVULET_{name.upper()}){shown}: {first['msg']}") from None


def configure_logging(level: str) -> None:
    """Readable log lines on stderr from this level on, of our code and of the libraries'."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())))
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(QuietRepeats())  # an absent broker costs 75 lines a second
    for noisy in ("aiokafka", "faust", "mode"):
        logging.getLogger(noisy).setLevel("WARNING" if level != "debug" else "DEBUG")
