"""Checks of Redis: reachable, version and role, memory, contract version, rights, clock."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from stream.doctor.clocks import judge_clock
from stream.doctor.finding import Finding
from stream.errors import ConfigurationError, RivuletError, redis_away
from stream.keys import CONTRACT_VERSION, Keys
from stream.link import LinkLostError
from stream.nodes import Node, Nodes, address
from stream.redis_access import refusals
from stream.redis_address import redis_address, without_password
from stream.settings import Settings

OLDEST: Final = (6, 0)  # users and access lists


async def check_redis(settings: Settings) -> list[Finding]:
    """All findings about Redis; only one if nobody answers."""
    shown = without_password(settings.redis)
    try:
        nodes = Nodes(redis_address(settings))
        try:
            await nodes.greet()
            findings = [Finding("redis", "reachable", "ok", shown)]
            for node in nodes.masters():
                findings += await _node(nodes, node)
            return [*findings, await _contract(nodes, settings), *await _rights(nodes, settings)]
        finally:
            await nodes.close()
    except (RivuletError, LinkLostError) as error:
        why = redis_away(error) if isinstance(error, LinkLostError) else error
        fix = "Set RIVULET_REDIS and the settings named here; `rivulet settings` shows what they are now."
        return [Finding("redis", "reachable", "problem", f"{shown}: {why}", fix)]


async def _node(nodes: Nodes, node: Node) -> list[Finding]:
    info = parse_info(await nodes.ask(node, b"INFO"))
    return [judge_version(address(node), info), judge_memory(address(node), info), await _clock(nodes, node)]


def parse_info(reply: bytes) -> dict[str, str]:
    """Fields of an ``INFO`` reply."""
    pairs = (line.partition(":") for line in reply.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in pairs if colon}


def judge_version(name: str, info: Mapping[str, str]) -> Finding:
    """Judge version and role of a server."""
    version = info.get("redis_version", "")
    product = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {version}"
    detail = f"{name}: {product}, {info.get('role', 'role unknown')}"
    if info.get("role") == "slave":
        return Finding(
            "redis", "version", "problem", detail, "Name the primary in RIVULET_REDIS: a replica cannot write."
        )
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
        return Finding("redis", "version", "warning", detail, "Use Redis 6 or later, or Valkey.")
    return Finding("redis", "version", "ok", detail)


def judge_memory(name: str, info: Mapping[str, str]) -> Finding:
    """Judge what a server does when its memory is full.

    Examples
    --------
    >>> judge_memory("cache:6379", {"maxmemory": "1000", "maxmemory_policy": "allkeys-lru"}).state
    'problem'
    """
    limit, policy = int(info.get("maxmemory", 0)), info.get("maxmemory_policy", "unknown")
    detail = f"{name}: limit {limit or 'none'}, policy {policy}, used {info.get('used_memory_human', 'unknown')}"
    advice = "Set maxmemory-policy to volatile-ttl: lists nearest to their end go first."
    if policy.startswith("allkeys"):  # rv:meta and segments have no lifetime and must stay
        return Finding("redis", "memory", "problem", f"{detail}: it may drop what has no lifetime", advice)
    if not limit:
        fix = "Set maxmemory below what the machine has, and maxmemory-policy to volatile-ttl."
        return Finding("redis", "memory", "warning", f"{detail}: it grows until the machine has no more", fix)
    if policy == "noeviction":
        return Finding("redis", "memory", "warning", f"{detail}: workers wait when it is full", advice)
    return Finding("redis", "memory", "ok", detail)


async def _clock(nodes: Nodes, node: Node) -> Finding:
    began = time.time()
    try:
        seconds, microseconds = await nodes.ask(node, b"TIME")
    except ConfigurationError as error:
        return Finding("redis", "clock", "unknown", str(error), "Allow this login TIME to have the clock checked.")
    ended = time.time()
    ahead = int(seconds) + int(microseconds) / 1e6 - (began + ended) / 2
    return judge_clock("redis", ahead, (ended - began) / 2)


async def _contract(nodes: Nodes, settings: Settings) -> Finding:
    meta = Keys(settings.prefix).meta
    try:
        value: bytes | None = await nodes.ask(nodes.owner(meta), b"HGET", meta, b"contract")
    except ConfigurationError as error:
        return Finding("redis", "contract", "unknown", str(error), f"Allow this login HGET on {meta.decode()}.")
    if value is None:
        detail = f"{meta.decode()} has no contract version: no worker has written yet"
        return Finding("redis", "contract", "ok", detail)
    if value != b"%d" % CONTRACT_VERSION:
        detail = f"{meta.decode()} says version {value.decode(errors='replace')}, this is version {CONTRACT_VERSION}"
        fix = "Run one version of Rivulet, or give this one a prefix of its own (RIVULET_PREFIX)."
        return Finding("redis", "contract", "problem", detail, fix)
    return Finding("redis", "contract", "ok", f"version {CONTRACT_VERSION}")


async def _rights(nodes: Nodes, settings: Settings) -> list[Finding]:
    denied = await refusals(nodes, Keys(settings.prefix))
    if not denied:
        return [Finding("redis", "rights", "ok", f"a worker's, on keys {settings.prefix}:*")]
    fix = "Give this login the access list of a worker, see Access lists in the README."
    return [Finding("redis", "rights", "problem", text, fix) for text in denied]
