"""``rivulet demo``: everything on this machine, with pip alone: broker, Redis, worker and a shop full of visitors."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape

from stream.cli.common import variable
from stream.cli.compile_ import compile_with_progress
from stream.demo.shop_catalogue import PERSONAS
from stream.demo.stage import DemoStage, Summary
from stream.keys import Reason
from stream.settings import Settings
from stream.settings_file import VARIABLE


def demo(
    duration: Annotated[float | None, typer.Option(help="End after so many seconds.", min=1)] = None,
    rate: Annotated[float, typer.Option(help="Events per second.", min=1, max=5_000)] = 200.0,
    seed: Annotated[int, typer.Option(help="Seed of the shop.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print only the final summary, as JSON.")] = False,
) -> None:
    """Run broker, Redis, worker and a synthetic shop; Ctrl-C ends all of it and leaves nothing behind.

    Settings of other installations, in the environment or a file, are passed over.

    Example: rivulet demo --duration 60 --rate 500
    """
    console = Console(stderr=True, quiet=json)
    compile_with_progress("preparing kernels (about a minute the first time)")
    with _alone():
        summary = asyncio.run(_show(DemoStage(seed=seed, rate=rate), duration, console))
    if json:
        typer.echo(msgspec.json.encode(summary).decode())
    else:
        console.print(f"[bold]ended[/]: {summary.events:,} events, {summary.users_with_recs:,} users with lists")


@contextmanager
def _alone() -> Iterator[None]:
    """Without this shell's settings: a prefix or a login of another installation would fit neither broker nor Redis."""
    names = {VARIABLE, *map(variable, Settings.model_fields)} & os.environ.keys()
    kept = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(kept)


async def _show(stage: DemoStage, duration: float | None, console: Console) -> Summary:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stage.stop.set)
    async with stage:
        console.print(_welcome(stage), soft_wrap=True)  # lines to copy must not be broken
        running = asyncio.create_task(stage.run(duration))
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            while not running.done():
                await asyncio.wait([running], timeout=0.5)
                if not running.done():
                    live.update(_line(await stage.summary()) + _reasons(*await stage.glimpse()))
        return await running


def _welcome(stage: DemoStage) -> str:
    item, other = stage.traffic.shop.rules[0][0], stage.traffic.shop.rules[-1][0]
    known = PERSONAS[0]
    personas = ", ".join(f"{persona.visitor} ({persona.name})" for persona in PERSONAS)
    rivulet = sys.argv[0] if sys.argv[0].endswith("/rivulet") else "rivulet"  # as this one was started
    return f"""[bold]Rivulet is running.[/] Kafka {stage.kafka}, Redis {stage.redis}

In another terminal, look at a visitor's list, send one event, look again; then the same for one of your own:

  export RIVULET_KAFKA={stage.kafka} RIVULET_REDIS={stage.redis}
  {rivulet} get {known.visitor} --why         # {known.name}
  echo '{{"event_name":"view_item","user_id":"{known.visitor}","item_id":"{other}"}}' | {rivulet} publish -
  {rivulet} get {known.visitor} --why
  {rivulet} get you                # nobody knows you: what everybody likes
  echo '{{"event_name":"view_item","user_id":"you","item_id":"{item}"}}' | {rivulet} publish -
  {rivulet} get you --why --offers

The shop's visitors, one of each kind: {personas}. Ctrl-C ends everything.
"""


def _line(s: Summary) -> str:
    return (
        f"{s.events:,} events, {s.events_per_s:,.0f}/s, {s.users:,} users, {s.users_with_recs:,} with lists, "
        f"{s.users_with_offers:,} with offers, freshness p50 {s.freshness_p50_ms:.0f} ms p99 "
        f"{s.freshness_p99_ms:.0f} ms, hit rate {s.hit_rate:.1%}\n"
        f"blend: {', '.join(f'{name} {weight:.2f}' for name, weight in s.weights.items())}, {s.drifts} drifts, "
        f"trending over {', '.join(f'{memory:,}' for memory in s.memories)} touches\n"
        f"reasons: {', '.join(f'{model} {count:,}' for model, count in s.reasons.items())}\n"
    )


def _reasons(visitor: str, listed: list[tuple[str, Reason]]) -> str:
    """What a visitor is shown and why, in one line."""
    said = "; ".join(f"{item} ({model}{f' {origin}' if origin else ''})" for item, (origin, model) in listed)
    return escape(f"{visitor}: {said or 'no list yet'}")
