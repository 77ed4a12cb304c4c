"""A request that is turned away as a whole: its status and one sentence that says what to do."""

from __future__ import annotations


class TurnedAway(Exception):
    """No element of the request was looked at, or none was kept.

    Parameters
    ----------
    status
        HTTP status, 4xx or 503.
    error
        One sentence for whoever sent it.
    retry_s
        When to send it again, seconds; 0 if that does not help.
    """

    def __init__(self, status: int, error: str, retry_s: float = 0) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.retry_s = retry_s
