"""``rivulet demo`` as a newcomer runs it: it works, loses nothing, shows a changed list, and leaves nothing behind."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil

from models.ranking import REASONS
from stream.compilation import compile_kernels
from tests.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "stream.cli"]


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_it_ends_by_itself_with_a_summary(tmp_path: Path) -> None:
    compile_kernels()
    done = subprocess.run(
        [*COMMAND, "demo", "--duration", "4", "--json"],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = msgspec.json.decode(done.stdout)
    assert summary["lost"] == 0
    assert summary["events"] > 200  # of 800: when the machine is busy, the last of them are not due yet at the end
    assert 0 < summary["users_with_offers"] <= summary["users_with_recs"] <= summary["users"]
    assert 0 < summary["hit_rate"] < 1
    assert summary["freshness_p99_ms"] > 0
    assert "content" in summary["weights"]
    assert summary["reasons"].keys() <= set(REASONS)
    assert summary["reasons"]  # so early possibly of one kind only
    assert list(tmp_path.iterdir()) == []


def test_the_commands_it_prints_work_and_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    compile_kernels()
    process = subprocess.Popen(
        [*COMMAND, "demo"],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path), "COLUMNS": "200", "PYTHONUNBUFFERED": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    started: list[psutil.Process] = []
    try:
        export, look, visit, again, nobody, yours, look_again = printed(process)
        started = descendants(process)
        assert started
        assert look == again
        changed(export, look, visit, at_first=said(export, look))
        changed(export, look_again, yours, at_first=said(export, nobody))
    finally:
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, rest
    psutil.wait_procs(started, timeout=PATIENCE_S)
    assert [child for child in started if child.is_running()] == []
    assert list(tmp_path.iterdir()) == []


def printed(process: subprocess.Popen[str]) -> list[str]:
    """The commands of the welcome, without their remarks."""
    assert process.stderr is not None
    found = []
    for line in process.stderr:
        if line.startswith("  "):
            found.append(line.partition("  #")[0].strip())
        elif "Ctrl-C" in line:
            return found
    raise AssertionError("the demo ended without a welcome")


def said(export: str, command: str) -> str:
    """What a command prints, `rivulet` being this interpreter's."""
    script = f'rivulet() {{ {shlex.join(COMMAND)} "$@"; }}\n{export}\n{command}'
    return subprocess.run(["bash", "-ec", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def changed(export: str, look: str, visit: str, at_first: str) -> None:
    """Publish an event until the visitor's list is another one (a young shop knows little)."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        said(export, visit)
        if said(export, look) != at_first:
            return
    raise AssertionError("the list did not change")
