"""What is deployed: dashboards that are what their code makes, manifests that Kubernetes takes, settings that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from deploy.grafana.__main__ import FOLDER, dashboards
from deploy.grafana.pages import PAGES
from deploy.kubernetes.__main__ import FILE, prometheus_rule
from streams.metrics_server import PAGES as SERVED
from streams.settings import Settings, variable_of

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
MANIFESTS = sorted(path for path in KUBERNETES.glob("*/*.yaml") if path.name != "kustomization.yaml")
#: They are parts of manifests: `make validate` looks at the whole.
PATCHES = {KUBERNETES / "example" / name for name in ("settings.yaml", "resources.yaml")}
PANELS = [pytest.param(panel, id=f"{page.title}: {panel.title}") for page in PAGES for panel, _ in page.queries()]


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


# Dashboards -------------------------------------------------------------------------------------------------------


def test_the_dashboards_are_what_the_code_makes() -> None:
    made = dashboards()
    assert {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()} == made


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows_in_what_unit_and_what_each_line_is(panel: Any) -> None:
    assert panel.description.endswith(".")
    assert panel.unit.value
    assert all(query.legend for query in panel.queries)


def test_no_two_dashboards_are_one() -> None:
    assert len({page.uid for page in PAGES}) == len({page.title for page in PAGES}) == len(PAGES) == 2


# Kubernetes -------------------------------------------------------------------------------------------------------


def test_the_operator_is_given_the_same_rules() -> None:
    assert FILE.read_text(encoding="utf-8") == prometheus_rule()


@pytest.mark.parametrize("path", sorted(set(MANIFESTS) - PATCHES), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_manifest_is_what_kubernetes_takes(path: Path) -> None:
    if path.parent.name == "monitoring":
        assert documents(path)[0]["apiVersion"] == "monitoring.coreos.com/v1"  # known to the operator alone
        return
    for document in documents(path):
        kubernetes_validate.validate(document, "1.33", strict=True)


def base(kind: str) -> dict[str, Any]:
    found = [one for path in MANIFESTS if path.parent.name == "base" for one in documents(path) if one["kind"] == kind]
    return found[0]


def test_whoever_selects_workers_selects_them() -> None:
    pods = base("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    for selector in (
        base("StatefulSet")["spec"]["selector"]["matchLabels"],
        base("Service")["spec"]["selector"],
        base("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        base("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= pods.items()
        assert selector


def test_a_worker_keeps_its_name_and_gets_no_variables_of_services() -> None:
    spec = base("StatefulSet")["spec"]
    assert spec["podManagementPolicy"] == "Parallel"
    pod = spec["template"]["spec"]
    assert pod["enableServiceLinks"] is False
    (container,) = pod["containers"]
    (name,) = [one for one in container["env"] if one["name"] == "ARREARS_INSTANCE_ID"]
    assert name["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"


def test_probes_ask_for_pages_that_are_there() -> None:
    (container,) = base("StatefulSet")["spec"]["template"]["spec"]["containers"]
    probes = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert probes == {"startup": "/live", "liveness": "/live", "readiness": "/ready"}
    assert set(probes.values()) <= set(SERVED)


# Settings, tags ---------------------------------------------------------------------------------------------------

TOLD = [
    ROOT / "docker-compose.yml",
    *(ROOT / "deploy" / name for name in ("Dockerfile", "RUNBOOK.md")),
    *MANIFESTS,
]


@pytest.mark.parametrize("path", TOLD, ids=lambda path: path.name)
def test_settings_that_are_named_are_there(path: Path) -> None:
    known = {variable_of(name) for name in Settings.model_fields}
    named = set(re.findall(r"ARREARS_[A-Z_]+(?<!_)", path.read_text(encoding="utf-8")))
    assert named - {"ARREARS_PORT"} <= known  # ARREARS_PORT is what must not be


def test_images_have_tags() -> None:
    services = documents(ROOT / "docker-compose.yml")[0]["services"]
    images = {service["image"] for service in services.values()}
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    images |= set(re.findall(r"^FROM (\S+)", dockerfile, flags=re.MULTILINE))
    for image in images:
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*", image), image


def test_the_image_has_only_locked_packages() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    installs = re.findall(r"pip install (.*)", dockerfile)
    assert installs
    assert all("--require-hashes" in one or "--no-index" in one for one in installs)
