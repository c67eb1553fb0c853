"""Runs that are kept: as JSON in `results/`, by date and commit."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

#: A run, as it stands in its file: who made it where, under `domain`, `peers` and `live` what was found, and under
#: `missing` what did not get to its end.
Run: TypeAlias = dict[str, Any]

RESULTS: Final = Path(__file__).parent / "results"
QUICK: Final = RESULTS / "quick.json"
_ROOT: Final = Path(__file__).parents[2]


def origin() -> Run:
    """When, of which commit, and on what this run is made."""
    commit = _git("rev-parse", "--short=10", "HEAD")
    return {
        "made_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": commit or "unknown",
        #: Whether the files differ from the commit's, results and README left aside.
        "changed": bool(_git("status", "--porcelain", "--", "models", "streams", "tests", ":!tests/bench/results")),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }


def _git(*words: str) -> str | None:
    """What git says; None where there is no git, or no repository."""
    try:
        ended = subprocess.run(["git", *words], cwd=_ROOT, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return ended.stdout.strip()


def place(run: Run, folder: Path = RESULTS) -> Path:
    """The file of a whole run: two of one commit differ by the second."""
    instant = run["made_at"].replace(":", "").removesuffix("Z")
    return folder / f"{instant}-{run['commit']}.json"


def write(run: Run, path: Path) -> None:
    """Keep it."""
    path.write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path) -> Run:
    """What was kept."""
    run: Run = json.loads(path.read_text(encoding="utf-8"))
    return run


def newest(folder: Path = RESULTS) -> Run | None:
    """The run that was made last of those in which nothing is missing; None if there is none."""
    runs = [read(path) for path in folder.glob("*.json") if path.name != QUICK.name]
    return max((run for run in runs if not run["missing"]), key=lambda run: str(run["made_at"]), default=None)
