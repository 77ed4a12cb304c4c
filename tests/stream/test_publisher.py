from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (  # type: ignore[import-untyped]  # no py.typed
    KafkaConnectionError,
    MessageSizeTooLargeError,
    NotEnoughReplicasError,
    TopicAuthorizationFailedError,
)
from hypothesis import given
from hypothesis import strategies as st

from stream import publisher
from stream.errors import ConfigurationError, UnavailableError
from stream.publisher import AT_ONCE, Publisher, chunks
from stream.settings import Settings
from stream.stages.sends import Send


class Broker:
    """Acknowledges everything sent so far when it is asked about the first of it, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.sent = 0
        self.waiting: list[int] = []

    async def send(self, *_: Any, **__: Any) -> asyncio.Future[Any]:
        if self.error is not None:
            raise self.error
        self.sent += 1
        self.waiting.append(self.sent)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(self._acknowledge, future, self.sent - 1)
        return future

    def _acknowledge(self, future: asyncio.Future[Any], offset: int) -> None:
        future.set_result(SimpleNamespace(partition=0, offset=offset))


def publisher_to(broker: Broker) -> Publisher:
    made = Publisher(Settings())
    made._producer = broker
    return made


@pytest.mark.parametrize("error", [MessageSizeTooLargeError(), TopicAuthorizationFailedError()])
async def test_what_waiting_does_not_cure_is_not_called_away(error: Exception) -> None:
    with pytest.raises(ConfigurationError, match=r"refuses records for covisits \(the largest has 5 bytes\)"):
        await publisher_to(Broker(error)).send([Send("covisits", b"12345")])


@pytest.mark.parametrize("error", [KafkaConnectionError(), NotEnoughReplicasError()])
async def test_what_passes_is_called_away(error: Exception) -> None:
    with pytest.raises(UnavailableError):
        await publisher_to(Broker(error)).send([Send("covisits", b"12345")])


async def test_many_records_are_sent_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "AT_ONCE", 10)
    broker = Broker()
    made = publisher_to(broker)
    rounds: list[int] = []
    gather = asyncio.gather

    async def counted(*futures: Any) -> Any:
        rounds.append(len(futures))
        return await gather(*futures)

    monkeypatch.setattr(asyncio, "gather", counted)
    await made.send([Send("dlq", b"x")] * 25)
    assert (rounds, made.acked) == ([10, 10, 5], {("dlq", 0): 24})


@given(st.lists(st.sampled_from([0, 1, 30, 90, 200]), max_size=12))
def test_chunks_are_all_of_it_in_order_and_bounded(sizes: list[int]) -> None:
    sends = [Send("dlq", b"0" * size, partition=n) for n, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(publisher, "AT_ONCE_BYTES", 90)
        found = list(chunks(sends))
    assert [send for chunk in found for send in chunk] == sends
    assert all(chunk and (len(chunk) == 1 or sum(len(s.value) for s in chunk) <= 90) for chunk in found)


def test_chunks_are_bounded_in_number() -> None:
    assert [len(chunk) for chunk in chunks([Send("dlq", b"")] * (2 * AT_ONCE + 1))] == [AT_ONCE, AT_ONCE, 1]
