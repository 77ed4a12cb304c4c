"""The Redis servers behind one address: a single one, or the masters of a cluster with the slots that each owns."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import hiredis
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.exceptions import RedisError

from stream.errors import ConfigurationError
from stream.link import Link, LinkLostError
from stream.resp import SLOTS, Reply, key_slot, pack

Node: TypeAlias = tuple[str, int]

# The server's state, not the command: the same bytes succeed once it has passed.
PASSING: Final = frozenset(
    ("LOADING", "READONLY", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "OOM", "NOREPLICAS", "MISCONF", "BUSY")
)


class Nodes:
    """Who owns which key, and the one connection to each of them.

    Parameters
    ----------
    url
        As for `stream.store.RedisStore.connect`.

    Attributes
    ----------
    cluster
        Whether the address means a cluster.

    Raises
    ------
    ConfigurationError
        If the address is none.
    """

    def __init__(self, url: str) -> None:
        plain, self.cluster = split_url(url)
        try:
            options: dict[str, Any] = dict(parse_url(plain))
            self._kind: type[AbstractConnection] = options.pop("connection_class", Connection)
            self._options = options | {"protocol": 2}
            probe = self._kind(**self._options)
        except (ValueError, TypeError, RedisError) as error:
            raise ConfigurationError(f"bad Redis address (RIVULET_REDIS): {error}") from error
        self.seed: Node = (getattr(probe, "host", ""), getattr(probe, "port", 0))
        self._links: dict[Node, Link] = {}
        self._slots: list[Node] = [self.seed] * SLOTS if self.cluster else []

    def slot(self, key: bytes) -> int:
        """Slot of a key; 0 for all where there is no cluster."""
        return key_slot(key) if self.cluster else 0

    def owner(self, key: bytes) -> Node:
        """The node that should have a key."""
        return self._slots[key_slot(key)] if self.cluster else self.seed

    def move(self, slot: int, node: Node) -> None:
        """Believe that a node owns a slot, until the next `refresh`."""
        self._slots[slot] = node

    def link(self, node: Node) -> Link:
        """The connection to a node, not necessarily open."""
        link = self._links.get(node)
        if link is None:
            place = {"host": node[0], "port": node[1]} if self.cluster else {}
            link = self._links[node] = Link(self._kind(**(self._options | place)))
        return link

    async def greet(self) -> None:
        """First contact, once: check that the server answers, or learn the slots.

        Raises
        ------
        LinkLostError
            When nobody answers.
        ConfigurationError
            When the address or login is wrong.
        """
        await (self._learn_slots(self.seed) if self.cluster else self._run_id(self.seed))

    async def run_ids(self) -> list[str]:
        """Identity of the running server, or of all masters; raises as `greet`."""
        return sorted([await self._run_id(node) for node in self.masters()])

    def masters(self) -> list[Node]:
        """The servers that own keys, as far as is known."""
        return sorted(set(self._slots) or {self.seed})

    async def refresh(self, attempt: int) -> None:
        """Make the next round see the world anew: fresh connections, or a fresh map of the cluster."""
        if not self.cluster:  # the name may lead to another server by now
            await self.link(self.seed).drop()
            return
        known = sorted({*self._slots, self.seed})
        turn = attempt % len(known)  # another node first each time: one that was cut off may know nothing new
        for node in known[turn:] + known[:turn]:
            try:
                await self._learn_slots(node)
            except LinkLostError:
                continue
            return

    async def close(self) -> None:
        """Close all connections."""
        for link in self._links.values():
            await link.close()

    async def ask(self, node: Node, *parts: bytes) -> Reply:
        """One command to one node, once; raises as `greet`."""
        (reply,) = await self.link(node).exchange([pack(*parts)])
        if isinstance(reply, hiredis.ReplyError):
            if str(reply).partition(" ")[0] in PASSING:
                raise LinkLostError(str(reply))
            raise ConfigurationError(f"Redis at {address(node)} refused {parts[0].decode()}: {reply}")
        return reply

    async def _run_id(self, node: Node) -> str:
        info: bytes = await self.ask(node, b"INFO", b"server")
        return next(line[7:].decode() for line in info.splitlines() if line.startswith(b"run_id:"))

    async def _learn_slots(self, node: Node) -> None:
        """Ask a node who owns which slot; forget the connections to nodes that own none."""
        ranges = await self.ask(node, b"CLUSTER", b"SLOTS")
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

    Raises
    ------
    ConfigurationError
        If it begins as none does; redis-py would not name the form of a cluster.

    Examples
    --------
    >>> split_url("redis+cluster://h:1/"), split_url("redis://h:1/?cluster=true"), split_url("redis://h:1/0")
    (('redis://h:1/', True), ('redis://h:1/', True), ('redis://h:1/0', False))
    """
    scheme, separator, rest = url.partition("://")
    if scheme.removesuffix("+cluster") not in ("redis", "rediss", "unix"):
        forms = "redis://, rediss://, redis+cluster://, rediss+cluster:// or unix://"
        raise ConfigurationError(f"bad Redis address (RIVULET_REDIS): it begins with {forms}")
    base, mark, query = rest.partition("?")
    arguments = query.split("&") if query else []
    switches = [argument for argument in arguments if argument.startswith("cluster=")]
    kept = "&".join(argument for argument in arguments if argument not in switches)
    cluster = scheme.endswith("+cluster") or any(switch[8:].lower() in {"true", "1", "yes"} for switch in switches)
    return scheme.removesuffix("+cluster") + separator + base + (mark + kept if kept else ""), cluster


def address(node: Node) -> str:
    """A node as text for messages."""
    return f"{node[0]}:{node[1]}" if node[1] else "its socket"
