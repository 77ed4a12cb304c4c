"""The only writer to Redis: one packed, checked flush for everything a batch of events changed.

A pipelined ``SET`` through a Redis client costs 12-15 µs of CPU per key, nearly all of it in Python around the bytes.
Here a :class:`WriteBatch` packs RESP itself, the bytes travel on a connection that redis-py opened (addresses, TLS,
ACL and passwords stay its business), and ``hiredis.Reader`` parses the replies in bulk. Every reply is looked at.

`stream.memory_store` executes the same packed bytes in memory; one contract suite runs over both.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self, TypeAlias

import hiredis
import structlog
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError, ResponseError

from stream.errors import ConfigurationError, RivuletError, UnavailableError
from stream.resp import SLOTS, Commands, Reply, StoreError, WriteBatch, key_of, key_slot, pack, readable

Node: TypeAlias = tuple[str, int]

# Two chunks are on their way at most, so neither side can fill both its buffers and wait for the other for ever.
_CHUNK_BYTES: Final = 256 * 1024
_SHORTEST_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 1.0
_LOG_EVERY_S: Final = 10.0
# The server's state, not the command: the same bytes succeed once it has passed.
_PASSING: Final = {"LOADING", "READONLY", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "OOM"}
_REFUSED: Final = {"NOAUTH", "WRONGPASS"}
_ASKING: Final = b"*1\r\n$6\r\nASKING\r\n"

log = structlog.get_logger(__name__)


class _LinkLostError(Exception):
    """The connection broke or stayed silent; nothing is known about what was still unanswered."""


class Store(Protocol):
    """What the stages write to. Same contract for :class:`RedisStore` and :class:`MemoryStore`.

    ``flush`` returns only when every write is answered and accepted; it is idempotent. ``get`` returns values in the
    order of the keys, None where there is none (or none of type string).
    """

    async def flush(self, batch: WriteBatch) -> None:
        """Write everything in the batch."""

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Read strings."""

    async def hgetall(self, key: bytes) -> dict[bytes, bytes]:
        """Read a hash; empty if there is none."""

    async def run_id(self) -> str:
        """Identity of the running server(s): changes when one was restarted and may have lost what it held."""

    async def close(self) -> None:
        """Let go of connections; harmless when done already."""


