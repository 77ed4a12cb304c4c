"""The worker for Faust's own command line: ``faust -A stream.faust_app worker --without-web``."""

from __future__ import annotations

from stream.app import Worker
from stream.settings import Settings

app = Worker(Settings()).app
