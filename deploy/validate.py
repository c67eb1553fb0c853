"""Every file of `deploy` and docker-compose.yml, given to the tools that know its kind: `python -m deploy.validate`.

What has to be there comes from PyPI (with `make setup`), from Debian or from npm; what is of the latter two is
installed if that can be done here, which `--install` allows. A tool that is not to be had is told, and its files are
not checked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from prometheus_client import generate_latest

from streams.metrics import Metrics

ROOT: Final = Path(__file__).parents[1]
_TOOLS: Final = Path(sys.executable).parent
#: A test of all alerts takes half a minute on a machine that does nothing else.
_WITHIN_S: Final = 600


class Tool(NamedTuple):
    """A program, and the package of Debian's that has it."""

    name: str
    package: str | None = None

    def path(self) -> str | None:
        """Where it is: beside this Python, or wherever the shell finds it."""
        beside = _TOOLS / self.name
        return str(beside) if beside.exists() else shutil.which(self.name)


class Check(NamedTuple):
    """What is run, from the top of the repository, with what on its standard input."""

    what: str
    tool: Tool
    arguments: tuple[str, ...]
    stdin: bytes = b""


PROMTOOL: Final = Tool("promtool", "prometheus")
AMTOOL: Final = Tool("amtool", "prometheus-alertmanager")
COMPOSE: Final = Tool("docker-compose", "docker-compose")
HADOLINT: Final = Tool("hadolint")
KUBECTL: Final = Tool("kubectl")
KUBERNETES_VALIDATE: Final = Tool("kubernetes-validate")
NODE: Final = Tool("node")
NPM: Final = Tool("npm")

#: The parser that checks deploy/asyncapi.yaml, locked.
_ASYNCAPI: Final = "deploy/asyncapi"


def _files(pattern: str) -> tuple[str, ...]:
    found = tuple(sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern)))
    assert found, f"there is no {pattern}"
    return found


def scraped() -> bytes:
    """What a worker answers when it is asked for its metrics."""
    metrics = Metrics()
    one = metrics.partition(0)
    one.watermark["bills"] = 0.0
    one.owed["suspended", "CNY"] = 1.0
    one.policies = ("maxcompute@2018-03-16",)
    return generate_latest(metrics.registry)


def checks() -> list[Check]:
    """All of them."""
    rules = _files("deploy/prometheus/rules/*.yml")
    return [
        Check("metrics", PROMTOOL, ("check", "metrics"), scraped()),
        Check("alerts and recording rules", PROMTOOL, ("check", "rules", *rules)),
        Check("Prometheus' settings", PROMTOOL, ("check", "config", "deploy/prometheus/prometheus.yml")),
        Check("each alert, firing and not", PROMTOOL, ("test", "rules", *_files("deploy/prometheus/tests/*.yml"))),
        Check("Alertmanager's settings", AMTOOL, ("check-config", "deploy/prometheus/alertmanager.yml")),
        Check(
            "docker-compose.yml", COMPOSE, ("--file", "docker-compose.yml", "--profile", "demo", "config", "--quiet")
        ),
        Check("Dockerfile", HADOLINT, ("--failure-threshold", "style", "deploy/Dockerfile")),
    ]


def run(check: Check) -> bool | None:
    """Whether it passes; None if its tool is not here."""
    program = check.tool.path()
    if program is None:
        print(f"NOT CHECKED  {check.what}: {_why_not(check.tool)}")
        return None
    return _told(check.what, _run([program, *check.arguments], check.stdin))


def kustomized(folder: str) -> bool | None:
    """Whether the manifests of a folder can be put together, and are what Kubernetes takes."""
    what = f"manifests of {folder}"
    kubectl, validate = KUBECTL.path(), KUBERNETES_VALIDATE.path()
    for tool, program in ((KUBECTL, kubectl), (KUBERNETES_VALIDATE, validate)):
        if program is None:
            print(f"NOT CHECKED  {what}: {_why_not(tool)}")
            return None
    assert kubectl is not None
    assert validate is not None
    made = _run([kubectl, "kustomize", folder])
    if made.returncode:
        return _told(what, made)
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(made.stdout)
        file.flush()
        # What the operator's own kinds have to be is known to the operator alone.
        return _told(what, _run([validate, "--strict", "--quiet", "--no-warn", file.name]))


def asyncapi() -> bool | None:
    """Whether deploy/asyncapi.yaml is what AsyncAPI's own parser takes."""
    what = "deploy/asyncapi.yaml"
    node = NODE.path()
    if node is None:
        print(f"NOT CHECKED  {what}: {_why_not(NODE)}")
        return None
    if not (ROOT / _ASYNCAPI / "node_modules").is_dir():
        print(f"NOT CHECKED  {what}: its parser is not here (npm ci --prefix {_ASYNCAPI})")
        return None
    return _told(what, _run([node, f"{_ASYNCAPI}/check.mjs"]))


def _run(command: list[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, check=False, timeout=_WITHIN_S)


def _told(what: str, done: subprocess.CompletedProcess[bytes]) -> bool:
    # promtool's remarks on metrics go to standard error, and are no reason for it to fail.
    good = done.returncode == 0 and not (what == "metrics" and done.stderr.strip())
    print(f"{'good' if good else 'BAD ':11}  {what}")
    if not good:
        print((done.stdout + done.stderr).decode(errors="replace"))
    return good


def _why_not(tool: Tool) -> str:
    if tool.package is None:
        return f"{tool.name} is not here"
    return f"{tool.name} is not here (Debian, Ubuntu: apt-get install {tool.package})"


def install_npm() -> None:
    """What npm has, if npm is here."""
    npm = NPM.path()
    if npm is None or NODE.path() is None:
        return  # `asyncapi` tells
    done = _run([npm, "ci", "--no-progress", "--prefix", _ASYNCAPI])
    if done.returncode:
        print(done.stderr.decode(errors="replace"))
        print("npm ci failed: the parser of AsyncAPI cannot be had")


def install() -> None:
    """The tools that Debian has, if this is Debian and one may."""
    missing = sorted({check.tool.package for check in checks() if check.tool.package and check.tool.path() is None})
    if not missing:
        return
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        reason = "there is no apt-get" if apt is None else "only root may"
        print(f"{', '.join(missing)}: not installed, for {reason}")
        return
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (("update",), ("install", "--yes", "--no-install-recommends", *missing)):
        done = subprocess.run(
            [apt, "--quiet", *arguments], env=environment, capture_output=True, check=False, timeout=_WITHIN_S
        )
        if done.returncode:
            print(done.stderr.decode(errors="replace"))
            sys.exit(f"apt-get {arguments[0]} failed: {', '.join(missing)} cannot be had")


def main() -> int:
    """Check everything; 1 if something is bad."""
    if "--install" in sys.argv[1:]:
        install()
        install_npm()
    results = [run(check) for check in checks()]
    results.append(asyncapi())
    results += [kustomized(f"deploy/kubernetes/{folder}") for folder in ("base", "example")]
    passed, failed, not_checked = (results.count(result) for result in (True, False, None))
    print(f"{passed} good, {failed} bad, {not_checked} not checked")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
