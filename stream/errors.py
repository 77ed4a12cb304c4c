"""Errors that callers are meant to catch; each message is one line that says what to do about it."""

from __future__ import annotations


class RivuletError(Exception):
    """Base of every error Rivulet raises on purpose."""


class ConfigurationError(RivuletError):
    """A setting, address, credential or permission is wrong; retrying does not help."""


class UnavailableError(RivuletError):
    """A server did not answer; the same call may succeed later."""


class BadInputError(RivuletError):
    """Data that does not follow its contract."""
