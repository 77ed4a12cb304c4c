"""Redis' address from several settings, and what is shown of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from redis.asyncio.connection import parse_url

from stream.errors import ConfigurationError
from stream.nodes import split_url
from stream.redis_address import redis_address, without_password
from stream.settings import Settings

WORDS = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=12)


@given(WORDS, WORDS)
def test_any_login_arrives_and_none_is_shown(user: str, password: str) -> None:
    settings = Settings(redis="redis://h:1/2", redis_username=user, redis_password=SecretStr(password))
    found: dict[str, Any] = dict(parse_url(redis_address(settings)))
    assert (found["username"], found["password"], found["host"], found["db"]) == (user, password, "h", 2)
    assert without_password(f"redis://u:{quote(password, safe='')}@h:1/2") == "redis://u:***@h:1/2"


def test_settings_go_before_the_url() -> None:
    settings = Settings(redis="redis://a:b@h/0", redis_password=SecretStr("c"))
    assert redis_address(settings) == "redis://a:c@h/0"
    assert redis_address(Settings(redis="redis://a:b@h/0")) == "redis://a:b@h/0"
    assert redis_address(Settings(redis="unix:///run/redis.sock")) == "unix:///run/redis.sock"


@pytest.mark.parametrize("url", ["", "http://h", "h:6379", "redis:/h"])
def test_what_begins_otherwise_is_told_all_forms(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^bad Redis address .*redis\+cluster://.* or unix://$"):
        split_url(url)


def test_tls_files_of_a_cluster(tmp_path: Path) -> None:
    ca = tmp_path / "c a&b.pem"
    ca.write_text("")
    settings = Settings(redis="rediss+cluster://h:1/?socket_timeout=3", redis_ca=ca, redis_check_hostname=False)
    plain, cluster = split_url(redis_address(settings))
    found: dict[str, Any] = dict(parse_url(plain))
    assert cluster
    assert (found["ssl_ca_certs"], found["ssl_check_hostname"], found["socket_timeout"]) == (str(ca), False, 3.0)
    with pytest.raises(ConfigurationError, match=r"^RIVULET_REDIS=redis://h/0 does not use TLS"):
        redis_address(Settings(redis="redis://h/0", redis_ca=ca))
    with pytest.raises(ConfigurationError, match=r"^RIVULET_REDIS_KEY=.*: No such file"):
        redis_address(Settings(redis="rediss://h/0", redis_key=tmp_path / "none"))
