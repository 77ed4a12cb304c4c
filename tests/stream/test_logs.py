"""Log lines of our code and of the libraries', in a process of their own: logging is global."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

SPEAK = """
import logging, sys, warnings, structlog
log = structlog.get_logger("stream.x")
from stream import logs
logs.configure("info", sys.argv[1])
def fail():
    secret = "someone-special"
    raise RuntimeError("broken")
log.warning("redis_away", trouble="refused", seconds=1.5)
log.debug("too much")
logging.getLogger("faust").info("too much")
logging.getLogger("aiokafka.conn").error("Unable to connect to %s", "b1")
logging.getLogger("aiokafka.conn").error("Unable to connect to %s", "b2")
try:
    fail()
except RuntimeError:
    log.exception("crashed")
    logging.getLogger("mode").exception("crashed too")
"""


def speak(form: str) -> str:
    done = subprocess.run([sys.executable, "-c", SPEAK, form], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("form", ["json", "auto"])
def test_every_line_is_an_object_of_one_shape(form: str) -> None:
    lines = [msgspec.json.decode(line) for line in speak(form).splitlines()]
    assert [line["event"] for line in lines] == ["redis_away", "Unable to connect to b1", "crashed", "crashed too"]
    assert [line["level"] for line in lines] == ["warning", "error", "error", "error"]
    assert [line["logger"] for line in lines] == ["stream.x", "aiokafka.conn", "stream.x", "mode"]
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert lines[0]["seconds"] == 1.5
    for line in lines[2:]:
        assert "RuntimeError: broken" in line["exception"]


@pytest.mark.parametrize("form", ["json", "console"])
def test_tracebacks_do_not_show_local_variables(form: str) -> None:
    text = speak(form)
    assert "RuntimeError: broken" in text
    assert "secret = " not in text.replace('secret = "someone-special"\n', "")
    assert "someone-special" not in text


def test_for_people_a_line_is_not_json() -> None:
    first = speak("console").splitlines()[0]
    assert "redis_away" in first
    assert not first.startswith("{")
