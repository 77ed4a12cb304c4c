"""The one way of every log line: our own and the libraries' through one formatter, JSON or for people's eyes.

A line carries what happened, where and since when, never whose: no user ids, no keys of users, no event bodies.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final, Literal, TypeAlias

import msgspec
import structlog
from structlog.stdlib import ProcessorFormatter

from stream.quiet import QuietRepeats

Format: TypeAlias = Literal["auto", "json", "console"]
CHATTY: Final = ("aiokafka", "aiohttp", "faust", "mode")


def configure(level: str, form: Format = "auto") -> None:
    """Write log lines to stderr from now on, structlog's and the standard library's alike.

    Parameters
    ----------
    level
        Least severe lines written: debug, info, warning, error. Libraries that talk much start at warning, unless it
        is debug.
    form
        "json": one object a line with ``timestamp``, ``level``, ``logger``, ``event`` and what belongs to it.
        "console": for people. "auto": console on a terminal, else json.
    """
    stamps: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(QuietRepeats())  # an absent broker costs 75 lines a second
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=stamps,
            processors=[ProcessorFormatter.remove_processors_meta, *_renderers(form)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    for name in CHATTY:
        logging.getLogger(name).setLevel("DEBUG" if level == "debug" else "WARNING")
    structlog.configure(
        processors=[*stamps, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _renderers(form: Format) -> list[Any]:
    """The last steps of a line. Tracebacks are plain: prettier ones print local variables, and with these people."""
    if form == "console" or (form == "auto" and sys.stderr.isatty()):
        return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_json)]


def _json(line: dict[str, Any], **_: Any) -> str:
    return msgspec.json.encode(line, enc_hook=repr).decode()
