"""How verbs end when something is wrong: one line that names it, and the exit code of the README; each verb."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stream.cli import main
from tests.tree import VERBS, options_of

ROOT = Path(__file__).parents[3]
NOBODY = "127.0.0.1:1"
VIEW = '{"event_name":"view_item","user_id":"u","item_id":"i","event_timestamp":1750000000000000}\n'
AWAY = {  # what each verb that asks a server needs besides its address
    **dict.fromkeys(("worker", "topics", "republish", "shop", "catalogue list", "dlq list"), ()),
    **dict.fromkeys(("publish", "replay"), ("{folder}/events.jsonl",)),
    "offers": ["--withdraw", "sale"],
    "record": ["{folder}/out", "--all"],
    **dict.fromkeys(("get", "forget", "export", "catalogue get", "catalogue withdraw"), ("x",)),
    "catalogue put": ["{folder}/items.jsonl"],
    "dlq show": ["1"],
    **dict.fromkeys(("dlq retry", "dlq drop"), ("--all",)),
}
OTHERWISE = {
    "gateway": "the same, behind log lines set up for the whole process: in one of its own, below",
    "doctor": "a finding: exit code 1 (tests/integration/test_doors.py)",
    "catalogue fetch": "asks pages first (tests/integration/test_catalogue.py)",
}
FILES = {
    **dict.fromkeys(("publish", "check", "replay", "evaluate", "tune", "catalogue put", "offers"), ("{folder}/none",)),
    "compare": ["{folder}/none", "{folder}/none", "{folder}/events.jsonl"],
}
Ended = Callable[..., tuple[int, str]]


@pytest.fixture
def ended(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ended:
    """Runs ``rivulet``; its exit code and what it says on stderr."""
    (tmp_path / "events.jsonl").write_text(VIEW)
    (tmp_path / "items.jsonl").write_text('{"item_id":"tent"}\n')
    monkeypatch.setenv("RIVULET_SNAPSHOT_FOLDER", str(tmp_path / "snapshots"))
    monkeypatch.setenv("RIVULET_WEB_PORT", "0")

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["rivulet", *(each.format(folder=tmp_path) for each in arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), capsys.readouterr().err

    return run


def test_no_verb_that_asks_a_server_is_forgotten() -> None:
    asking = {" ".join(path) for path in VERBS if {"--kafka", "--redis"} & options_of(path)}
    assert asking == AWAY.keys() | OTHERWISE.keys()


@pytest.mark.parametrize("name", AWAY)
def test_a_server_that_does_not_answer_is_3(name: str, ended: Ended) -> None:
    path = tuple(name.split())
    away = {"--kafka": NOBODY, "--redis": f"redis://{NOBODY}/0"}
    addresses = [word for option in away.keys() & options_of(path) for word in (option, away[option])]
    code, said = ended(*path, *AWAY[name], *addresses)
    assert code == 3, said
    assert said.startswith("rivulet: ")
    assert said.count("\n") == 1
    assert NOBODY in said


def test_a_gateway_that_no_broker_answers_at_its_start_is_3() -> None:
    words = [sys.executable, "-m", "stream.cli", "gateway", "--kafka", NOBODY]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith(f"rivulet: Kafka at {NOBODY} does not answer")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", FILES)
def test_input_that_is_not_there_is_4(name: str, ended: Ended) -> None:
    code, said = ended(*name.split(), *FILES[name])
    assert code == 4, said
    assert said.startswith("rivulet: ")
    assert "/none" in said
    assert said.count("\n") == 1


def test_a_folder_that_is_a_file_is_4(ended: Ended) -> None:
    code, said = ended("schemas", "{folder}/events.jsonl")
    assert code == 4
    assert said.endswith("events.jsonl: File exists: name a folder that can be written\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize("command", ["list", "retry", "drop"])
def test_a_reason_that_there_is_not_is_4(command: str, ended: Ended) -> None:
    code, said = ended("dlq", command, "--reason", "shema")
    assert (code, said.count("\n")) == (4, 1)
    assert "there is no 'shema', only empty, too_large" in said


@pytest.mark.parametrize("user", ["", "u\a", "u" * 257])
@pytest.mark.parametrize("verb", ["forget", "export"])
def test_what_is_no_user_id_is_4(verb: str, user: str, ended: Ended) -> None:
    code, said = ended(verb, user)
    assert (code, said) == (4, "rivulet: not a user id: it has 1 to 256 bytes and no control characters\n")


@pytest.mark.parametrize("verb", ["publish", "check", "evaluate", "tune"])
def test_a_folder_where_a_file_is_meant_is_4(verb: str, ended: Ended) -> None:
    code, said = ended(verb, "{folder}")
    assert code == 4
    assert "is a folder: name a file in it" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_what_is_no_option_is_2(path: tuple[str, ...], ended: Ended) -> None:
    code, said = ended(*path, "--no-such-option")
    assert code == 2
    assert "--no-such-option" in said


@pytest.mark.parametrize("name", [*AWAY, *OTHERWISE])
def test_a_setting_that_is_wrong_is_2(name: str, ended: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIVULET_K", "many")
    words = {"catalogue fetch": ["https://shop.example/"]}
    code, said = ended(*name.split(), *AWAY.get(name, words.get(name, [])))
    assert code == 2, said
    assert said.startswith("rivulet: ")
    assert "RIVULET_K" in said
    assert said.count("\n") == 1


def test_a_kernel_cache_that_may_be_anothers_is_2(tmp_path: Path) -> None:
    read_only = "import os; os.access = lambda *_, **__: False"  # as an installation is to who is not root
    (tmp_path / f"rivulet-kernels-{os.getuid()}").mkdir(mode=0o755)
    known = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", f"{read_only}; from stream.cli import main; main()", "compile"],
        cwd=ROOT,
        env=known | {"HOME": os.devnull, "TMPDIR": str(tmp_path), "RIVULET_KERNEL_CACHE": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("rivulet: no safe folder for compiled kernels: ")
    assert done.stderr.endswith("is not this user's alone; set RIVULET_KERNEL_CACHE\n")
    assert done.stderr.count("\n") == 1


def test_all_is_well_is_0(ended: Ended) -> None:
    assert ended("check", "{folder}/events.jsonl", "--json") == (0, "")
