from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from stream import contact
from stream.errors import ConfigurationError, RivuletError, UnavailableError


class Nobody:
    """A connection to a server that knows no broker, not even itself."""

    closed = False

    async def send(self, _: Any) -> Any:
        return SimpleNamespace(brokers=[])

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("security", "meaning", "said"),
    [
        ({}, UnavailableError, "may have just begun"),
        ({"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"}, UnavailableError, "may have just begun"),
        (
            {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER"},
            ConfigurationError,
            "RIVULET_KAFKA_TOKEN_FILE",
        ),
    ],
)
async def test_a_server_that_names_no_broker_is_no_refused_login_unless_tokens_are_refused_so(
    monkeypatch: pytest.MonkeyPatch, security: dict[str, Any], meaning: type[RivuletError], said: str
) -> None:
    """A broker thawed after its session does so for a moment: a worker that started then ended for good."""
    connection = Nobody()

    async def create_conn(*_: Any, **__: Any) -> Nobody:
        return connection

    monkeypatch.setattr(contact, "create_conn", create_conn)
    with pytest.raises(meaning, match=said):
        await contact.dial("127.0.0.1:9092", **security)
    assert connection.closed
