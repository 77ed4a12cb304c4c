from __future__ import annotations

import structlog

from stream.outage import Outage


def test_each_change_is_one_line() -> None:
    now = 0.0
    outage = Outage("redis", lambda: now)
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            with outage.asking() as failed:
                for _ in range(100):
                    failed("refused")
                    assert outage.trouble == "refused"
                    now += 0.25
            with outage.asking():
                pass
            assert outage.trouble == ""
    assert [line["event"] for line in logs] == ["redis_away", "redis_back"] * 2
    assert logs[1]["seconds"] == 25


def test_it_is_not_back_while_somebody_still_waits() -> None:
    outage = Outage("redis")
    with structlog.testing.capture_logs() as logs, outage.asking() as failed:
        failed("one node is away")
        for _ in range(10):
            with outage.asking():  # the other nodes answer
                pass
            assert outage.trouble
    assert [line["event"] for line in logs] == ["redis_away", "redis_back"]


def test_giving_up_says_nothing_about_the_server() -> None:
    outage = Outage("redis")
    with structlog.testing.capture_logs() as logs:
        try:
            with outage.asking() as failed:
                failed("refused")
                raise RuntimeError
        except RuntimeError:
            pass
        assert outage.trouble == "refused"
        with outage.asking():
            pass
    assert outage.trouble == ""
    assert [line["event"] for line in logs] == ["redis_away", "redis_back"]
