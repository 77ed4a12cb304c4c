"""Checks of this machine: snapshot folder and room, compiled kernels, libraries, variables that are no settings."""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from stream.compilation import are_kernels_compiled, kernel_cache
from stream.doctor.finding import Finding
from stream.errors import ConfigurationError
from stream.placements_file import read_placements
from stream.settings import Settings
from stream.snapshots import SnapshotStore
from stream.strangers import strangers

LEAST_FREE: Final = 1 << 30


def check_machine(settings: Settings) -> list[Finding]:
    """All findings about this machine."""
    return [*_snapshots(settings), *_placements(settings), _kernels(), *_libraries(), *_strangers()]


def _snapshots(settings: Settings) -> list[Finding]:
    try:
        store = SnapshotStore.of(settings)
        newest = sum(found.nbytes for found in store.generations())
    except (ConfigurationError, OSError) as error:
        fix = "Make the folder writable for this user, or set RIVULET_SNAPSHOT_FOLDER."
        return [Finding("machine", "snapshots", "problem", str(error), fix)]
    folder = settings.snapshot_folder
    findings = [Finding("machine", "snapshots", "ok", f"{folder} can be written; {newest / 1e6:,.1f} MB are in it")]
    if "://" in folder:
        fix = "See to it that the store has room for as much again, and for 1 GiB at least."
        return [*findings, Finding("machine", "disk", "unknown", f"{folder} does not tell how much room it has", fix)]
    return [*findings, judge_room(shutil.disk_usage(Path(folder).absolute()).free, newest)]


def _placements(settings: Settings) -> list[Finding]:
    """The file of placements, if there is one."""
    if settings.placements is None:
        return []
    try:
        names = [placement.name for placement in read_placements(settings.placements)]
    except ConfigurationError as error:
        return [Finding("machine", "placements", "problem", str(error), "Correct the file: see README, Placements.")]
    return [Finding("machine", "placements", "ok", f"{settings.placements} names {', '.join(names) or 'none'}")]


def judge_room(free: int, snapshots: int) -> Finding:
    """Judge the room for snapshots, bytes: as much again as there is, and at least 1 GiB.

    Examples
    --------
    >>> judge_room(5 << 30, 1 << 30).state, judge_room(5 << 30, 6 << 30).state, judge_room(1 << 20, 0).state
    ('ok', 'warning', 'warning')
    """
    detail = f"{free / 1e9:,.1f} GB are free for snapshots"
    if free >= max(LEAST_FREE, snapshots):
        return Finding("machine", "disk", "ok", detail)
    return Finding("machine", "disk", "warning", detail, "Make room, or set RIVULET_SNAPSHOT_FOLDER to a larger disk.")


def _kernels() -> Finding:
    if are_kernels_compiled():
        return Finding("machine", "kernels", "ok", f"compiled in {kernel_cache()}")
    detail = f"not compiled yet in {kernel_cache()}: the first start takes about a minute longer"
    return Finding("machine", "kernels", "warning", detail, "Run `rivulet compile`.")


def _libraries() -> list[Finding]:
    try:
        wanted = [Requirement(text) for text in requires("rivulet") or ()]
        shown = [f"rivulet {version('rivulet')}", f"python {sys.version.split()[0]}"]
    except PackageNotFoundError:
        fix = "Run pip install -e . in its folder."
        return [Finding("machine", "libraries", "unknown", "rivulet is not installed as a package", fix)]
    findings = []
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            found = ""
        if not found or not requirement.specifier.contains(found, prereleases=True):
            detail = f"{requirement.name} {found or 'is missing'}, wanted {requirement}"
            fix = f"Run pip install '{requirement}'."
            findings.append(Finding("machine", "libraries", "problem", detail, fix))
        shown.append(f"{requirement.name} {found}")
    return findings or [Finding("machine", "libraries", "ok", ", ".join(shown))]


def _strangers() -> list[Finding]:
    return [Finding("machine", "environment", "warning", f"{name} is no setting", fix) for name, fix in strangers()]
