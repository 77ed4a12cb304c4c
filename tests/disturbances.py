"""What chaos does to a running installation: which disturbances come when, and how each is carried out.

A plan is a pure function of its seed; what it meets when it strikes is not.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

from stream.errors import UnavailableError
from tests.brokers import Server
from tests.worker_process import Installation, WorkerProcess

Kind = Literal["kill", "freeze", "add", "remove", "broker", "redis"]
OTHERS: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind != "kill")
POLL_S = 0.1
START_S = 180.0  # a busy machine is no fault


@dataclass(frozen=True, slots=True)
class Step:
    """One disturbance.

    Attributes
    ----------
    kind
        SIGKILL a worker, SIGSTOP one past the session timeout, add one, remove one (SIGTERM), restart Kafka or Redis.
    settle
        Whether everything before is drained first; else disturbances overlap.
    after_s
        Between the start of a burst of events and the disturbance.
    lasts_s
        How long a worker or server is away.
    hard
        Whether a server ends by SIGKILL.
    choice
        Which of the workers, as a share of 1.
    """

    kind: Kind
    settle: bool
    after_s: float
    lasts_s: float
    hard: bool
    choice: float


def plan(seed: int, kills: int, session_s: float) -> list[Step]:
    """`kills` kills and as many other disturbances, in random order."""
    dice = random.Random(seed)
    kinds: list[Kind] = ["kill"] * kills
    while len(kinds) < 2 * kills:
        kinds += dice.sample(OTHERS, min(len(OTHERS), 2 * kills - len(kinds)))  # each as often as the others
    dice.shuffle(kinds)
    return [
        Step(
            kind,
            dice.random() < 0.6,
            dice.uniform(0, 0.8),
            dice.uniform(1.1, 2.2) * session_s if kind == "freeze" else dice.uniform(0, session_s),
            dice.random() < 0.5,
            dice.random(),
        )
        for kind in kinds
    ]


@dataclass
class Fleet:
    """The workers of an installation under a supervisor, and the servers that may be restarted.

    Attributes
    ----------
    size
        Workers wanted at the start; the fleet has one to two more than that.
    done
        How often each kind of disturbance was carried out.
    restarted
        Workers that ended because a server did not answer while they started, and were started again.
    """

    shop: Installation
    kafka: Server
    redis: Server
    size: int
    done: Counter[str] = field(default_factory=Counter)
    restarted: int = 0
    _frozen: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self) -> None:
        """Start the wanted number of workers."""
        for _ in range(self.size):
            self.shop.start()

    @property
    def _free(self) -> list[WorkerProcess]:
        """Workers that run and were not told to end or frozen."""
        return [worker for worker in self.shop.workers if worker.running and not worker.told]

    async def settled(self) -> None:
        """Wait until every running worker owns something."""
        while True:
            owners = {int(owner.split("@")[0]) for owner in (await self.shop.progress.owners()).values()}
            if owners >= {worker.pid for worker in self._free}:
                return
            await asyncio.sleep(POLL_S)

    async def disturb(self, step: Step) -> None:
        """Carry out one disturbance; a freeze goes on in the background."""
        free = self._free
        act: dict[Kind, Callable[[Step, WorkerProcess], Awaitable[None]]] = {
            "kill": self._kill,
            "freeze": self._freeze,
            "remove": self._remove,
        }
        kind = step.kind
        if kind == "kill" and not free:  # a frozen one, then
            free = [worker for worker in self.shop.workers if worker.running] or [self.shop.start()]
        if kind in act and (not free or (kind == "remove" and len(free) == 1)):
            kind = "add"
        if kind == "add" and len(free) > self.size + 1:
            kind = "remove"
        self.done[kind] += 1
        if kind == "add":
            self.shop.start()
        elif kind in act:
            await act[kind](step, free[int(step.choice * len(free))])
        else:
            await self._restart(step, self.kafka if kind == "broker" else self.redis)

    async def _kill(self, step: Step, worker: WorkerProcess) -> None:
        worker.end(signal.SIGKILL)
        await asyncio.sleep(0 if step.hard else step.lasts_s)
        self.shop.start()

    async def _remove(self, step: Step, worker: WorkerProcess) -> None:
        worker.send(signal.SIGTERM)

    async def _freeze(self, step: Step, worker: WorkerProcess) -> None:
        worker.send(signal.SIGSTOP)
        self._frozen.append(asyncio.create_task(self._thaw(worker, step.lasts_s)))

    async def _thaw(self, worker: WorkerProcess, after_s: float) -> None:
        await asyncio.sleep(after_s)
        worker.send(signal.SIGCONT)
        worker.told = not worker.running  # it may have been killed meanwhile

    async def _restart(self, step: Step, server: Server) -> None:
        await asyncio.to_thread(server.kill if step.hard else server.stop)
        await asyncio.sleep(step.lasts_s)
        await asyncio.to_thread(server.start, START_S)

    def supervise(self) -> None:
        """Start again what gave up because a server was away; RuntimeError if a worker ended for another reason."""
        for worker in self.shop.workers:
            if worker.running or worker.told:
                continue
            code = worker.code
            if code != UnavailableError.exit_code:
                raise RuntimeError(f"worker {worker.pid} ended by itself with code {code}: {worker.output[-3000:]}")
            worker.told = True
            self.restarted += 1
            self.shop.start()

    async def calm(self) -> None:
        """Let every frozen worker go on, and see that one runs."""
        await asyncio.gather(*self._frozen)
        self.supervise()
        if not self._free:
            self.shop.start()

    async def stop(self) -> None:
        """SIGTERM all; RuntimeError if one does not end cleanly."""
        leaving = self._free
        codes = await asyncio.gather(*(worker.terminate() for worker in leaving))
        for worker, code in zip(leaving, codes, strict=True):
            if code != 0:
                raise RuntimeError(f"worker {worker.pid} ended with code {code} after SIGTERM: {worker.output[-3000:]}")
        await asyncio.gather(*(worker.exit_code() for worker in self.shop.workers))
