from __future__ import annotations

from pathlib import Path

import pytest

from stream.cli.offers import offers
from stream.errors import BadInputError

TEXT = """
[[offers]]
id = "sale"
items = ["tent"]
value = 2.0
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "offers.toml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_offers_are_checked_without_a_broker(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    offers(file, check=True)
    assert capsys.readouterr().out == "1 offers are valid\n"


def test_nothing_to_do_is_an_error() -> None:
    with pytest.raises(BadInputError, match="name a file of offers"):
        offers()


def test_an_offer_is_not_published_and_withdrawn_at_once(file: Path) -> None:
    with pytest.raises(BadInputError, match="sale is to be published and withdrawn"):
        offers(file, withdraw=["sale", "other"])


def test_an_offer_that_has_ended_is_told(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(TEXT + "valid_until = 2020-01-01T00:00:00Z\n", encoding="utf-8")
    offers(file, check=True)
    assert capsys.readouterr().err.startswith("offer 'sale' ended at 2020-01-01 00:00:00+00:00")
