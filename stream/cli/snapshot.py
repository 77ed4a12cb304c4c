"""``rivulet snapshot list|verify|prune``: look after the files that workers start from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.table import Table

from stream.cli.common import load_settings
from stream.cli.showing import showing
from stream.errors import BadInputError, UnavailableError
from stream.snapshot_file import SnapshotError
from stream.snapshots import Generation, SnapshotStore

app = typer.Typer(
    help="List, check and delete snapshots; workers may run meanwhile.\n\nExample: rivulet snapshot verify",
    no_args_is_help=True,
)

FolderOption = Annotated[str | None, typer.Option("--folder", help="Folder or fsspec URL of the snapshots.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_(
    shard: Annotated[str | None, typer.Argument(help="Name of a shard such as events-0; none = all.")] = None,
    folder: FolderOption = None,
    json: JsonOption = False,
) -> None:
    """List snapshots by shard, the newest first; the offset is the first one that is not included.

    Example: rivulet snapshot list events-0
    """
    rows = [_facts(found) for found in _generations(_store(folder), shard)]
    _print(rows, json=json)


@app.command()
def verify(
    shard: Annotated[str | None, typer.Argument(help="Name of a shard such as events-0; none = all.")] = None,
    folder: FolderOption = None,
    json: JsonOption = False,
) -> None:
    """Read snapshots as a worker would, to the last byte; exit code 4 if one would be refused.

    Example: rivulet snapshot verify --folder s3://bucket/rivulet
    """
    store = _store(folder)
    rows, refused = [], 0
    for found, why in _read(store, _generations(store, shard)):
        refused += bool(why)
        rows.append(_facts(found) | {"verdict": why or "good"})
    _print(rows, json=json)
    if refused:
        raise BadInputError(f"{refused} of {len(rows)} snapshots would be refused; workers use the one before each")


@app.command()
def prune(
    shard: Annotated[str | None, typer.Argument(help="Name of a shard such as events-0; none = all.")] = None,
    keep: Annotated[int | None, typer.Option(min=1, help="Per shard; none = RIVULET_SNAPSHOT_KEEP.")] = None,
    refused: Annotated[bool, typer.Option("--refused", help="Delete those that cannot be read, too.")] = False,
    folder: FolderOption = None,
    json: JsonOption = False,
) -> None:
    """Delete all but the newest snapshots of each shard, and what killed writers left behind.

    The newest that can be read stays whatever is newer; nothing is deleted of a shard of which none can be read,
    unless --refused says so. Older ones that cannot be read count like others.

    Example: rivulet snapshot prune --keep 2 --refused
    """
    store = _store(folder)
    found = _generations(store, shard)
    damaged = [one for one, why in _read(store, found) if why] if refused else []
    kept = [one for one in found if one not in damaged]
    deleted = []
    try:
        for one in damaged:
            store.folder.remove(one.name)
        for name in dict.fromkeys(one.shard for one in kept):
            newest = next((one for one in kept if one.shard == name and not _refusal(store, one)), None)
            if newest is not None:
                deleted += store.prune(name, newest.offset, keep=keep)
    except OSError as error:
        raise UnavailableError(f"snapshots cannot be deleted: {error}") from error
    _print([_facts(one) for one in [*damaged, *deleted]], json=json, none="nothing to delete")


def _store(folder: str | None) -> SnapshotStore:
    return SnapshotStore.of(load_settings(snapshot_folder=folder))


def _generations(store: SnapshotStore, shard: str | None) -> list[Generation]:
    try:
        return store.generations(shard)
    except OSError as error:
        raise UnavailableError(f"snapshots cannot be listed: {error}") from error


def _read(store: SnapshotStore, found: list[Generation]) -> Iterator[tuple[Generation, str]]:
    """Read snapshots; each with why it would be refused."""
    with showing(TextColumn("reading"), BarColumn(), MofNCompleteColumn()) as progress:
        for one in progress.track(found):
            yield one, _refusal(store, one)


def _refusal(store: SnapshotStore, found: Generation) -> str:
    """Why a snapshot would be refused; empty if it would not."""
    try:
        store.verify(found)
    except FileNotFoundError:
        return ""  # a worker has deleted it just now, as it should
    except SnapshotError as error:
        return str(error)
    except OSError as error:
        raise UnavailableError(f"{found.name} cannot be read: {error}") from error
    return ""


def _facts(found: Generation) -> dict[str, str | int]:
    return {"shard": found.shard, "offset": found.offset, "bytes": found.nbytes, "file": found.name}


def _print(rows: list[dict[str, str | int]], *, json: bool, none: str = "no snapshots") -> None:
    console = Console()
    if json:
        console.out(msgspec.json.encode(rows).decode(), highlight=False)
    elif rows:
        table = Table(*rows[0])
        for row in rows:
            table.add_row(*(escape(str(value)) for value in row.values()))
        console.print(table)
    else:
        console.print(none)
