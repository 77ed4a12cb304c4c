"""The file of placements that ``RIVULET_PLACEMENTS`` names."""

from __future__ import annotations

from pathlib import Path

from models.placement import Placement, PlacementError, load_placements
from stream.errors import ConfigurationError


def read_placements(file: Path | None) -> tuple[Placement, ...]:
    """Placements of a TOML file; none without one.

    Raises
    ------
    ConfigurationError
        If the file cannot be read, or a placement is not valid; names file, placement and field.
    """
    try:
        return () if file is None else load_placements(file.read_text(encoding="utf-8"), str(file))
    except OSError as error:
        raise ConfigurationError(f"RIVULET_PLACEMENTS={file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"RIVULET_PLACEMENTS={file}: not UTF-8") from error
    except PlacementError as error:
        raise ConfigurationError(str(error)) from error
