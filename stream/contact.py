"""First contact with Kafka: one connection, and one line that says why there is none.

aiokafka's clients log each refusal and end with "unable to bootstrap", whatever it was. To tell a wrong password from a
server that is down, one connection is dialled by hand, and whatever went wrong is told.
"""

from __future__ import annotations

import ssl
from typing import Any, Final

from aiokafka.conn import create_conn  # type: ignore[import-untyped]  # no py.typed
from aiokafka.errors import (  # type: ignore[import-untyped]  # no py.typed
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest  # type: ignore[import-untyped]  # no py.typed

from stream.errors import ConfigurationError, RivuletError, UnavailableError

PATIENCE_MS: Final = 10_000


async def dial(bootstrap: str, **security: Any) -> Any:
    """Connect to the first of these servers that answers, and log in.

    Parameters
    ----------
    bootstrap
        Addresses, ``host:port``, separated by commas.
    security
        ``security_protocol``, ``ssl_context``, ``sasl_*`` as aiokafka names them.

    Returns
    -------
    AIOKafkaConnection
        Close it with ``close()``.

    Raises
    ------
    ConfigurationError
        If a server refuses the login or the certificate, or is not spoken to as it wants; names the settings.
    UnavailableError
        If no server answers.
    """
    trouble: RivuletError = UnavailableError("RIVULET_KAFKA names no server")
    for server in bootstrap.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            connection = await create_conn(host.strip("[]"), int(port), request_timeout_ms=PATIENCE_MS, **security)
            answer = await connection.send(MetadataRequest([]))
            if not answer.brokers:
                connection.close()
                raise _nobody(security)
        except (KafkaError, OSError, TimeoutError, ValueError) as error:
            trouble = _explained(server.strip(), error, security)
            trouble.__cause__ = error
        else:
            return connection
    raise trouble


def _nobody(security: dict[str, Any]) -> KafkaError:
    """What it means that a server names no broker, not even itself.

    So a bad token is refused, but so speaks a broker, too, that has just begun or was frozen until its controller
    gave it up.
    """
    if security.get("sasl_mechanism") == "OAUTHBEARER":
        return AuthenticationFailedError("it names no broker")
    return KafkaConnectionError("it names no broker: it may have just begun, or lost its controller")


async def why_not(bootstrap: str, **security: Any) -> RivuletError:
    """Return the error that says why there is no connection, for a client that could not bring one about."""
    try:
        connection = await dial(bootstrap, **security)
    except RivuletError as error:
        return error
    connection.close()
    return UnavailableError(f"Kafka at {bootstrap} does not answer in time, but a new connection is taken: try again")


def _explained(server: str, error: Exception, security: dict[str, Any]) -> RivuletError:
    where = f"Kafka at {server}"
    protocol = security.get("security_protocol", "PLAINTEXT")
    mechanism = security.get("sasl_mechanism", "")
    match error:
        case ssl.SSLCertVerificationError():
            return ConfigurationError(
                f"{where} shows a certificate that is not trusted ({error.verify_message}): see RIVULET_KAFKA_CA and"
                " RIVULET_KAFKA_CHECK_HOSTNAME"
            )
        case ssl.SSLError():
            return ConfigurationError(
                f"{where} does not agree on TLS ({error.reason or error}): see RIVULET_KAFKA_SECURITY, which is"
                f" {protocol}, and RIVULET_KAFKA_CERTIFICATE"
            )
        case UnsupportedSaslMechanismError():
            return ConfigurationError(
                f"{where} does not offer SASL mechanism {mechanism}: see RIVULET_KAFKA_SASL_MECHANISM"
            )
        case IllegalSaslStateError():
            return ConfigurationError(f"{where} expects no login at this port: see RIVULET_KAFKA_SECURITY ({protocol})")
        case AuthenticationFailedError() | SaslAuthenticationFailed():
            return ConfigurationError(
                f"{where} refused the login ({error}): see RIVULET_KAFKA_SASL_MECHANISM and {_credentials(mechanism)}"
            )
        case ValueError():
            return ConfigurationError(f"RIVULET_KAFKA: {server!r} is not host:port ({error})")
    certificate = ", want a client certificate (RIVULET_KAFKA_CERTIFICATE)" if protocol == "SSL" else ""
    return UnavailableError(
        f"{where} does not answer ({str(error) or type(error).__name__}): is it up, is RIVULET_KAFKA right, does its"
        f" port speak {protocol} (RIVULET_KAFKA_SECURITY){certificate}?"
    )


def _credentials(mechanism: str) -> str:
    return (
        "RIVULET_KAFKA_TOKEN_FILE" if mechanism == "OAUTHBEARER" else "RIVULET_KAFKA_USERNAME, RIVULET_KAFKA_PASSWORD"
    )


def missing(topic: str) -> ConfigurationError:
    """The error that says that a topic is not there; a broker says the same where one may not look."""
    return ConfigurationError(
        f"topic {topic} does not exist: run `rivulet topics` to create it (or this login may not see it)"
    )
