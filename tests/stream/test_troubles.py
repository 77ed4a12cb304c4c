"""Work that fails in every round is one line, not one per round."""

from __future__ import annotations

from structlog.testing import capture_logs

from stream.errors import UnavailableError
from stream.troubles import AGAIN_S, Troubles


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_failure_is_told_when_it_begins_once_a_minute_and_when_it_is_over() -> None:
    clock = Clock()
    troubles = Troubles(clock)
    away = UnavailableError("Redis does not answer")
    with capture_logs() as lines:
        for _ in range(int(2.5 * AGAIN_S / 0.25)):
            troubles.failed("tell", away)
            troubles.done("publish")
            clock.now += 0.25
        troubles.done("tell")
        troubles.done("tell")
    assert [(line["event"], line["what"], line["times"]) for line in lines] == [
        ("background_work_failed", "tell", 1),
        ("background_work_failed", "tell", 241),
        ("background_work_failed", "tell", 481),
        ("background_work_goes_on", "tell", 600),
    ]
    assert lines[0]["reason"] == "Redis does not answer"
    assert lines[-1]["seconds"] == 150


def test_each_work_has_a_line_of_its_own_and_a_new_failure_is_told_at_once() -> None:
    troubles = Troubles(Clock())
    with capture_logs() as lines:
        for what in ("tell", "publish", "tell"):
            troubles.failed(what, OSError())
        troubles.done("tell")
        troubles.failed("tell", OSError("again"))
    assert [(line["event"][16:], line["what"]) for line in lines] == [
        ("failed", "tell"),
        ("failed", "publish"),
        ("goes_on", "tell"),
        ("failed", "tell"),
    ]
