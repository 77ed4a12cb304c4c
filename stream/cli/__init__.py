"""The command line: one file a verb, one line an error."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from models.kernel_cache import KernelCacheError
from stream.cli.verbs import Verbs
from stream.errors import ConfigurationError, RivuletError


def build() -> typer.Typer:
    """The command with its verbs."""
    app = typer.Typer(cls=Verbs, no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False)
    app.callback()(_root)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # the imports here and below would double the time of `--help`

        typer.echo(f"rivulet {version('rivulet')}")
        raise typer.Exit


def _root(
    settings: Annotated[
        Path | None, typer.Option("--settings", metavar="FILE", help="TOML file of settings; also RIVULET_SETTINGS.")
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Rivulet: events in Kafka, learning per event, recommendations and offers in Redis.

    Settings come from a verb's options, then the environment (RIVULET_...), then a file, then their defaults.

    Exit codes: 0 done, 1 failed, 2 configuration, 3 a server does not answer, 4 bad input, 70 a worker stood still.

    Example: rivulet --settings shop.toml worker
    """
    if settings is not None:
        from stream.settings_file import VARIABLE

        os.environ[VARIABLE] = str(settings)  # read wherever settings are made, and by child processes


def main() -> None:
    """Run a command; expected errors are one line on stderr and an exit code."""
    # a library's own words about an absent broker would come before our one line
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    try:
        build()(prog_name="rivulet")  # else `python -m` tells another name, which completion does not know
    except (RivuletError, KernelCacheError) as error:
        sys.stderr.write(f"rivulet: {error}\n")
        sys.exit(error.exit_code if isinstance(error, RivuletError) else ConfigurationError.exit_code)
