"""Configurations of a model as TOML: a worker's settings file, ``ranking = "blend"`` and what else it takes.

What a worker cannot take, because it has that constant fixed or does not rank by that model, stands in a table
``[evaluate]``, for ``rivulet compare`` alone.
"""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from models.evaluation import Contender
from stream.cli.contenders import run_of
from stream.errors import BadInputError
from stream.settings_file import EVALUATE

SETTINGS: Final = {  # by ranking and parameter, the setting of workers and what one of its units is
    "blend": {"half_life_s": ("half_life_days", 86_400.0), "rate": ("blend_rate", 1.0), "near": ("near", 1.0)},
    "covisit": {
        "half_life_s": ("half_life_days", 86_400.0),
        "vote_exponent": ("near", 1.0),
        "step_share": ("step_share", 1.0),
    },
}


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
        constants = SETTINGS.get(self.model, {})
        lines = [f"# {line}" for line in comment.splitlines()]
        taken = {constants[name][0]: v / constants[name][1] for name, v in self.parameters.items() if name in constants}
        fixed = {name: value for name, value in self.parameters.items() if name not in constants}
        if constants:
            lines += [f'ranking = "{self.model}"', *_numbers(taken)]
        if fixed or not constants:
            why = "workers have this fixed" if constants else f"no worker ranks by {self.model}"
            lines += ["", f"# {why}: what follows is for rivulet compare alone", f"[{EVALUATE}]"]
            lines += [*([] if constants else [f'model = "{self.model}"']), *_numbers(fixed)]
        return "\n".join(lines) + "\n"


def _numbers(values: Mapping[str, float]) -> list[str]:
    return [f"{name} = {float(f'{value:.6g}')!r}" for name, value in sorted(values.items())]


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
        If it cannot be read, names no model, or gives a constant that the model has not or that is no number > 0.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInputError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    more = table.pop(EVALUATE, {})
    ranking, other = table.pop("ranking", None), more.pop("model", None) if isinstance(more, dict) else None
    missing = str(ranking) not in SETTINGS if other is None else ranking is not None or str(other) in SETTINGS
    if missing or not isinstance(more, dict):
        raise BadInputError(f'{path}: needs ranking = "blend" or "covisit", or model = "name" in a table [{EVALUATE}]')
    model = str(ranking if other is None else other)
    try:
        known = defaults(model)
    except BadInputError as error:
        raise BadInputError(f"{path}, model: {error}") from error
    constants = SETTINGS.get(model, {})
    names = {setting: name for name, (setting, _) in constants.items()}
    fixed = [name for name in known if name not in constants]
    for given, allowed in ((table, names), (more, fixed)):
        for name, value in given.items():
            if name not in allowed:
                has = [*names, *(f"[{EVALUATE}] {name}" for name in fixed)]
                raise BadInputError(f"{path}, {name}: {model} has only {', '.join(has) or 'no constants'}")
            if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
                raise BadInputError(f"{path}, {name}: must be a number > 0, not {value!r}")
    return Configuration(model, {names[s]: v * constants[names[s]][1] for s, v in table.items()} | more)


def _cast(model: str, name: str, value: float) -> float:
    """The value in its default's type: counts are whole."""
    return max(round(value), 1) if isinstance(defaults(model)[name], int) else float(value)
