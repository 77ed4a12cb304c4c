"""What the doctor says of what it has seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stream.doctor import machine
from stream.doctor.clocks import judge_clock
from stream.doctor.machine import check_machine
from stream.doctor.redis import judge_memory, judge_version, parse_info
from stream.doctor.topics import judge_copies, judge_topic
from stream.permissions import TopicFacts, complaints
from stream.settings import Settings
from stream.topics import layout

EVENTS = layout()[0]
RIGHTS = frozenset({"Read", "Write"})


def facts(partitions: int = 4, copies: int = 3, current: int = 3, **changes: Any) -> TopicFacts:
    replicas = dict.fromkeys(range(partitions), (copies, current))
    usual: dict[str, Any] = {"found": True, "hidden": False, "operations": RIGHTS, "replicas": replicas}
    return TopicFacts(**(usual | changes))


@pytest.mark.parametrize(
    ("seen", "changes", "state", "said"),
    [
        (facts(), {}, "ok", "4 partitions, delete"),
        (facts(partitions=3), {}, "problem", "3 partitions, the settings say 4"),
        (facts(found=False, replicas={}), {}, "problem", "it does not exist"),
        (facts(hidden=True, found=False, replicas={}), {}, "unknown", "may not see it"),
        (facts(current=2), {}, "problem", "partition 0: 2 of 3 copies"),
        (facts(), {"cleanup.policy": "compact"}, "problem", "cleanup.policy is compact, not delete"),
        (facts(), {"message.timestamp.type": "CreateTime"}, "problem", "not LogAppendTime"),
        (facts(), {"retention.ms": "1000"}, "warning", "retention.ms is 1000"),
    ],
)
def test_topics(seen: TopicFacts, changes: Mapping[str, str], state: str, said: str) -> None:
    finding = judge_topic(EVENTS, seen, dict(EVENTS.config) | dict(changes))
    assert (finding.state, said in finding.detail) == (state, True), finding
    assert bool(finding.fix) == (state != "ok")


def test_a_configuration_that_may_not_be_seen_is_said() -> None:
    finding = judge_topic(EVENTS, facts(), None)
    assert finding.state == "unknown"
    assert "DescribeConfigs" in finding.fix


def test_copies() -> None:
    (alone,) = judge_copies({"events": facts(copies=1, current=1), "items": facts()}, brokers=1)
    assert alone.state == "warning"
    assert "events" in alone.detail
    assert "items" not in alone.detail
    (fine,) = judge_copies({"events": facts(), "gone": facts(found=False)}, brokers=3)
    assert fine.state == "ok"
    assert judge_copies({"gone": facts(found=False)}, brokers=3) == []


def test_rights_name_operation_resource_and_command() -> None:
    settings = Settings(kafka="b:1", kafka_username="w", topic_prefix="x.")
    seen = {"x.events": facts(operations=frozenset({"Read"})), "x.offers": facts(operations=None)}
    needs = {"events": ("Read", "Write"), "offers": ("Read",)}
    first, second = complaints(settings, seen, needs, member=False)
    assert first == (
        "Kafka does not allow Write on topic x.events: kafka-acls.sh --bootstrap-server b:1 --add --allow-principal"
        " User:w --operation Write --topic x.events"
    )
    assert second.startswith("Kafka does not allow Read on group rivulet: kafka-acls.sh")
    assert complaints(settings, {name: facts() for name in seen}, needs, member=True) == []


@pytest.mark.parametrize(
    ("ahead", "uncertain", "state"), [(0.1, 0, "ok"), (-2.5, 0, "problem"), (2.5, 1, "ok"), (90, 0.1, "problem")]
)
def test_clocks(ahead: float, uncertain: float, state: str) -> None:
    assert judge_clock("redis", ahead, uncertain).state == state


def test_redis() -> None:
    info = parse_info(b"# Server\r\nredis_version:7.2.4\r\nvalkey_version:9.1.2\r\nrole:master\r\n")
    assert (judge_version("h:1", info).state, judge_version("h:1", info).detail) == ("ok", "h:1: Valkey 9.1.2, master")
    assert judge_version("h:1", info | {"role": "slave"}).state == "problem"
    assert judge_version("h:1", {"redis_version": "5.0.3", "role": "master"}).state == "warning"
    assert judge_memory("h:1", {"maxmemory": "1000", "maxmemory_policy": "volatile-ttl"}).state == "ok"
    assert judge_memory("h:1", {"maxmemory": "1000", "maxmemory_policy": "noeviction"}).state == "warning"
    assert judge_memory("h:1", {"maxmemory": "0", "maxmemory_policy": "noeviction"}).state == "warning"


def test_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIVULET_SEGMNETS", "9")
    monkeypatch.setattr(
        machine, "requires", lambda _: ["numpy>=2", "msgspec<0.1", "no-such-library>=1", "x; extra=='dev'"]
    )
    monkeypatch.setattr(machine, "are_kernels_compiled", lambda: False)
    found = {finding.check: finding for finding in check_machine(Settings(snapshot_folder=str(tmp_path)))}
    assert found["snapshots"].state == "ok"
    assert found["disk"].state in {"ok", "warning"}
    assert found["kernels"].fix == "Run `rivulet compile`."
    assert found["environment"].fix == "Did you mean RIVULET_SEGMENTS?"
    wrong = [each for each in check_machine(Settings(snapshot_folder="memory://x")) if each.check == "libraries"]
    assert [each.fix for each in wrong] == ["Run pip install 'msgspec<0.1'.", "Run pip install 'no-such-library>=1'."]


def test_a_folder_that_cannot_be_used_and_one_that_tells_no_room(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    bad = check_machine(Settings(snapshot_folder=str(tmp_path / "file" / "below")))[0]
    assert (bad.check, bad.state) == ("snapshots", "problem")
    remote = {finding.check: finding.state for finding in check_machine(Settings(snapshot_folder="memory://doctor"))}
    assert (remote["snapshots"], remote["disk"]) == ("ok", "unknown")


def test_a_file_of_placements_is_looked_at(tmp_path: Path) -> None:
    def found(text: str | None) -> list[tuple[str, str]]:
        file = tmp_path / "shop.toml"
        if text is not None:
            file.write_text(text)
        settings = Settings(snapshot_folder=str(tmp_path), placements=None if text is None else file)
        return [(each.state, each.detail) for each in check_machine(settings) if each.check == "placements"]

    assert found(None) == []
    assert found("[[placements]]\nname = 'home'") == [("ok", f"{tmp_path / 'shop.toml'} names home")]
    ((state, detail),) = found("[[placements]]\nname = 'home'\nk = -1")
    assert (state, detail) == (
        "problem",
        f"{tmp_path / 'shop.toml'}: placement 'home': k must be 1 to 100, not -1",
    )
