"""Writes `monitoring/prometheusrule.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import yaml

RULES: Final = Path(__file__).parents[1] / "prometheus" / "rules"
FILE: Final = Path(__file__).parent / "monitoring" / "prometheusrule.yaml"


def prometheus_rule() -> str:
    """What the file is to hold: all rules of `deploy/prometheus`, as one resource."""
    groups = [
        group
        for name in ("recording.yml", "alerts.yml")
        for group in yaml.safe_load((RULES / name).read_text(encoding="utf-8"))["groups"]
    ]
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "arrears", "labels": {"app.kubernetes.io/name": "arrears"}},
        "spec": {"groups": groups},
    }
    text = yaml.safe_dump(resource, sort_keys=False, width=120, allow_unicode=True)
    return f"# Made of deploy/prometheus/rules by `python -m deploy.kubernetes`.\n{text}"


if __name__ == "__main__":
    FILE.write_text(prometheus_rule(), encoding="utf-8")
