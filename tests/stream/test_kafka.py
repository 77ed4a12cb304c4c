"""How Kafka's settings reach its clients: aiokafka's and Faust's must say the same."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from faust.types.auth import CredentialsT
from pydantic import SecretStr

from stream.app import faust_app
from stream.errors import ConfigurationError
from stream.kafka import client_options
from stream.settings import Settings
from tests.secure_servers import Certificates

LOGIN: dict[str, Any] = {"kafka_username": "u", "kafka_password": SecretStr("p")}


@pytest.mark.parametrize("security", ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512", "OAUTHBEARER"])
async def test_faust_connects_as_our_own_clients_do(security: Any, mechanism: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    settings = Settings(
        kafka_security=security, kafka_sasl_mechanism=mechanism, kafka_token_file=tmp_path / "token", **LOGIN
    )
    ours = client_options(settings)
    credentials: CredentialsT | None = faust_app(settings).conf.broker_credentials
    theirs = {name: value for name, value in credentials_to_aiokafka_auth(credentials).items() if value is not None}
    assert theirs.keys() == ours.keys()
    for name in ours.keys() - {"ssl_context", "sasl_oauth_token_provider"}:
        assert theirs[name] == ours[name]
    if "ssl_context" in ours:
        assert theirs["ssl_context"].verify_mode == ours["ssl_context"].verify_mode == ssl.CERT_REQUIRED
    if "sasl_oauth_token_provider" in ours:
        (tmp_path / "token").write_text("fresh\n")
        assert await theirs["sasl_oauth_token_provider"].token() == "fresh"


def test_certificates(certificates: Certificates, tmp_path: Path) -> None:
    certificate, key = certificates.issue("someone", "someone.example", password="lock")
    mine: dict[str, Any] = {
        "kafka_security": "SSL",
        "kafka_ca": certificates.ca,
        "kafka_certificate": certificate,
        "kafka_key": key,
    }
    context = client_options(Settings(**mine, kafka_key_password=SecretStr("lock")))["ssl_context"]
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1
    loose = client_options(Settings(**mine, kafka_key_password=SecretStr("lock"), kafka_check_hostname=False))
    assert not loose["ssl_context"].check_hostname
    assert loose["ssl_context"].verify_mode == ssl.CERT_REQUIRED
    for wrong in ({}, {"kafka_key_password": SecretStr("x")}, {"kafka_key": tmp_path / "none"}):
        with pytest.raises(ConfigurationError, match=r"^RIVULET_KAFKA_CERTIFICATE=.*; a locked key needs"):
            client_options(Settings(**(mine | wrong)))
