"""docker-compose.yml: valid by the Compose specification, with real setting names, open to this machine only."""

import json
import re
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from jsonschema.validators import validator_for
from typer.main import get_command

from stream.cli import build
from stream.settings import Settings
from stream.web.access import Access

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return document


@pytest.fixture(scope="module")
def specification() -> dict[str, Any]:
    # The package is not imported: it is installed for the schema files it keeps up to date.
    path = distribution("check-jsonschema").locate_file("check_jsonschema/builtin_schemas/vendor/compose-spec.json")
    schema: dict[str, Any] = json.loads(Path(str(path)).read_text())
    return schema


def test_follows_the_compose_specification(compose: dict[str, Any], specification: dict[str, Any]) -> None:
    validator_for(specification)(specification).validate(compose)


def test_the_specification_would_notice_a_mistake(compose: dict[str, Any], specification: dict[str, Any]) -> None:
    broken = {**compose, "services": {"worker": {**compose["services"]["worker"], "restrat": "always"}}}
    with pytest.raises(jsonschema.ValidationError, match="restrat"):
        validator_for(specification)(specification).validate(broken)


def test_environment_names_are_settings(compose: dict[str, Any]) -> None:
    for service in ("topics", "worker", "gateway", "shop"):
        names = compose["services"][service]["environment"]
        assert {name.removeprefix("RIVULET_").lower() for name in names} <= set(Settings.model_fields)
        assert all(name.startswith("RIVULET_") for name in names)


def test_ports_are_open_to_this_machine_only(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_images_are_pinned(compose: dict[str, Any]) -> None:
    images = [service["image"] for service in compose["services"].values()]
    build = compose["services"]["worker"]["build"]["dockerfile_inline"]
    images += [line.split()[1] for line in build.splitlines() if line.startswith("FROM ")]
    assert all(any(c.isdigit() for c in image.partition(":")[2]) for image in images), images


def test_the_worker_is_no_root_and_compiles_its_kernels_at_build(compose: dict[str, Any]) -> None:
    steps = compose["services"]["worker"]["build"]["dockerfile_inline"].splitlines()
    assert steps.index("USER rivulet") < steps.index("RUN rivulet compile")


def test_services_wait_for_what_they_need(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for service in services.values():
        for needed, how in service.get("depends_on", {}).items():
            healthy = how["condition"] == "service_healthy"
            assert healthy == ("healthcheck" in services[needed])
    assert set(services["worker"]["depends_on"]) == {"topics", "valkey"}


def parsed(service: dict[str, Any]) -> dict[str, Any]:
    """Parameters of the verb that a service calls."""
    verb, *arguments = service["command"]
    command: Any = get_command(build())
    found: dict[str, Any] = command.commands[verb].make_context(verb, arguments).params
    return found


def test_profiles_add_a_shop_and_a_gateway(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert {name: service.get("profiles") for name, service in services.items() if "profiles" in service} == {
        "shop": ["demo"],
        "gateway": ["gateway"],
    }
    assert parsed(services["shop"])["rate"] == 200
    for name in ("topics", "worker", "gateway"):
        assert services[name]["command"] == [name]
        parsed(services[name])


def test_the_gateway_takes_events_from_this_machine_and_shows_the_rest_to_nobody(compose: dict[str, Any]) -> None:
    service = compose["services"]["gateway"]
    given = {name.removeprefix("RIVULET_").lower(): value for name, value in service["environment"].items()}
    written: dict[str, Any] = {name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for name, value in given.items()}
    settings = Settings(**written)
    assert Access.of(settings, settings.gateway_host).closed == ""
    assert service["ports"] == [f"127.0.0.1:{settings.gateway_port}:{settings.gateway_port}"]
    assert settings.gateway_private_host == "127.0.0.1"
    assert f"http://127.0.0.1:{settings.gateway_private_port}/readyz" in service["healthcheck"]["test"][-1]
