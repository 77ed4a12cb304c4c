"""Fixtures of the tests on real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.shard_group import Group, opened


@pytest.fixture
async def group(kafka: str, topic_prefix: str, tmp_path: Path) -> AsyncIterator[Group]:
    """A topic of its own, and workers that count it."""
    async with opened(kafka, topic_prefix + "e", tmp_path) as group:
        yield group
