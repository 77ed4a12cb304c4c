"""Settings: from flags, then the environment (``RIVULET_*``), then a file, then the defaults.

``rivulet settings`` prints them with their sources.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from stream.events import MAX_ELEMENTS, MAX_RECORD_BYTES
from stream.settings_file import file_source

_ORIGIN = re.compile(r"[A-Za-z][\w+.-]*://[^\s/,?#]+/?")
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Partitions = Annotated[int, Field(ge=1, le=10_000)]


def _servers(value: str) -> str:
    """Refuse what is no list of host:port; librdkafka and aiokafka would call it a server that is away."""
    for server in value.split(","):
        host, colon, port = server.strip().rpartition(":")
        if not (host and colon and port.isdecimal() and 0 < int(port) < 65_536):
            raise ValueError(f"{server.strip()!r} is not host:port")
    return value


def _origins(value: str) -> str:
    """A page's origin has a scheme and no path; what has not would never be met."""
    for origin in filter(None, map(str.strip, value.split(","))):
        if origin not in ("*", "null") and not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r} is no origin such as https://shop.example")
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class Settings(BaseSettings):
    """Everything an operator can set. Each field's description is its row in the README."""

    model_config = SettingsConfigDict(env_prefix="RIVULET_", extra="ignore", frozen=True)

    kafka: Annotated[str, AfterValidator(_servers)] = Field(
        "127.0.0.1:9092", description="Kafka bootstrap servers, comma-separated"
    )
    redis: str = Field("redis://127.0.0.1:6379/0", description="Redis URL (redis://, rediss://, redis+cluster://)")
    prefix: str = Field("rv", description="Prefix of every Redis key")
    group: str = Field("rivulet", min_length=1, description="Kafka consumer group; one group is one installation")
    topic_prefix: str = Field("", description="Put in front of every topic name")
    events_partitions: Partitions = Field(4, description="Partitions of topic events (P)")
    covisits_partitions: Partitions = Field(4, description="Partitions of topic covisits (Q)")
    snapshot_folder: Annotated[str, BeforeValidator(str)] = Field(
        ".rivulet/snapshots", description="Folder of snapshots or its fsspec URL (s3://...), shared by all workers"
    )
    snapshot_every_s: Positive = Field(30.0, description="Seconds between snapshots of a shard")
    snapshot_keep: int = Field(3, ge=2, description="Snapshots kept per shard")
    snapshot_key: SecretStr = Field(
        SecretStr(""), description="Signs snapshots; others are refused (environment only; none = neither)"
    )

    history: int = Field(20, ge=1, le=127, description="Items remembered per user")
    neighbours: int = Field(100, ge=1, le=255, description="Neighbours kept per item")
    transitions: int = Field(20, ge=1, le=255, description="Next items kept per item")
    half_life_days: Positive = Field(30.0, description="Event time in which what was learned loses half its weight")
    users: int = Field(10_000_000, ge=1, description="Most users kept per partition of topic events")
    items: int = Field(500_000, ge=1, description="Most items with neighbours kept per partition of topic covisits")
    k: int = Field(20, ge=1, le=100, description="Items per pushed list")
    segments: int = Field(8, ge=2, le=63, description="Number of user segments")
    sample_rate: float = Field(1 / 16, ge=0, le=1, description="Share of events whose user is sampled for clustering")
    ranking: Literal["blend", "covisit"] = Field(
        "blend", description="What ranks lists and offers: the blend, or co-visitation alone (cheaper)"
    )
    blend_frozen: bool = Field(
        False, description="Keep the blend's weights and constants as they are instead of learning them"
    )
    blend_rate: Positive = Field(
        0.05, description="Learning rate of these weights: higher adapts faster and is noisier"
    )
    near: Positive = Field(
        1.5, description="Exponent of 1/i, the vote of a visitor's i-th latest item: higher listens to the newest more"
    )
    step_share: Positive = Field(
        0.5, description="Extra vote of the newest item's next ones, where co-visitation alone ranks"
    )
    placements: Path | None = Field(
        None, description="TOML file of placements with lists of their own (see Placements); none = `recs` alone"
    )
    served: bool = Field(
        False, description="Log every list that is written on topic served, not only those that explore"
    )
    link: bool = Field(
        True, description="What a visitor touched before logging in counts as the customer's (see Anonymous visitors)"
    )
    lateness_hours: Positive = Field(24.0, description="Events older than the watermark by more are not learned")
    dedup: int = Field(1_000_000, ge=1, description="Event ids remembered per partition")
    tombstones: int = Field(1_000_000, ge=1, description="Forgotten users remembered per partition of topic events")
    consent_default: Literal["granted", "denied"] = Field("granted", description="Consent where an event says nothing")

    publish_every_s: Positive = Field(5.0, description="At most so often per key: similar, nb, trending, segment")
    skew_records: int = Field(256, ge=1, description="Pause events while covisits lags by more records")
    batch_records: int = Field(2_000, ge=1, le=100_000, description="Most records a stage takes at once")
    session_s: Positive = Field(10.0, description="Kafka session timeout")
    on_gap: Literal["stop", "accept"] = Field(
        "stop",
        description="A hole in the log that the broker does not explain, or snapshots gone with the start of the log",
    )

    stall_s: Positive = Field(120.0, description="A worker with work that stands still for longer ends: exit code 70")
    ready_records: int = Field(10_000, ge=0, description="Most records a partition may lag on a ready worker")
    web_host: str = Field("127.0.0.1", description="Address of the worker's web port; it has no login")
    web_port: int = Field(6066, ge=0, le=65_535, description="The worker's web port; 0 = none")
    gateway_host: str = Field("127.0.0.1", description="Address of `rivulet gateway`; elsewhere write keys are needed")
    gateway_port: int = Field(6080, ge=1, le=65_535, description="Port of `rivulet gateway`")
    gateway_private_host: str = Field("127.0.0.1", description="Address of its private port, which has no login")
    gateway_private_port: int = Field(
        6081,
        ge=0,
        le=65_535,
        description="Its port for /readyz and /metrics, which the other one does not show; 0 = none",
    )
    gateway_keys: SecretStr = Field(
        SecretStr(""),
        description="Write keys as `source:key,...` (environment only); * = anybody may write",
    )
    gateway_origins: Annotated[str, AfterValidator(_origins)] = Field(
        "", description="Origins whose pages may write, comma-separated; * = all"
    )
    gateway_bytes: int = Field(
        MAX_RECORD_BYTES, ge=1_024, le=MAX_RECORD_BYTES, description="Most bytes of a request, unpacked"
    )
    gateway_events: int = Field(MAX_ELEMENTS, ge=1, le=MAX_ELEMENTS, description="Most events of a request")
    gateway_rate: float = Field(1_000.0, ge=0, description="Events per second and client address; 0 = no limit")
    gateway_key_rate: float = Field(0.0, ge=0, description="Events per second and write key; 0 = no limit")
    gateway_proxies: int = Field(
        0, ge=0, le=10, description="Own proxies in front, whose X-Forwarded-For is believed for the client address"
    )
    gateway_queue_mb: int = Field(64, ge=4, description="MiB of requests read or waiting for Kafka; above it 503")
    gateway_body_s: Positive = Field(10.0, description="How long a request's body may take to arrive")
    gateway_ack_s: Positive = Field(10.0, description="How long a request waits for Kafka's acknowledgement")

    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        "info", description="Least severe log lines shown"
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="Log lines as JSON or for people; auto = for people on a terminal, else JSON"
    )

    compression: Literal["none", "lz4", "zstd", "gzip"] = Field(
        "none", description="Compression of what workers send; lz4 halves topic covisits for about 2 us per event"
    )
    kafka_security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Security protocol towards Kafka"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "PLAIN", description="SASL mechanism, with a SASL protocol"
    )
    kafka_username: str = Field("", description="SASL user name")
    kafka_password: SecretStr = Field(SecretStr(""), description="SASL password (environment only)")
    kafka_token_file: Path | None = Field(
        None, description="File with the token for OAUTHBEARER, read at each login; something else keeps it fresh"
    )
    kafka_ca: Path | None = Field(None, description="CA file for TLS; none = the system's")
    kafka_certificate: Path | None = Field(None, description="Client certificate for TLS (PEM)")
    kafka_key: Path | None = Field(None, description="Its private key (PEM), if it is not in the same file")
    kafka_key_password: SecretStr = Field(SecretStr(""), description="Password of that key (environment only)")
    kafka_check_hostname: bool = Field(True, description="Whether the broker's certificate must name its host")

    redis_username: str = Field("", description="Redis user (ACL); none = the one in the URL, or the default user")
    redis_password: SecretStr = Field(
        SecretStr(""), description="Redis password; none = the one in the URL (environment only)"
    )
    redis_ca: Path | None = Field(None, description="CA file for rediss://; none = the system's")
    redis_certificate: Path | None = Field(None, description="Client certificate for rediss:// (PEM)")
    redis_key: Path | None = Field(None, description="Its private key (PEM), if it is not in the same file")
    redis_check_hostname: bool = Field(True, description="Whether Redis' certificate must name its host")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, file, in this order."""
        return init_settings, env_settings, file_source(settings_cls)

    def topic(self, role: str) -> str:
        """Name of a topic by its role (``dlq`` is ``events.dlq``)."""
        return self.topic_prefix + ("events.dlq" if role == "dlq" else role)
