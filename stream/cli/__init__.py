"""The command line: one file a verb, one line an error."""

from __future__ import annotations

import logging
import sys

import typer

from stream.errors import RivuletError


def build() -> typer.Typer:
    """The command with its verbs. Their modules are imported here, so that importing the package stays cheap."""
    from stream.cli.catalogue import app as catalogue
    from stream.cli.check import check
    from stream.cli.compile_ import compile_
    from stream.cli.dlq import app as dlq
    from stream.cli.evaluate import evaluate
    from stream.cli.export import export
    from stream.cli.forget import forget
    from stream.cli.get import get
    from stream.cli.offers import offers
    from stream.cli.publish import publish
    from stream.cli.record import record
    from stream.cli.replay import replay
    from stream.cli.republish import republish
    from stream.cli.schemas import schemas
    from stream.cli.settings import settings
    from stream.cli.snapshot import app as snapshot
    from stream.cli.topics import topics
    from stream.cli.worker import worker
    from stream.demo.command import demo

    app = typer.Typer(
        help="Rivulet: events in Kafka, learning per event, recommendations and offers in Redis.",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
    )
    recorded = (record, replay, republish, evaluate)
    personal = (get, forget, export)
    for verb in (worker, topics, publish, check, offers, *recorded, *personal, settings, schemas):
        app.command()(verb)
    app.command("compile")(compile_)
    app.command()(demo)
    app.add_typer(snapshot, name="snapshot")
    app.add_typer(catalogue, name="catalogue")
    app.add_typer(dlq, name="dlq")
    return app


def main() -> None:
    """Run a command; expected errors are one line on stderr and an exit code."""
    # a library's own words about an absent broker would come before our one line
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    try:
        build()()
    except RivuletError as error:
        sys.stderr.write(f"rivulet: {error}\n")
        sys.exit(error.exit_code)
