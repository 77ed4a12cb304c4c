"""Configurations of a model as TOML: ``model = "covisit"`` and a table ``[parameters]`` of its numbers."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from models.evaluation import Contender
from stream.cli.contenders import run_of
from stream.errors import BadInputError


@dataclass(frozen=True, slots=True)
class Configuration:
    """A model and the parameters that are not its defaults."""

    model: str
    parameters: Mapping[str, float]

    def contender(self) -> Contender:
        """What runs the model with these parameters over a stream."""
        return partial(run_of(self.model), **{name: _cast(self.model, name, v) for name, v in self.parameters.items()})

    def toml(self, comment: str = "") -> str:
        """The configuration as a file, numbers to six digits."""
        lines = [f"# {line}" for line in comment.splitlines()]
        lines += [f'model = "{self.model}"', "", "[parameters]"]
        lines += [f"{name} = {float(f'{value:.6g}')!r}" for name, value in sorted(self.parameters.items())]
        return "\n".join(lines) + "\n"


def defaults(model: str) -> dict[str, float]:
    """A model's numeric parameters and their defaults.

    Examples
    --------
    >>> defaults("popularity")
    {'half_life_s': 86400.0}
    """
    parameters = inspect.signature(run_of(model)).parameters.values()
    numbers = (p for p in parameters if isinstance(p.default, int | float) and not isinstance(p.default, bool))
    return {p.name: p.default for p in numbers}


def read_configuration(path: str) -> Configuration:
    """A configuration from a file.

    Raises
    ------
    BadInputError
        If it cannot be read, names no model, or gives a parameter that the model has not or that is no number > 0.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInputError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    unknown = table.keys() - {"model", "parameters"}
    if unknown or not isinstance(table.get("model"), str) or not isinstance(table.get("parameters", {}), dict):
        raise BadInputError(f'{path}: needs model = "name" and a table [parameters], and nothing else')
    try:
        known = defaults(table["model"])
    except BadInputError as error:
        raise BadInputError(f"{path}, model: {error}") from error
    for name, value in table.get("parameters", {}).items():
        if name not in known:
            raise BadInputError(f"{path}, {name}: {table['model']} has only {', '.join(known) or 'no parameters'}")
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise BadInputError(f"{path}, {name}: must be a number > 0, not {value!r}")
    return Configuration(table["model"], table.get("parameters", {}))


def _cast(model: str, name: str, value: float) -> float:
    """The value in its default's type: counts are whole."""
    return max(round(value), 1) if isinstance(defaults(model)[name], int) else float(value)
