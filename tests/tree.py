"""The whole tree of verbs, as typer makes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from typer.main import get_command

from stream.cli import build
from stream.cli.verbs import Later

COMMAND: Final[Any] = get_command(build())


def _verbs(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, found in group.commands.items():
        command = found.loaded if isinstance(found, Later) else found
        if hasattr(command, "commands"):
            yield from _verbs(command, (*path, name))
        else:
            yield (*path, name), command


VERBS: Final[dict[tuple[str, ...], Any]] = dict(_verbs(COMMAND))


def options_of(path: tuple[str, ...]) -> set[str]:
    """Options of a verb, as they are typed."""
    return {option for parameter in VERBS[path].params for option in parameter.opts if option.startswith("-")}
