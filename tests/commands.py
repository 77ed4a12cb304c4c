"""``rivulet`` as somebody would type it: processes of their own, with an installation's settings."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from tests.patience import PATIENCE_S
from tests.worker_process import Installation, environment


async def command(
    shop: Installation, *arguments: str, stdin: str = "", module: str = "stream.cli"
) -> tuple[int, str, str]:
    """Run ``rivulet``, or a module like it, as somebody would type it: exit code, output, errors."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        env=environment(shop.settings) | {"COLUMNS": "200"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def answer(shop: Installation, *arguments: str) -> Any:
    """What a command that waits for a worker prints as JSON."""
    code, out, err = await command(shop, *arguments, "--timeout", f"{PATIENCE_S:g}")
    assert code == 0, err + await shop._state() + str(await shop.progress.facts())
    return json.loads(out)
