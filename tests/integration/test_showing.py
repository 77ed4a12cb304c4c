"""What may take longer than 2 s shows on a terminal that it gets on: every verb, each on real servers."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from rich.progress import TextColumn

from stream.cli import build
from stream.cli.showing import showing
from stream.demo.shop import Shop
from stream.kafka import careful_producer
from stream.progress import Progress
from stream.topics import create, layout
from tests.tree import VERBS, options_of
from tests.worker_process import Installation, WorkerProcess, compile_once, environment

ROOT = Path(__file__).parents[2]
PAGE: Final = b'<script type="application/ld+json">{"@type":"Product","sku":"p1","name":"Page"}</script>'
QUICK: Final = {  # what takes no time, or lasts for as long as one wants and says itself what it does
    "worker": "compiles with the bar of `compile`, then writes log lines",
    "gateway": "writes log lines",
    "get": "four round trips; --watch prints what changes",
    "settings": "asks nobody",
    "schemas": "asks nobody",
    "offers": "a file written by hand",
    "snapshot list": "names of files",
}


class World(NamedTuple):
    """An installation with a worker, and files."""

    folder: Path
    site: str

    @property
    def recording(self) -> str:
        return str(self.folder / "shop.jsonl")

    def written(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return str(self.folder / name)


ITEM = '{"item_id":"tent","title":"Tent"}'
TOML = 'ranking = "covisit"\n'
Call = Callable[[World], list[str]]
SHOWN: Final[dict[str, tuple[str, Call]]] = {  # by verb: a pattern of its display, and a call that ends by itself
    "compile": ("compiling kernels", lambda w: []),
    "doctor": ("looking", lambda w: []),
    "topics": ("topics", lambda w: []),
    "publish": ("300 events", lambda w: [w.recording]),
    "check": ("lines", lambda w: [w.recording]),
    "record": ("records,", lambda w: [str(w.folder / "out"), "--all"]),
    "replay": (r"300 events, [\d,]+/s, lag 0 +\d:\d\d:\d\d +\d:\d\d:\d\d", lambda w: [w.recording]),  # remaining, taken
    "replay --dry-run": ("300 events,", lambda w: [w.recording]),
    "replay --local": ("300 events,", lambda w: [w.recording]),
    "republish": ("publishing lists of all users: ", lambda w: []),
    "evaluate": ("intervals", lambda w: [w.recording, "--models", "covisit"]),
    "tune": ("runs, now on", lambda w: [w.recording, "--trials", "2", "--out", str(w.folder / "tuned.toml")]),
    "compare": ("intervals", lambda w: [w.written("a.toml", TOML), w.written("b.toml", TOML), w.recording]),
    "export": ("waiting for a worker", lambda w: ["u1"]),
    "forget": ("waiting for a worker", lambda w: ["u1"]),
    "demo": ("preparing kernels", lambda w: ["--duration", "1"]),
    "shop": ("events", lambda w: ["--duration", "0.1"]),
    "snapshot verify": ("reading", lambda w: []),
    "snapshot prune": ("reading", lambda w: ["--refused"]),
    "catalogue put": ("put", lambda w: [w.written("items.jsonl", ITEM)]),
    "catalogue put --check": ("checked", lambda w: [w.written("items.jsonl", ITEM)]),
    "catalogue put --whole": ("read", lambda w: [w.written("items.jsonl", ITEM)]),
    "catalogue fetch": ("fetch", lambda w: [w.site]),
    "catalogue withdraw": ("withdrawing", lambda w: ["nothing"]),
    "catalogue list": ("read", lambda w: []),
    "catalogue get": ("read", lambda w: ["tent"]),
    "dlq list": ("letters", lambda w: []),
    "dlq show": ("letters", lambda w: ["0"]),
    "dlq retry": ("letters", lambda w: ["--all", "--dry-run"]),
    "dlq drop": ("letters", lambda w: ["--all"]),
}


@contextmanager
def site() -> Iterator[str]:
    """A shop of one page."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404 if self.path == "/robots.txt" else 200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(PAGE)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/p1"
        server.shutdown()


@pytest.fixture(scope="module")
def world(kafka: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A worker that has learned a visit and refused a record; verbs run in this process, with its settings."""
    folder = tmp_path_factory.mktemp("shown")
    settings = Installation(kafka, redis_url, folder, f"{folder.name}-{os.getpid()}-").settings
    (folder / "shop.jsonl").write_bytes(b"\n".join(Shop(users=20).json_events(300)))

    async def began() -> None:
        await create(kafka, layout(settings.events_partitions, settings.covisits_partitions, settings.topic_prefix))
        async with careful_producer(settings) as producer:
            view = b'{"event_name":"view_item","user_id":"u1","item_id":"tent"}'
            for value in (view, b"{nonsense"):
                await producer.send_and_wait(settings.topic("events"), value, key=b"u1")

    async def drained() -> None:
        async with asyncio.timeout(60), Progress(settings) as progress:
            await progress.drained()

    compile_once()
    asyncio.run(began())
    worker = WorkerProcess(settings)
    try:
        asyncio.run(drained())
        with site() as url, pytest.MonkeyPatch.context() as patch:
            for name, value in environment(settings).items():
                patch.setenv(name, value)
            patch.setenv("COLUMNS", "200")
            yield World(folder, url)
    finally:
        worker.end()


class Terminal:
    """What stands where stderr is a terminal."""

    def __init__(self) -> None:
        self._read, slave = pty.openpty()
        self.file = os.fdopen(slave, "w", encoding="utf-8")
        self._seen = bytearray()
        self._thread = threading.Thread(target=self._drain)
        self._thread.start()

    def _drain(self) -> None:
        try:
            while chunk := os.read(self._read, 65_536):
                self._seen += chunk
        except OSError:  # the other end is closed
            pass

    def ended(self) -> str:
        """All that was written, once the program has let go of it."""
        self.file.close()
        self._thread.join()
        os.close(self._read)
        return self._seen.decode()


def test_no_verb_is_forgotten() -> None:
    shown = {name.partition(" --")[0] for name in SHOWN}
    assert shown.isdisjoint(QUICK)
    assert shown | QUICK.keys() == {" ".join(path) for path in VERBS}


@pytest.mark.parametrize("name", SHOWN)
def test_a_terminal_shows_how_far_it_is_and_stdout_holds_the_result_alone(
    name: str, world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, call = SHOWN[name]
    verb, _, option = name.partition(" --")
    path = tuple(verb.split())
    json_too = ["--json"] if "--json" in options_of(path) else []
    arguments = [*path, *([f"--{option}"] if option else []), *call(world), *json_too]
    terminal = Terminal()
    try:
        monkeypatch.setattr(sys, "stderr", terminal.file)
        build()(arguments, standalone_mode=False)
    finally:
        monkeypatch.undo()
        seen = terminal.ended()
    assert re.search(r"\x1b\[[0-9;?]*[A-Za-z]", seen), seen
    assert re.search(words, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)), seen
    out = capsys.readouterr().out
    assert "\x1b" not in out
    if json_too:
        assert out.strip()
        assert all(json.loads(line) is not None for line in out.splitlines())


def test_without_a_terminal_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    for keep in (False, True):
        with showing(TextColumn("words"), keep=keep) as progress:
            progress.add_task("task")
    assert written.getvalue() == ""


def test_verbs_show_it_in_one_way() -> None:
    for file in (ROOT / "stream").rglob("*.py"):
        if file.name != "showing.py":
            assert not re.search(r"\b(Progress|track)\([^)]*console|\.status\(", file.read_text()), file
