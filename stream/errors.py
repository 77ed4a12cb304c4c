"""Errors that callers are meant to catch; each message is one line that says what to do about it."""

from __future__ import annotations

from typing import ClassVar


class RivuletError(Exception):
    """Base of every error Rivulet raises on purpose; `exit_code` is the command line's when one ends it."""

    exit_code: ClassVar[int] = 1


class ConfigurationError(RivuletError):
    """A setting, address, credential or permission is wrong; retrying does not help."""

    exit_code: ClassVar[int] = 2


class UnavailableError(RivuletError):
    """A server did not answer; the same call may succeed later."""

    exit_code: ClassVar[int] = 3


class BadInputError(RivuletError):
    """Data that does not follow its contract."""

    exit_code: ClassVar[int] = 4


def redis_away(why: object) -> UnavailableError:
    """Redis did not answer; says what to look at.

    Examples
    --------
    >>> str(redis_away("no answer within 1 s"))[:44]
    'Redis does not answer (no answer within 1 s)'
    """
    return UnavailableError(
        f"Redis does not answer ({why}): is it up, is RIVULET_REDIS right, does its port speak TLS (rediss://) or not,"
        " does it want a client certificate (RIVULET_REDIS_CERTIFICATE)?"
    )
