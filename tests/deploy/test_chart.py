"""deploy/helm/ragstone, rendered by a real Helm and checked against the schemas of Kubernetes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from retrieval.config import Settings, load_settings

CHART = Path(__file__).parents[2] / "deploy/helm/ragstone"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
SHARED = {"database": {"existingSecret": "catalog"}}
EVERYTHING: dict[str, Any] = {
    **SHARED,
    "existingSecret": "tokens",
    "autoscaling": {"enabled": True},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "gpu": {"enabled": True, "runtimeClassName": "nvidia"},
    "extraEnv": [{"name": "HF_HUB_OFFLINE", "value": "0"}],
    "persistence": {"storageClassName": "fast"},
    "podLabels": {"team": "search"},
    "nodeSelector": {"disk": "nvme"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
}


def render(values: dict[str, Any] | None = None) -> dict[str, Any]:
    """Documents of the chart, by kind; the test pod is left out."""
    helm = pytest.importorskip("helm_python", reason="no Helm: pip install helm-python-sdk")
    with helm.Chart.load(str(CHART)) as chart:
        files = chart.render(values or {}, name="demo", namespace="prod")
    documents = [
        yaml.safe_load(text)
        for name, text in files.items()
        if name.endswith(".yaml") and "/tests/" not in name
    ]
    return {document["kind"]: document for document in documents if document}


def container(values: dict[str, Any] | None = None) -> dict[str, Any]:
    [only] = render(values)["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    return dict(only)


def test_helm_lint_finds_nothing_wrong() -> None:
    helm = pytest.importorskip("helm_python", reason="no Helm: pip install helm-python-sdk")
    found = helm.lint(str(CHART))
    assert found["errors"] == []
    # 1 is information: that an icon is recommended.
    assert [message for message in found["messages"] if message["severity"] > 1] == []


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_kubernetes_takes_what_is_rendered(values: dict[str, Any]) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for kind, document in render(values).items():
        if kind != "ServiceMonitor":  # the operator's own kind
            kubernetes.validate(document, "1.30", strict=True)


def test_the_values_fit_their_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(VALUES, SCHEMA)


def test_every_value_is_in_the_schema() -> None:
    assert set(VALUES) <= set(SCHEMA["properties"])


def test_the_schema_knows_every_setting_and_keeps_those_out_that_have_another_place() -> None:
    settings = SCHEMA["properties"]["settings"]["properties"]
    assert set(settings) == set(Settings.model_fields)
    elsewhere = {"data_dir", "listen", "metrics_listen", "database_url"}
    assert {name for name, schema in settings.items() if schema is False} == elsewhere


@pytest.mark.parametrize(
    "wrong",
    [
        {"settings": {**VALUES["settings"], "drain": 3}},
        {"replica": 2},
        {"persistence": {"size": "much"}},
        {"settings": {"database_url": "postgresql://u:secret@host/db"}},
        {"probes": {"startup": {"period": 3}}},
    ],
)
def test_a_wrong_value_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**VALUES, **wrong}, SCHEMA)


def test_its_settings_are_those_that_the_server_takes(bare: pytest.MonkeyPatch) -> None:
    settings = {"recipe": {"index": {"kind": "ivf_pq", "freeze_at": 20_000_000}}}
    documents = render({"settings": settings})
    environment = dict(documents["ConfigMap"]["data"])
    [only] = documents["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    environment |= {entry["name"]: entry["value"] for entry in only["env"] if "value" in entry}
    for name, value in environment.items():
        bare.setenv(name, value)
    assert {name.removeprefix("RAGSTONE_").lower() for name in environment} <= set(Settings.model_fields)
    loaded = load_settings()
    assert loaded.drain_s == VALUES["settings"]["drain_s"]
    assert loaded.limits.max_waiting_requests == VALUES["settings"]["limits"]["max_waiting_requests"]
    assert loaded.recipe["index"] == {"kind": "ivf_pq", "freeze_at": 20_000_000}
    assert loaded.listen == f"0.0.0.0:{VALUES['service']['grpcPort']}"


def test_secrets_come_from_secrets() -> None:
    found = container(EVERYTHING)
    urls = [entry for entry in found["env"] if entry["name"] == "RAGSTONE_DATABASE_URL"]
    assert urls[0]["valueFrom"]["secretKeyRef"]["name"] == "catalog"
    assert {"secretRef": {"name": "tokens"}} in found["envFrom"]


def test_probes_ask_the_health_service_of_grpc() -> None:
    found = container()
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert found[probe]["grpc"]["port"] == VALUES["service"]["grpcPort"]
    assert found["readinessProbe"]["grpc"]["service"] == "ragstone.v1.Retrieval"


def test_a_pod_has_the_time_that_its_server_takes_to_end() -> None:
    settings = {"drain_s": 3.5, "shutdown_grace_s": 40}
    shutdown = {"preStopSeconds": 10, "closeSeconds": 20}
    spec = render({"settings": settings, "shutdown": shutdown})["StatefulSet"]["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == 10 + 44 + 20
    assert spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] == 10


@pytest.mark.parametrize("several", [{"replicas": 2}, {"autoscaling": {"enabled": True}}])
def test_several_servers_need_a_shared_catalog(several: dict[str, Any]) -> None:
    helm = pytest.importorskip("helm_python", reason="no Helm: pip install helm-python-sdk")
    with pytest.raises(helm.HelmError, match="shared catalog"):
        render(several)
    render({**several, **SHARED})


def test_the_autoscaler_alone_says_how_many_there_are() -> None:
    assert render()["StatefulSet"]["spec"]["replicas"] == 1
    documents = render(EVERYTHING)
    assert "replicas" not in documents["StatefulSet"]["spec"]
    target = documents["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert target["name"] == documents["StatefulSet"]["metadata"]["name"]


def test_the_service_and_the_budget_find_the_pods() -> None:
    documents = render()
    labels = documents["StatefulSet"]["spec"]["template"]["metadata"]["labels"].items()
    assert documents["Service"]["spec"]["selector"].items() <= labels
    assert documents["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"].items() <= labels
    assert documents["Service"]["spec"]["clusterIP"] == "None"


def test_pods_run_as_the_images_user_with_nothing_to_spare() -> None:
    documents = render()
    pod = documents["StatefulSet"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsUser"] == 10_001
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["automountServiceAccountToken"] is False


def test_a_gpu_is_asked_for_beside_the_memory() -> None:
    found = container({"gpu": {"enabled": True}})
    assert found["resources"]["limits"] == {"memory": "8Gi", "nvidia.com/gpu": 1}
    assert found["image"].endswith("-cuda")
