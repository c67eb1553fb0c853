"""Alerts: each says in words what is wrong, has its section in the runbook, is tried firing and not firing.

That they do what they should is promtool's to say: `make validate`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy.grafana.pages import PAGES
from deploy.validate import scraped
from models.contract import ControlKind
from streams.arguments import app

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rules(name: str) -> list[dict[str, Any]]:
    return [rule for group in read(PROMETHEUS / "rules" / name)["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules("alerts.yml")}
RECORDED = {rule["record"]: rule for rule in rules("recording.yml")}
TESTS = [
    one
    for file in sorted((PROMETHEUS / "tests").glob("*.yml"))
    for test in read(file)["tests"]
    for one in test["alert_rule_test"]
]

MEASURED = {sample.name for family in text_string_to_metric_families(scraped().decode()) for sample in family.samples}

EXPRESSIONS = [
    *(pytest.param(str(rule["expr"]), id=name) for name, rule in (ALERTS | RECORDED).items()),
    *(pytest.param(query.expr, id=panel.title) for page in PAGES for panel, query in page.queries()),
]


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_and_what_it_is(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    assert alert["annotations"]["runbook"] == f"deploy/RUNBOOK.md#{name.lower()}"
    assert "arrears_" not in alert["annotations"]["summary"], "plain words, please"


def sections() -> dict[str, str]:
    text = (DEPLOY / "RUNBOOK.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (\w+)\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_the_runbook_has_a_section_for_each_alert_and_for_nothing_else() -> None:
    assert sorted(sections()) == sorted(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_a_section_says_what_it_means_what_to_look_at_what_to_do_and_when_it_is_over(name: str) -> None:
    parts = re.findall(r"^\*\*(.+?)\*\*", sections()[name], flags=re.MULTILINE)
    assert parts == ["For customers.", "Look at.", "Do.", "Over when"]


def test_panels_that_the_runbook_names_are_on_a_dashboard() -> None:
    text = (DEPLOY / "RUNBOOK.md").read_text(encoding="utf-8")
    titles = {panel.title for page in PAGES for row in page.rows for panel in row.panels}
    named = set(re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", text)) - {"Arrears", "Worker", "Fast"}
    assert len(named) > 5
    assert named <= titles | {title.removesuffix(", an hour") for title in titles}


def test_links_within_the_runbook_lead_somewhere() -> None:
    text = (DEPLOY / "RUNBOOK.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\(#(\w+)\)", text)) <= {name.lower() for name in ALERTS}


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_is_tried_firing_and_not_firing(name: str) -> None:
    fires = {bool(test["exp_alerts"]) for test in TESTS if test["alertname"] == name}
    assert fires == {True, False}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_what_is_asked_for_is_measured(expression: str) -> None:
    expression = re.sub(r'"[^"]*"', '""', expression)  # values of labels are no names
    asked = set(re.findall(r"(?<![\w:])arrears_\w+", expression))
    recorded = set(re.findall(r"arrears:[\w:]+", expression))
    assert asked <= MEASURED
    assert recorded <= set(RECORDED)
    assert asked | recorded or "up{" in expression


def test_alertmanager_knows_the_alerts_it_holds_back() -> None:
    text = (PROMETHEUS / "alertmanager.yml").read_text(encoding="utf-8")
    for name, several in re.findall(r'alertname =~? "(Arrears\w*)(?:\((.*?)\))?"', text):
        names = [f"{name}{one}" for one in several.split("|")] if several else [name]
        assert set(names) <= set(ALERTS)


TYPED = sorted(
    set(
        re.findall(
            r"(?:^\$ |`)arrears ([a-z][^`\n]*)", (DEPLOY / "RUNBOOK.md").read_text(encoding="utf-8"), flags=re.MULTILINE
        )
    )
)


@pytest.mark.parametrize("typed", TYPED)
def test_what_the_runbook_has_one_type_is_there_to_be_typed(typed: str) -> None:
    command: Any = typer.main.get_command(app)
    words = typed.split()
    while hasattr(command, "commands"):
        assert words, typed
        command = command.commands[words.pop(0)]
    options = {
        option
        for parameter in command.get_params(command.make_context(command.name, [], resilient_parsing=True))
        for option in parameter.opts
    }
    assert {word for word in words if word.startswith("--")} <= options
    if command.name == "control":
        assert words[0] in get_args(ControlKind)
