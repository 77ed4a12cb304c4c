"""Servers as careful operators run them: TLS, logins and access lists, with certificates made for the occasion."""

from __future__ import annotations

import argparse
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import redis
import trustme
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # exported without saying so
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.brokers import KafkaBroker, MissingPartError, RedisServer, free_ports, wait_for
from tests.patience import PATIENCE_S

README = Path(__file__).parents[1] / "README.md"
KAFKA_USERS = {name: f"{name}-kafka" for name in ("worker", "producer", "stock", "privacy", "operator", "stranger")}


def readme_acls(language: str) -> list[str]:
    """Lines of the README's example access lists: ``console`` for Kafka, ``text`` for Redis."""
    _, _, rest = README.read_text(encoding="utf-8").partition("<!-- access lists:")
    block = rest.partition(f"```{language}\n")[2].partition("```")[0]
    return [line.removeprefix("$ ") for line in block.splitlines()]


class Certificates:
    """An authority of our own, and what it has signed, as PEM files in a folder.

    Attributes
    ----------
    ca, other_ca
        Certificate of the authority, and of one that has signed nothing.
    server, server_key
        For ``127.0.0.1`` and ``localhost``.
    elsewhere, elsewhere_key
        For another host.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rivulet-certificates-"))
        self._authority = trustme.CA()
        self.ca = self._write("ca.pem", self._authority.cert_pem.bytes())
        self.other_ca = self._write("other-ca.pem", trustme.CA().cert_pem.bytes())
        self.server, self.server_key = self.issue("server", "127.0.0.1", "localhost")
        self.elsewhere, self.elsewhere_key = self.issue("elsewhere", "elsewhere.example")

    def issue(self, name: str, *identities: str, password: str = "") -> tuple[Path, Path]:
        """Files of a certificate with common name `name`, and of its key, locked if there is a password."""
        made = self._authority.issue_cert(*identities, common_name=name)
        key = load_pem_private_key(made.private_key_pem.bytes(), None)
        lock = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        chain = b"".join(part.bytes() for part in made.cert_chain_pems)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)  # the form that Kafka reads, too
        return self._write(f"{name}.pem", chain), self._write(f"{name}-key.pem", pem)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path


class SecureKafka(KafkaBroker):
    """A broker with TLS, logins and the standard authorizer.

    ``bootstrap`` is for the tests themselves: an unprotected listener whose clients are super users. ``secure`` wants
    TLS and a login (PLAIN, SCRAM or OAUTHBEARER), ``mutual`` a client certificate, ``misnamed`` shows one for another
    host.

    Parameters
    ----------
    certificates
        Used by server and clients.
    users
        Passwords by name, known to PLAIN and SCRAM.
    """

    def __init__(self, certificates: Certificates, users: Mapping[str, str]) -> None:
        ports = free_ports(4)
        plain, self._secure, self._mutual, self._misnamed = ports
        names = ("SECURE", "MUTUAL", "MISNAMED")
        listeners = ",".join(f"{n}://127.0.0.1:{p}" for n, p in zip(("PLAINTEXT", *names), ports, strict=True))
        controller = free_ports(1)[0]
        logins = " ".join(f'user_{name}="{word}"' for name, word in users.items())
        modules = "org.apache.kafka.common.security"
        settings: dict[str, str | int] = {
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL,MUTUAL:SSL,"
            "MISNAMED:SASL_SSL",
            "inter.broker.listener.name": "PLAINTEXT",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",  # the broker itself, and who comes by the unprotected listener
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(certificates.ca),
            "listener.name.mutual.ssl.client.auth": "required",
            "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/,DEFAULT",
        }
        for listener, (certificate, key) in {
            "secure": (certificates.server, certificates.server_key),
            "mutual": (certificates.server, certificates.server_key),
            "misnamed": (certificates.elsewhere, certificates.elsewhere_key),
        }.items():
            store = certificates.folder / f"{listener}-keystore.pem"
            store.write_bytes(key.read_bytes() + certificate.read_bytes())
            settings[f"listener.name.{listener}.ssl.keystore.type"] = "PEM"
            settings[f"listener.name.{listener}.ssl.keystore.location"] = str(store)
        for listener in ("secure", "misnamed"):
            for mechanism, module in {
                "plain": f"{modules}.plain.PlainLoginModule required {logins};",
                "scram-sha-256": f"{modules}.scram.ScramLoginModule required;",
                "scram-sha-512": f"{modules}.scram.ScramLoginModule required;",
                "oauthbearer": f"{modules}.oauthbearer.OAuthBearerLoginModule required"
                ' unsecuredLoginStringClaim_sub="broker";',
            }.items():
                settings[f"listener.name.{listener}.{mechanism}.sasl.jaas.config"] = module
        super().__init__(settings)
        self.port, self.bootstrap = plain, f"127.0.0.1:{plain}"
        self._format = [
            part
            for name, word in users.items()
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for part in ("--add-scram", f"{mechanism}=[name={name},password={word}]")
        ]

    @property
    def secure(self) -> str:
        return f"127.0.0.1:{self._secure}"

    @property
    def mutual(self) -> str:
        return f"127.0.0.1:{self._mutual}"

    @property
    def misnamed(self) -> str:
        return f"127.0.0.1:{self._misnamed}"

    def allow(self, command: str) -> None:
        """Do what ``kafka-acls.sh --add`` does, of which the README has examples."""
        parser = argparse.ArgumentParser(exit_on_error=True, allow_abbrev=False)
        parser.add_argument("--bootstrap-server")
        parser.add_argument("--add", action="store_true", required=True)
        parser.add_argument("--allow-principal", required=True)
        parser.add_argument("--operation", action="append", required=True)
        parser.add_argument("--topic", action="append", default=[])
        parser.add_argument("--group", action="append", default=[])
        program, *arguments = shlex.split(command)
        assert program == "kafka-acls.sh"
        asked = parser.parse_args(arguments)
        resources = [(ResourceType.TOPIC, name) for name in asked.topic]
        resources += [(ResourceType.GROUP, name) for name in asked.group]
        bindings = [
            AclBinding(
                kind,
                name,
                ResourcePatternType.LITERAL,
                asked.allow_principal,
                "*",
                AclOperation[operation.upper()],
                AclPermissionType.ALLOW,
            )
            for kind, name in resources
            for operation in asked.operation
        ]
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        for future in admin.create_acls(bindings).values():
            future.result(30)
        anything: Any = None  # what the filter's annotations do not know
        whose = AclBindingFilter(
            ResourceType.ANY, anything, ResourcePatternType.ANY, asked.allow_principal, anything, AclOperation.ANY,
            AclPermissionType.ANY,
        )  # fmt: skip
        wait_for(
            lambda: set(bindings) <= set(admin.describe_acls(whose).result(30)),
            PATIENCE_S,
            "the broker does not know the ACLs",
        )


class SecureRedis(RedisServer):
    """A Redis that speaks TLS only and knows users by an access list; ``admin`` may do everything.

    Parameters
    ----------
    certificates
        Used by server and clients.
    acls
        Rules as ``ACL SETUSER`` takes them, one per user.
    strict
        Clients must show a certificate, and the server's own is for another host: who wants in must say that this is
        meant.
    """

    def __init__(self, certificates: Certificates, acls: Sequence[str] = (), *, strict: bool = False) -> None:
        folder = Path(tempfile.mkdtemp(prefix="rivulet-acl-"))
        self._rules = folder
        users = folder / "users.acl"
        users.write_text("\n".join(["user default off", "user admin on >admin-secret ~* &* +@all", *acls]) + "\n")
        server, key = certificates.server, certificates.server_key
        shown = (certificates.elsewhere, certificates.elsewhere_key) if strict else (server, key)
        super().__init__(
            options={
                "tls-cert-file": str(shown[0]),
                "tls-key-file": str(shown[1]),
                "tls-ca-cert-file": str(certificates.ca),
                "tls-auth-clients": "yes" if strict else "no",
                "aclfile": str(users),
            }
        )
        self._ca = certificates.ca
        self._options |= {"tls-port": str(self.port), "port": "0"}
        self.address = f"rediss://127.0.0.1:{self.port}/0"
        self.url = f"rediss://admin:admin-secret@127.0.0.1:{self.port}/0?ssl_ca_certs={certificates.ca}"
        if strict:
            self.url += f"&ssl_certfile={server}&ssl_keyfile={key}&ssl_check_hostname=false"

    def start(self, timeout: float = PATIENCE_S) -> Self:
        try:
            return super().start(timeout)
        except RuntimeError as error:
            if "tls" in str(error).lower():
                raise MissingPartError(f"no Redis with TLS: {self._binary} was built without it") from error
            raise

    def client_of(self, user: str, password: str) -> redis.Redis:
        """A synchronous client of one user."""
        return redis.Redis(
            host="127.0.0.1", port=self.port, ssl=True, ssl_ca_certs=str(self._ca), username=user, password=password
        )

    def close(self) -> None:
        super().close()
        shutil.rmtree(self._rules, ignore_errors=True)
