"""What is refused before anybody is asked."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from stream.catalogue import CatalogueItem
from stream.cli import build
from stream.errors import BadInputError
from stream.settings import Settings


@pytest.mark.parametrize(("item", "fault"), [("", "is empty"), ("a\nb", "has a control character")])
def test_ids_that_no_item_can_have_are_not_withdrawn(item: str, fault: str) -> None:
    with pytest.raises(BadInputError, match=f"an item's id {fault}"):
        build()(["catalogue", "withdraw", "tent", item], standalone_mode=False)


def test_what_was_taken_once_is_withdrawn_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[str] = []

    async def write_items(_: Settings, items: Iterable[CatalogueItem], withdrawn: Iterable[str]) -> int:
        gone.extend(withdrawn)
        return len([*items, *gone])

    monkeypatch.setattr("stream.cli.catalogue.write_items", write_items)
    build()(["catalogue", "withdraw", "--as-is", "tent", "", "a\nb"], standalone_mode=False)
    assert gone == ["tent", "", "a\nb"]
