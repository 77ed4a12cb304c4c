"""What this login may do on Redis: a worker's commands, tried on keys of a user who does not exist."""

from __future__ import annotations

from typing import Final

import hiredis

from stream.keys import Keys
from stream.nodes import Nodes
from stream.resp import pack

NOBODY: Final = b"rivulet-doctor"
# Said after the rights were looked at, about the server or what stands there: writes are waited for, or repair it.
NOT_RIGHTS: Final = {"OOM", "NOREPLICAS", "MISCONF", "BUSY", "WRONGTYPE"}
LIFETIME: Final = b"5"  # seconds; what is tried is deleted at once where that is allowed


async def refusals(nodes: Nodes, keys: Keys) -> list[str]:
    """What a worker would need and is refused, in Redis' words, each with its command; raises as `Nodes.greet`."""
    user = NOBODY.decode()
    string, hashed = keys.recs(user), keys.profile(user)
    commands = [
        (b"SET", string, b"{}", b"EX", LIFETIME),
        (b"MGET", string),
        (b"HSET", hashed, b"a", b"1"),
        (b"EXPIRE", hashed, LIFETIME),
        (b"HGET", hashed, b"a"),
        (b"HGETALL", keys.meta),
        (b"HDEL", hashed, b"b"),
        (b"SET", keys.similar(user), b"{}", b"EX", LIFETIME),
        (b"SET", keys.neighbours(user), b"{}", b"EX", LIFETIME),
        (b"DEL", string),
        (b"DEL", hashed),
        (b"DEL", keys.similar(user)),
        (b"DEL", keys.neighbours(user)),
    ]
    found = []
    for command in commands:
        (reply,) = await nodes.link(nodes.owner(command[1])).exchange([pack(*command)])
        if isinstance(reply, hiredis.ReplyError) and str(reply).partition(" ")[0] not in NOT_RIGHTS:
            found.append(f"{command[0].decode()} {command[1].decode()}: {reply}")
    return found