class _Link:
    """One connection: opened by redis-py (address, TLS, login, database), spoken on by us.

    redis-py's parser reads nothing after the handshake, so our reader sees every byte; RESP2 sends nothing unasked.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._parser = hiredis.Reader()
        self._turn = asyncio.Lock()
        self._closed = False

    async def exchange(self, frames: Sequence[bytes], each: int = 1) -> list[Reply]:
        """Send all frames and return ``each`` replies per frame.

        Raises ``_LinkLostError`` on a broken or silent connection, ``ConfigurationError`` on a refused login. After
        any other way out (cancellation) the connection is dropped too: its replies would belong to nobody.
        """
        async with self._turn:
            try:
                await self._open()
                replies = await self._converse(frames, each)
            except BaseException as error:
                await self._connection.disconnect(nowait=True)
                if isinstance(error, OSError | hiredis.ProtocolError):
                    raise _LinkLostError(str(error) or "no answer in time") from error
                raise
        return replies

    async def _converse(self, frames: Sequence[bytes], each: int) -> list[Reply]:
        replies: list[Reply] = []
        step = max(1, _CHUNK_BYTES * len(frames) // (sum(map(len, frames)) or 1))
        for start in range(0, len(frames), step):
            await self._write(b"".join(frames[start : start + step]))
            await self._read(replies, start * each)  # all chunks but the one just written
        await self._read(replies, len(frames) * each)
        if len(replies) > len(frames) * each:
            raise OSError("more replies than commands")
        return replies

    async def _open(self) -> None:
        if self._closed:
            raise OSError("the store is closed")
        if self._connection.is_connected:
            return
        try:
            await self._connection.connect()  # type: ignore[no-untyped-call]  # redis-py annotates it only in part
        except (RedisError, OSError) as error:
            # over a unix socket redis-py logs in while connecting and wraps what went wrong
            cause = error.__cause__ if isinstance(error.__cause__, RedisError) else error
            if isinstance(cause, AuthenticationError | AuthorizationError | ResponseError):
                raise ConfigurationError(f"Redis refused the login or database: {cause}") from error
            raise OSError(str(error)) from error
        self._parser = hiredis.Reader()

    async def _write(self, data: bytes) -> None:
        writer = self._connection._writer
        if writer is None:
            raise OSError("connection closed")
        async with asyncio.timeout(self._connection.socket_timeout):
            writer.write(data)
            await writer.drain()

    async def _read(self, replies: list[Reply], until: int) -> None:
        gets = self._parser.gets
        while len(replies) < until:
            reader = self._connection._reader
            if reader is None:
                raise OSError("connection closed")
            async with asyncio.timeout(self._connection.socket_timeout):
                data = await reader.read(65_536)
            if not data:
                raise OSError("connection closed by the server")
            self._parser.feed(data)
            reply = gets()
            while reply is not False:  # hiredis' word for "not complete yet"
                replies.append(reply)
                reply = gets()

    async def drop(self) -> None:
        """Dial anew at the next exchange."""
        async with self._turn:
            await self._connection.disconnect(nowait=True)

    async def close(self) -> None:
        self._closed = True
        await self._connection.disconnect()


@dataclass
class _Round:
    """What one round of sending left undone, and why."""

    again: set[int]
    asking: dict[int, Node]
    moved: dict[int, Node]
    trouble: str = ""
    reconnect: bool = False


class RedisStore:
    """Writes to a Redis or Valkey server, or to a cluster of them.

    A flush survives what passes: lost connections, restarts, failovers, moved slots, a full memory. It sends again,
    with pauses of 10 ms doubling to 1 s, until everything is answered or the caller cancels. What does not pass (wrong
    type, no permission) raises. Flushes at the same time take turns on the one connection per node (two or four were
    slower: the work is ours, not the server's) and have no order between them.

    Attributes
    ----------
    retries
        Rounds sent again so far, for any reason.

    Notes
    -----
    About 1 µs of CPU per key beside the packing (1.6 µs in a cluster); memory: the batch and two chunks of 256 KB.
    """

    def __init__(self, url: str) -> None:
        plain, self._cluster = split_url(url)
        try:
            options: dict[str, Any] = dict(parse_url(plain))
            self._kind: type[AbstractConnection] = options.pop("connection_class", Connection)
            self._options = options | {"protocol": 2}
            probe = self._kind(**self._options)
        except (ValueError, TypeError, RedisError) as error:
            raise ConfigurationError(f"bad Redis address: {error}") from error
        self._seed: Node = (getattr(probe, "host", ""), getattr(probe, "port", 0))
        self._links: dict[Node, _Link] = {}
        self._slots: list[Node] = [self._seed] * SLOTS if self._cluster else []
        self._silent_until = -math.inf
        self.retries = 0

    @classmethod
    async def connect(cls, url: str) -> Self:
        """Connect and check that the server answers, once.

        Parameters
        ----------
        url
            ``redis://``, ``rediss://`` or ``unix://`` as redis-py reads them; for a cluster with ``cluster=true`` in
            its query, or ``redis+cluster://`` (``rediss+cluster://``) and any of its nodes.

        Raises
        ------
        UnavailableError
            When nobody answers there.
        ConfigurationError
            When the address or login is wrong.
        """
        store = cls(url)
        try:
            if store._cluster:
                await store._learn_slots(store._seed)
            else:
                await store._ask_run_id(store._seed)
        except _LinkLostError as error:
            await store.close()
            raise UnavailableError(f"Redis does not answer: {error}") from error
        except RivuletError:
            await store.close()
            raise
        return store

    async def flush(self, batch: WriteBatch) -> None:
        """Write everything in the batch; return when every command is answered as it must be.

        Raises
        ------
        StoreError
            When the server refuses a command for good; others of the batch may have been written.
        ConfigurationError
            When the login stopped working.
        """
        batch.check(await self._settle(batch, batch.expiries))

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Read strings by ``MGET``, one per slot in a cluster; waits as ``flush`` does."""
        groups: dict[int, list[int]] = {}
        for index, key in enumerate(keys):
            groups.setdefault(key_slot(key) if self._cluster else 0, []).append(index)
        commands = Commands()
        for group in groups.values():
            commands.add(b"MGET", *(keys[index] for index in group))
        found: list[bytes | None] = [None] * len(keys)
        for group, values in zip(groups.values(), await self._settle(commands), strict=True):
            for index, value in zip(group, values, strict=True):
                found[index] = value
        return found

    async def hgetall(self, key: bytes) -> dict[bytes, bytes]:
        """Read a hash; empty if there is none; waits as ``flush`` does."""
        commands = Commands()
        commands.add(b"HGETALL", key)
        (flat,) = await self._settle(commands)
        return dict(zip(flat[::2], flat[1::2], strict=True))

    async def run_id(self) -> str:
        """Run ids of the server or of all masters; changes when one was restarted or replaced. Waits as ``flush``."""
        attempt = 0
        while True:
            try:
                nodes = set(self._slots) or {self._seed}
                return ",".join(sorted([await self._ask_run_id(node) for node in nodes]))
            except _LinkLostError as error:
                await self._refresh(attempt)
                await self._pause(attempt, str(error))
                attempt += 1

    async def close(self) -> None:
        """Close all connections; a flush under way on another task keeps failing until it is cancelled."""
        for link in self._links.values():
            await link.close()

    # --- sending until settled ------------------------------------------------------------------------------------

    async def _settle(self, commands: Commands, expiries: Iterable[int] = ()) -> list[Reply]:
        """Send commands until each has an answer that is not about the server's passing state."""
        replies: list[Reply] = [None] * len(commands.frames)
        todo: Sequence[int] = range(len(replies))
        asking: dict[int, Node] = {}
        followers = frozenset(expiries)
        attempt = 0
        while True:
            outcome = await self._send(commands, todo, asking, replies)
            # an EXPIRE that was answered before its HSET succeeded set the lifetime of nothing
            again = outcome.again | (followers & {index + 1 for index in outcome.again})
            if not again:
                return replies
            todo, asking = sorted(again), outcome.asking
            if outcome.reconnect or outcome.moved:
                await self._refresh(attempt)
            for slot, node in outcome.moved.items():  # the owner knows better than a node that heard of it
                self._slots[slot] = node
            if outcome.trouble or attempt > 1:
                await self._pause(attempt, outcome.trouble or "slots keep moving")
            else:
                self.retries += 1
            attempt += 1

    async def _send(
        self, commands: Commands, todo: Sequence[int], asking: Mapping[int, Node], replies: list[Reply]
    ) -> _Round:
        """Send each command once to the node that should have it; file the replies; judge those that are errors."""
        outcome = _Round(set(), {}, {})
        parcels = self._parcels(commands.frames, todo, asking)
        sent = (self._deliver(node, asks, commands.frames, indexes) for (node, asks), indexes in parcels.items())
        answers = await asyncio.gather(*sent, return_exceptions=True)
        for ((node, _), indexes), answer in zip(parcels.items(), answers, strict=True):
            if isinstance(answer, _LinkLostError):
                outcome.again.update(indexes)
                outcome.trouble, outcome.reconnect = f"{_address(node)}: {answer}", True
            elif isinstance(answer, BaseException):
                raise answer
            else:
                for index, reply in zip(indexes, answer, strict=True):
                    replies[index] = reply
                    if isinstance(reply, hiredis.ReplyError):
                        self._judge(outcome, index, commands.frames[index], str(reply), node)
        return outcome

    def _parcels(
        self, frames: Sequence[bytes], todo: Sequence[int], asking: Mapping[int, Node]
    ) -> dict[tuple[Node, bool], Sequence[int]]:
        if not self._cluster:
            return {(self._seed, False): todo} if todo else {}
        parcels: dict[tuple[Node, bool], list[int]] = {}
        slots = self._slots
        for index in todo:
            aim = (asking[index], True) if index in asking else (slots[key_slot(key_of(frames[index]))], False)
            if aim in parcels:
                parcels[aim].append(index)
            else:
                parcels[aim] = [index]
        return dict(parcels)

    async def _deliver(self, node: Node, asks: bool, frames: Sequence[bytes], indexes: Sequence[int]) -> list[Reply]:
        link = self._link_to(node)
        if asks:  # each command needs its own ASKING, whose reply is of no interest
            return (await link.exchange([_ASKING + frames[index] for index in indexes], each=2))[1::2]
        return await link.exchange([frames[index] for index in indexes])

    def _judge(self, outcome: _Round, index: int, frame: bytes, text: str, node: Node) -> None:
        """Sort a reply error: elsewhere, later, or never."""
        code, _, rest = text.partition(" ")
        if code in {"MOVED", "ASK"}:
            if not self._cluster:
                raise ConfigurationError(
                    f"Redis at {_address(node)} is part of a cluster: add ?cluster=true to its URL"
                )
            slot, _, where = rest.partition(" ")
            host, _, port = where.rpartition(":")
            target = (host or node[0], int(port))
            if code == "ASK":
                outcome.asking[index] = target
            else:
                outcome.moved[int(slot)] = target
        elif code in _PASSING:
            outcome.trouble = text
            outcome.reconnect |= code not in {"OOM", "LOADING", "TRYAGAIN"}
        elif code in _REFUSED:
            raise ConfigurationError(f"Redis at {_address(node)} refused the login: {text}")
        else:
            raise StoreError(f"Redis refused {readable(key_of(frame))}: {text}")
        outcome.again.add(index)

    async def _pause(self, attempt: int, trouble: str) -> None:
        self.retries += 1
        now = asyncio.get_running_loop().time()
        if now >= self._silent_until:
            self._silent_until = now + _LOG_EVERY_S
            log.warning("redis_retry", trouble=trouble, attempt=attempt + 1, retries=self.retries)
        await asyncio.sleep(min(_LONGEST_PAUSE_S, _SHORTEST_PAUSE_S * 2 ** min(attempt, 10)))

    # --- nodes ----------------------------------------------------------------------------------------------------

    def _link_to(self, node: Node) -> _Link:
        link = self._links.get(node)
        if link is None:
            place = {"host": node[0], "port": node[1]} if self._cluster else {}
            link = self._links[node] = _Link(self._kind(**(self._options | place)))
        return link

    async def _ask(self, node: Node, *parts: bytes) -> Reply:
        """One command to one node, once."""
        (reply,) = await self._link_to(node).exchange([pack(*parts)])
        if isinstance(reply, hiredis.ReplyError):
            if str(reply).partition(" ")[0] in _PASSING:
                raise _LinkLostError(str(reply))
            raise ConfigurationError(f"Redis at {_address(node)} refused {parts[0].decode()}: {reply}")
        return reply

    async def _ask_run_id(self, node: Node) -> str:
        info: bytes = await self._ask(node, b"INFO", b"server")
        return next(line[7:].decode() for line in info.splitlines() if line.startswith(b"run_id:"))

    async def _refresh(self, attempt: int) -> None:
        """Make the next round see the world anew: fresh connections, or a fresh map of the cluster."""
        if not self._cluster:  # the name may lead to another server by now
            await self._link_to(self._seed).drop()
            return
        known = sorted({*self._slots, self._seed})
        turn = attempt % len(known)  # another node first each time: one that was cut off may know nothing new
        for node in known[turn:] + known[:turn]:
            try:
                await self._learn_slots(node)
            except _LinkLostError:
                continue
            return

    async def _learn_slots(self, node: Node) -> None:
        """Ask a node who owns which slot; forget the connections to nodes that own none."""
        ranges = await self._ask(node, b"CLUSTER", b"SLOTS")
        slots = list(self._slots)
        for first, last, master, *_ in ranges:
            host = (master[0] or b"").decode()
            owner = (host if host not in {"", "?"} else node[0], int(master[1]))
            slots[first : last + 1] = [owner] * (last + 1 - first)
        self._slots = slots
        for gone in self._links.keys() - {*slots, node}:
            await self._links.pop(gone).close()


def split_url(url: str) -> tuple[str, bool]:
    """Split a Redis address into what redis-py understands and whether it means a cluster.

    Examples
    --------
    >>> split_url("redis+cluster://h:1/"), split_url("redis://h:1/?cluster=true"), split_url("redis://h:1/0")
    (('redis://h:1/', True), ('redis://h:1/', True), ('redis://h:1/0', False))
    """
    scheme, separator, rest = url.partition("://")
    base, mark, query = rest.partition("?")
    arguments = query.split("&") if query else []
    switches = [argument for argument in arguments if argument.startswith("cluster=")]
    kept = "&".join(argument for argument in arguments if argument not in switches)
    cluster = scheme.endswith("+cluster") or any(switch[8:].lower() in {"true", "1", "yes"} for switch in switches)
    return scheme.removesuffix("+cluster") + separator + base + (mark + kept if kept else ""), cluster


def _address(node: Node) -> str:
    return f"{node[0]}:{node[1]}" if node[1] else "its socket"
