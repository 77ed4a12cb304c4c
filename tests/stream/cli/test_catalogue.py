"""What is refused before anybody is asked."""

from __future__ import annotations

import pytest

from stream.cli import build
from stream.errors import BadInputError


@pytest.mark.parametrize(("item", "fault"), [("", "is empty"), ("a\nb", "has a control character")])
def test_ids_that_no_item_can_have_are_not_withdrawn(item: str, fault: str) -> None:
    with pytest.raises(BadInputError, match=f"an item's id {fault}"):
        build()(["catalogue", "withdraw", "tent", item], standalone_mode=False)
