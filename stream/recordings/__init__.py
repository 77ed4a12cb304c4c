"""Recorded streams in files: events as JSON Lines, CSV or Parquet, and records of a topic by ``rivulet record``."""

from stream.recordings.reading import lines_of, numbered_events, open_recording
from stream.recordings.table import Recording, read_table

__all__ = ["Recording", "lines_of", "numbered_events", "open_recording", "read_table"]
