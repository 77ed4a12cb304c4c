"""Every verb says by example how it is called, the shell completes, and exit codes are what the README says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stream.cli import build, main
from stream.errors import BadInputError, ConfigurationError, RivuletError, UnavailableError
from stream.watchdog import EXIT_CODE
from tests.tree import COMMAND, VERBS, options_of

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PRINTS_NO_FIGURES = {"worker", "gateway", "compile", "schemas"}
PRINTS_JSON_ANYWAY = {"export", "catalogue get"}


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_the_help_has_an_example_that_is_understood(path: tuple[str, ...]) -> None:
    text = " ".join(VERBS[path].help.split())
    found = re.search(r"Examples?: (.*)$", text)
    assert found, f"no example at the end of: {text}"
    for example in re.findall(r"`(rivulet .*?)`", found[1]) or [found[1]]:
        command = example.partition(" > ")[0]
        words = shlex.split(command.partition("| ")[2] or command)
        assert words[0] == "rivulet"
        if words[1] == "--settings":
            del words[1:3]
        assert tuple(words[1 : 1 + len(path)]) == path
        context = VERBS[path].make_context(" ".join(path), words[1 + len(path) :])
        assert not context.args


@pytest.mark.parametrize("name", sorted({path[0] for path in VERBS if len(path) > 1}))
def test_the_help_of_a_group_has_an_example(name: str) -> None:
    text = CliRunner().invoke(build(), [name, "--help"], env={"COLUMNS": "200"}).stdout
    assert f"Example: rivulet {name} " in text


@pytest.mark.parametrize(
    "path", [path for path in VERBS if " ".join(path) not in PRINTS_NO_FIGURES | PRINTS_JSON_ANYWAY], ids=" ".join
)
def test_what_prints_figures_prints_json(path: tuple[str, ...]) -> None:
    assert "--json" in options_of(path)


def test_the_help_of_all_tells_settings_and_exit_codes() -> None:
    text = " ".join(CliRunner().invoke(build(), ["--help"], env={"COLUMNS": "200"}).stdout.split())
    assert "--settings" in text
    codes = dict.fromkeys((0, RivuletError.exit_code, ConfigurationError.exit_code, UnavailableError.exit_code))
    for code in (*codes, BadInputError.exit_code, EXIT_CODE):
        assert re.search(rf"\b{code} [a-z]", text.partition("Exit codes:")[2]), code
        assert re.search(rf"\b{code} [a-z]", README.partition("Exit codes:")[2]), code


@pytest.mark.parametrize("name", COMMAND.commands)
def test_the_list_of_verbs_says_what_their_help_says(name: str) -> None:
    listed = COMMAND.commands[name]
    assert " ".join(listed.loaded.help.partition("\n\n")[0].split()) == listed.help


@pytest.mark.parametrize("asked", ["--help", "--version", "completion"])
def test_no_verb_is_imported_to_list_and_complete_them(asked: str) -> None:
    """2.6 s of CPU, mostly numba, river and faust, for each press of the tabulator."""
    if asked == "completion":
        environment = {"_RIVULET_COMPLETE": "complete_bash", "COMP_WORDS": "rivulet ", "COMP_CWORD": "1"}
    else:
        environment = {}
    program = f"""
import sys
sys.argv = ["rivulet", {asked!r}]
from stream.cli import main
try:
    main()
finally:
    ours = [name for name in sys.modules if name.startswith(("stream.", "models."))]
    print(*sorted(ours), "numpy" in sys.modules, file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "catalogue" in done.stdout or asked == "--version"
    assert done.stderr.split() == ["models.kernel_cache", "stream.cli", "stream.cli.verbs", "stream.errors", "False"]


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_every_verb_and_option_is_completed(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["rivulet"])
    monkeypatch.setenv("_RIVULET_COMPLETE", "complete_bash")

    def completed(*words: str) -> set[str]:
        monkeypatch.setenv("COMP_WORDS", " ".join(("rivulet", *words)))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        with pytest.raises(SystemExit):
            main()
        return set(capsys.readouterr().out.split())

    assert path[-1] in completed(*path[:-1], path[-1][:2])
    assert completed(*path, "--") >= {option for option in options_of(path) if option.startswith("--")}


def test_the_shell_completes_verbs_and_options() -> None:
    assert "--install-completion" in README

    def completed(line: str) -> list[str]:
        request = {"_RIVULET_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        program = "from stream.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.argv[0] = 'rivulet'; {program}"],
            cwd=ROOT,
            env=os.environ | request,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    assert completed("rivulet sna") == ["snapshot"]
    assert completed("rivulet doctor --j") == ["--json"]
    assert completed("rivulet dlq re") == ["retry"]
    assert completed("rivulet dlq retry --dr") == ["--dry-run"]
    assert len(completed("rivulet ")) == len(COMMAND.commands)
