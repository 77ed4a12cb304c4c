"""Where Redis is and how to log in there, as one URL that redis-py understands; made of several settings."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from stream.errors import ConfigurationError
from stream.settings import Settings


def redis_address(settings: Settings) -> str:
    """Redis' URL with login and TLS as the settings say, for `RedisStore` and `Client`; holds the password.

    Raises
    ------
    ConfigurationError
        If a file does not exist, or TLS is set up for an address that does not use it.

    Examples
    --------
    >>> from pydantic import SecretStr
    >>> redis_address(Settings(redis="rediss://cache/0", redis_username="shop", redis_password=SecretStr("a/b")))
    'rediss://shop:a%2Fb@cache/0'
    """
    parts = urlsplit(settings.redis)
    options = _tls_options(settings)
    if options and not parts.scheme.startswith("rediss"):
        raise ConfigurationError(
            f"RIVULET_REDIS={without_password(settings.redis)} does not use TLS: write rediss:// instead of redis://,"
            " or do not set RIVULET_REDIS_CA, _CERTIFICATE, _KEY and _CHECK_HOSTNAME"
        )
    query = "&".join(filter(None, [parts.query, urlencode(options)]))
    return _url(parts, _location(settings, parts), query)


def without_password(url: str) -> str:
    """Return a URL fit to be shown.

    Examples
    --------
    >>> without_password("redis://shop:secret@cache:6379/0"), without_password("redis://cache/0?password=x")
    ('redis://shop:***@cache:6379/0', 'redis://cache/0?password=***')
    """
    parts = urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    user, colon, _ = login.partition(":")
    arguments = [
        "password=***" if argument.startswith("password=") else argument for argument in parts.query.split("&")
    ]
    return _url(parts, f"{user}{colon}{'***' if colon else ''}{at}{host}", "&".join(arguments))


def _url(parts: SplitResult, location: str, query: str) -> str:
    """Put together; urllib would leave out the two slashes of ``unix:///path``."""
    return f"{parts.scheme}://{location}{parts.path}{'?' if query else ''}{query}"


def _location(settings: Settings, parts: SplitResult) -> str:
    """Host and port with the login: that of the settings, else that of the URL."""
    login, _, host = parts.netloc.rpartition("@")
    user, colon, word = login.partition(":")
    if settings.redis_username:
        user = quote(settings.redis_username, safe="")
    if secret := settings.redis_password.get_secret_value():
        colon, word = ":", quote(secret, safe="")
    return f"{user}{colon}{word}@{host}" if user or word else host


def _tls_options(settings: Settings) -> dict[str, str]:
    files = {
        "ssl_ca_certs": ("RIVULET_REDIS_CA", settings.redis_ca),
        "ssl_certfile": ("RIVULET_REDIS_CERTIFICATE", settings.redis_certificate),
        "ssl_keyfile": ("RIVULET_REDIS_KEY", settings.redis_key),
    }
    options = {option: str(_existing(name, path)) for option, (name, path) in files.items() if path is not None}
    return options if settings.redis_check_hostname else options | {"ssl_check_hostname": "false"}


def _existing(name: str, path: Path) -> Path:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigurationError(f"{name}={path}: {error.strerror}") from error
    return path
