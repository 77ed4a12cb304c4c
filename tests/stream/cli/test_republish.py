"""What ``rivulet republish`` says at its end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from stream.cli import build
from stream.replay import Republished


def test_it_says_what_it_has_published(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(*_: Any) -> Republished:
        return Republished(neighbours=4, lists=1_234)

    monkeypatch.setattr("stream.cli.republish.run", run)
    said = CliRunner().invoke(build(), ["republish"], catch_exceptions=False)
    assert said.stderr == "published the neighbours of 4 partitions and the lists of 1,234 users\n"
    said = CliRunner().invoke(build(), ["republish", "--json"], catch_exceptions=False)
    assert (json.loads(said.stdout), said.stderr) == ({"neighbours": 4, "lists": 1_234}, "")
