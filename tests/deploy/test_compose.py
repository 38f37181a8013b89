"""deploy/compose.yaml and the settings beside it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from retrieval.cli.app import app
from retrieval.config import Settings, load_settings

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
CONFIGS = ("ragstone.toml", "ragstone.vllm.toml")


def seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)(s|m)", text)
    assert match, text
    return int(match[1]) * (60 if match[2] == "m" else 1)


def test_the_server_runs_alone_and_everything_else_by_profile() -> None:
    assert [name for name, service in SERVICES.items() if not service.get("profiles")] == ["ragstone"]
    assert {profile for service in SERVICES.values() for profile in service.get("profiles", ())} == {
        "postgres",
        "qdrant",
        "gpu",
    }


def test_every_service_has_a_health_condition() -> None:
    assert [name for name, service in SERVICES.items() if "healthcheck" not in service] == []


def test_the_server_waits_for_the_health_of_what_it_needs_where_that_runs() -> None:
    for name, condition in SERVICES["ragstone"]["depends_on"].items():
        assert name in SERVICES
        assert condition == {"condition": "service_healthy", "required": False}


def test_every_volume_and_secret_that_is_used_is_declared() -> None:
    used = [mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", ())]
    named = {name for name in used if not name.startswith((".", "/", "$"))}
    assert named == set(COMPOSE["volumes"])
    secrets = {name for service in SERVICES.values() for name in service.get("secrets", ())}
    assert secrets == set(COMPOSE["secrets"])


def test_commands_are_real() -> None:
    known = get_command(app).commands  # type: ignore[attr-defined]
    assert SERVICES["ragstone"]["command"][0] in known
    assert SERVICES["ragstone"]["healthcheck"]["test"][2] in known


def test_the_image_is_built_from_the_dockerfile() -> None:
    build = SERVICES["ragstone"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).samefile(DEPLOY / "Dockerfile")


def test_no_secret_stands_in_a_file() -> None:
    for name in ("compose.yaml", "env.example", "ragstone.env.example", *CONFIGS):
        text = (DEPLOY / name).read_text()
        assert not re.search(r"^[^#\n]*(PASSWORD|TOKEN|API_KEY|SALT_KEY)=\S", text, re.MULTILINE), name


@pytest.mark.parametrize("name", CONFIGS)
def test_settings_are_those_that_the_server_takes(name: str, bare: pytest.MonkeyPatch) -> None:
    settings = load_settings(DEPLOY / name)
    assert set(tomllib.loads((DEPLOY / name).read_text())) <= set(Settings.model_fields)
    assert seconds(SERVICES["ragstone"]["stop_grace_period"]) >= 2 * (
        settings.drain_s + settings.shutdown_grace_s
    )


def test_the_generator_of_the_settings_is_the_vllm_that_runs(bare: pytest.MonkeyPatch) -> None:
    first, last = load_settings(DEPLOY / "ragstone.vllm.toml").generators
    assert first.options["url"] == "http://vllm:8000/v1"
    assert "vllm" in SERVICES
    assert last.kind == "extractive"


def test_the_variables_of_the_examples_are_settings(bare: pytest.MonkeyPatch) -> None:
    text = (DEPLOY / "ragstone.env.example").read_text()
    given = dict(re.findall(r"^# (RAGSTONE_\w+)=(.+)$", text, re.MULTILINE))
    assert given
    for name, value in given.items():
        bare.setenv(name, value)
    settings = load_settings()
    assert settings.database_url == given["RAGSTONE_DATABASE_URL"]
    assert set(settings.auth.tokens) == {"acme"}
    assert settings.answers.salt_key.get_secret_value()


def test_variables_of_compose_are_in_the_example() -> None:
    used = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text())) | {
        secret["environment"] for secret in COMPOSE["secrets"].values()
    }
    told = set(re.findall(r"^# (\w+)=", (DEPLOY / "env.example").read_text(), re.MULTILINE))
    assert used <= told
