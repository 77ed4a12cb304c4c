"""Rows of Parquet files, through pyarrow, which the extra ``parquet`` brings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

from stream.errors import BadInputError, ConfigurationError
from stream.recordings.files import Meter

BATCH: Final = 10_000  # rows in memory


def parquet_rows(
    name: str, meter: Meter | None = None, check: Callable[[str, Collection[str]], None] = lambda *_: None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a file with their numbers, by column.

    Parameters
    ----------
    name
        The file.
    meter
        Told of bytes passed, about.
    check
        Told of the file's name and columns before the first row.

    Raises
    ------
    ConfigurationError
        If pyarrow is not installed.
    BadInputError
        If the file cannot be read.
    """
    try:
        import pyarrow as pa  # type: ignore[import-untyped]  # no py.typed
        import pyarrow.parquet as pq  # type: ignore[import-untyped]  # no py.typed
    except ImportError:
        raise ConfigurationError(f"{name}: Parquet needs pyarrow: pip install pyarrow") from None
    try:
        with open(name, "rb") as file:
            if meter:
                meter.follow(file)
            try:
                table = pq.ParquetFile(file)
                check(name, table.schema_arrow.names)
                line = 0
                for batch in table.iter_batches(batch_size=BATCH):
                    for row in batch.to_pylist():
                        line += 1
                        yield line, row
            finally:
                if meter:
                    meter.leave()
    except (OSError, pa.ArrowException) as error:
        raise BadInputError(f"{name}: {getattr(error, 'strerror', None) or str(error).splitlines()[0]}") from error
