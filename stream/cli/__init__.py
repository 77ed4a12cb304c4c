"""The command line: one file a verb, one line an error."""

from __future__ import annotations

import logging
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from stream.errors import RivuletError
from stream.settings_file import VARIABLE


def build() -> typer.Typer:
    """The command with its verbs. Their modules are imported here, so that importing the package stays cheap."""
    from stream.cli.catalogue import app as catalogue
    from stream.cli.check import check
    from stream.cli.compare import compare
    from stream.cli.compile_ import compile_
    from stream.cli.dlq import app as dlq
    from stream.cli.doctor import doctor
    from stream.cli.evaluate import evaluate
    from stream.cli.export import export
    from stream.cli.forget import forget
    from stream.cli.gateway import gateway
    from stream.cli.get import get
    from stream.cli.offers import offers
    from stream.cli.publish import publish
    from stream.cli.record import record
    from stream.cli.replay import replay
    from stream.cli.republish import republish
    from stream.cli.schemas import schemas
    from stream.cli.settings import settings
    from stream.cli.shop import shop
    from stream.cli.snapshot import app as snapshot
    from stream.cli.topics import topics
    from stream.cli.tune import tune
    from stream.cli.worker import worker
    from stream.demo.command import demo

    app = typer.Typer(
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    running, personal = (worker, gateway, doctor), (get, forget, export)
    sending, recorded = (topics, publish, check, offers), (record, replay, republish, evaluate, tune, compare)
    for verb in (*running, *sending, *recorded, *personal, settings, schemas):
        app.command()(verb)
    app.command("compile")(compile_)
    app.command()(demo)
    app.command()(shop)
    app.add_typer(snapshot, name="snapshot")
    app.add_typer(catalogue, name="catalogue")
    app.add_typer(dlq, name="dlq")
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
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
        os.environ[VARIABLE] = str(settings)  # read wherever settings are made, and by child processes


def main() -> None:
    """Run a command; expected errors are one line on stderr and an exit code."""
    # a library's own words about an absent broker would come before our one line
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    try:
        build()()
    except RivuletError as error:
        sys.stderr.write(f"rivulet: {error}\n")
        sys.exit(error.exit_code)
