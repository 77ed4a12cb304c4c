"""``rivulet schemas FOLDER``: write JSON Schemas and the AsyncAPI document that the package was made with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream.errors import BadInputError
from stream.schemas.generation import documents, rendered


def schemas(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; it is made if it does not exist.")],
) -> None:
    """Write a JSON Schema per event and Redis value and the AsyncAPI document of the topics, from the types themselves.

    Example: rivulet schemas schemas
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, document in documents().items():
            (folder / name).write_bytes(rendered(document))
            typer.echo(folder / name)
    except OSError as error:
        raise BadInputError(f"{error.filename}: {error.strerror}: name a folder that can be written") from error
