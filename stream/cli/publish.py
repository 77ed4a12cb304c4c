"""``rivulet publish FILE|-``: send recorded events to the events topic, as they are and at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import closing
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from stream.errors import BadInputError
from stream.kafka import client_options
from stream.producer import EventProducer
from stream.recordings import read
from stream.settings import Settings
