"""``rivulet demo`` as a newcomer runs it: it works, loses nothing, shows a changed list, and leaves nothing behind."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil
import pytest

from models.blend import PRIOR
from models.blend_features import NAMES
from models.ranking import REASONS
from stream.compilation import compile_kernels
from tests.patience import PATIENCE_S, Patience

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "stream.cli"]


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo that runs until it is ended, with all its files in `tmp_path`."""
    compile_kernels()
    with subprocess.Popen(
        [*COMMAND, "demo"],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path), "COLUMNS": "200", "PYTHONUNBUFFERED": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        yield process
        process.kill()


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
    start = dict(zip(NAMES, PRIOR, strict=True))
    assert summary["weights"].keys() == start.keys()
    assert summary["weights"] != pytest.approx(start, abs=0.001)  # they move
    assert summary["reasons"].keys() <= set(REASONS)
    assert summary["reasons"]  # so early possibly of one kind only
    assert list(tmp_path.iterdir()) == []


def test_the_commands_it_prints_work_and_ctrl_c_leaves_nothing(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    export, look, visit, again, nobody, yours, look_again = printed(demo)
    started = descendants(demo)
    assert started
    assert look == again
    changed(export, look, visit, at_first=said(export, look))
    changed(export, look_again, yours, at_first=said(export, nobody))
    demo.send_signal(signal.SIGINT)
    _, rest = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 0, rest
    left_nothing(started, tmp_path)


def test_it_ends_with_a_line_when_its_worker_does(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    printed(demo)
    started = descendants(demo)
    worker_of(demo).kill()
    _, rest = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 3, rest
    assert "rivulet: the demo's worker ended" in rest
    assert "Traceback" not in rest
    left_nothing(started, tmp_path)


def test_ctrl_c_ends_it_before_its_worker_is_up(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    worker_of(demo).suspend()  # and so it never will be
    started = descendants(demo)
    demo.send_signal(signal.SIGINT)
    _, rest = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 1, rest
    assert rest.endswith("rivulet: the demo was stopped before its worker was up\n")
    left_nothing(started, tmp_path)


def worker_of(process: subprocess.Popen[str]) -> psutil.Process:
    """The demo's worker, once there is one."""
    patience = Patience()
    while not patience.ended():
        for child in descendants(process):
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if child.cmdline()[-1:] == ["worker"]:
                    return child
        time.sleep(0.01)
    raise AssertionError("the demo started no worker")


def left_nothing(started: list[psutil.Process], folder: Path) -> None:
    psutil.wait_procs(started, timeout=PATIENCE_S)
    assert [child for child in started if child.is_running()] == []
    assert list(folder.iterdir()) == []


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
