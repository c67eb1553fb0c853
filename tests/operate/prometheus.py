"""Prometheus and Alertmanager, as Debian has them, with the rules of `deploy`, and what one asks them."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from deploy.grafana.pages import PAGES
from streams.local_kafka import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Self

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
#: What Grafana puts in for `$__rate_interval`: a few scrapes.
RATE_INTERVAL: Final = "15s"
_SCRAPE: Final = "1s"
_START_WITHIN_S: Final = 30.0
_STOP_WITHIN_S: Final = 10.0


class Missing(Exception):
    """A program is not here."""


def program(name: str, package: str) -> str:
    """Where it is. Raises `Missing`."""
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{name} is not here: apt-get install {package}")
    return found


class Answered(NamedTuple):
    """A query of a dashboard with what Prometheus says to it: the value of each line."""

    dashboard: str
    panel: str
    expr: str
    values: dict[str, float]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to be seen."""
        return not any(math.isfinite(value) for value in self.values.values())


class Watch:
    """Both programs; a context. `workers` are the ports on which workers tell their metrics, by name."""

    def __init__(self, folder: Path, workers: Mapping[str, int]) -> None:
        self._folder = folder
        self._workers = workers
        self._port, self._alerts_port = free_port(), free_port()
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        prometheus = program("prometheus", "prometheus")
        alertmanager = program("prometheus-alertmanager", "prometheus-alertmanager")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._start(
            "alertmanager",
            [
                alertmanager,
                f"--config.file={DEPLOY / 'prometheus' / 'alertmanager.yml'}",
                f"--storage.path={self._folder / 'alertmanager'}",
                f"--web.listen-address=127.0.0.1:{self._alerts_port}",
                "--cluster.listen-address=",
            ],
        )
        self._start(
            "prometheus",
            [
                prometheus,
                f"--config.file={self._config()}",
                f"--storage.tsdb.path={self._folder / 'prometheus'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
        )
        self._await_ready()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(_STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _config(self) -> Path:
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
        config["global"] = {"scrape_interval": _SCRAPE, "evaluation_interval": _SCRAPE}
        config["rule_files"] = [str(DEPLOY / "prometheus" / "rules" / "*.yml")]
        config["alerting"]["alertmanagers"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{self._alerts_port}"]}]
        config["scrape_configs"] = [
            {
                "job_name": "arrears",
                "static_configs": [
                    {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": name}}
                    for name, port in self._workers.items()
                ],
            }
        ]
        path = self._folder / "prometheus.yml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return path

    def _start(self, name: str, command: list[str]) -> None:
        with (self._folder / f"{name}.log").open("wb") as log:
            self._processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def _await_ready(self) -> None:
        for port in (self._port, self._alerts_port):
            wait(lambda port=port: bool(_get(f"http://127.0.0.1:{port}/-/ready", lenient=True)), _START_WITHIN_S)  # type: ignore[misc]

    # -- questions --------------------------------------------------------------------------------------------------

    def query(self, expr: str) -> list[tuple[dict[str, str], float]]:
        """What an expression is now: labels and values."""
        answer = _get(f"http://127.0.0.1:{self._port}/api/v1/query?{urlencode({'query': expr})}")
        return [(one["metric"], float(one["value"][1])) for one in json.loads(answer)["data"]["result"]]

    def firing(self) -> dict[str, list[dict[str, str]]]:
        """The alerts that have reached Alertmanager and are not over: their labels and annotations, by name."""
        found: dict[str, list[dict[str, str]]] = {}
        for alert in json.loads(_get(f"http://127.0.0.1:{self._alerts_port}/api/v2/alerts")):
            found.setdefault(alert["labels"]["alertname"], []).append(alert["labels"] | alert["annotations"])
        return found

    def dashboards(self) -> list[Answered]:
        """Every query of every dashboard."""
        return [
            Answered(page.title, panel.title, query.expr, self._lines(query.expr, query.legend))
            for page in PAGES
            for panel, query in page.queries()
        ]

    def _lines(self, expr: str, legend: str) -> dict[str, float]:
        lines = {}
        for labels, value in self.query(expr.replace("$__rate_interval", RATE_INTERVAL)):
            name = legend
            for label, text in labels.items():
                name = name.replace(f"{{{{{label}}}}}", text)
            lines[name] = value
        return lines


class Usual:
    """Between which values each line of each panel was while nothing was wrong, and how fast it grew."""

    def __init__(self, looks: Sequence[list[Answered]], over_s: float) -> None:
        self._over_s = over_s
        self._between: dict[tuple[str, str, str], tuple[float, float]] = {}
        for answers in looks:
            for key, value in _finite(answers):
                low, high = self._between.get(key, (value, value))
                self._between[key] = (min(low, value), max(high, value))

    def left(self, answers: list[Answered], after_s: float) -> list[str]:
        """Panels with a line that has gone, is new, or lies where it would not be had it gone on as usual."""
        found: dict[str, None] = {}
        now = dict(_finite(answers))
        for key, value in now.items():
            low, high = self._between.get(key, (0.0, 0.0))
            growth = (high - low) * (1 + 1.5 * after_s / self._over_s)
            room = max(growth, 0.5 * abs(high), 1e-3)
            if not low - room <= value <= high + room:
                found[_of(key)] = None
        for key in self._between.keys() - now.keys():
            found[_of(key)] = None
        return sorted(found)


def _finite(answers: list[Answered]) -> Iterator[tuple[tuple[str, str, str], float]]:
    for answer in answers:
        for line, value in answer.values.items():
            if math.isfinite(value):
                yield (answer.dashboard, answer.panel, line), value


def _of(key: tuple[str, str, str]) -> str:
    dashboard, panel, _ = key
    return f"{panel} ({dashboard.rpartition(': ')[2]})"


def wait(condition: Callable[[], bool], within_s: float) -> float:
    """Until it is so; returns how long it took, in seconds. Raises TimeoutError."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > within_s:
            raise TimeoutError(f"not within {within_s:g} s")
        time.sleep(0.2)
    return time.monotonic() - began


def _get(url: str, *, lenient: bool = False) -> bytes:
    try:
        with urlopen(url, timeout=10) as answer:  # noqa: S310  # our own
            body: bytes = answer.read()
            return body
    except OSError:
        if lenient:
            return b""
        raise


def ready(port: int) -> bool:
    """Whether a worker says that it is."""
    return bool(_get(f"http://127.0.0.1:{port}/ready", lenient=True))


def as_json(value: Any) -> bytes:
    """A record's value."""
    return json.dumps(value).encode()
