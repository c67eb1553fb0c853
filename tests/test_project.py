"""The project itself: what is in it, what it depends on, what its wheel holds."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent

TOP_LEVEL = {
    ".ci",
    ".editorconfig",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "deploy",
    "docker-compose.yml",
    "models",
    "pyproject.toml",
    "streams",
    "tests",
}

# What the domain never touches (the shell, Kafka, terminals, event loops, clocks, dice).
FOREIGN = {
    *("streams", "aiokafka", "asyncio", "faust", "mode", "prometheus_client", "pydantic_settings", "rich", "typer"),
    *("random", "secrets", "socket", "subprocess", "threading", "time"),
}

MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:work|root|home|Users|tmp)/\w")
REGISTRY_HOST = re.compile(r"pypi\.org|pythonhosted\.org|npmjs\.org|crates\.io")


def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        table: dict[str, Any] = tomllib.load(file)["project"]
    return table


def repository_files() -> list[Path]:
    """What is in the repository, or would be with the next commit: in a clone what git says, else all of it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
        files = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        files = [path for name in TOP_LEVEL for path in ((ROOT / name), *(ROOT / name).rglob("*"))]
    return [path for path in files if path.is_file() and "__pycache__" not in path.parts]


# What is in the repository ----------------------------------------------------------------------------------------


def test_the_top_level_holds_what_a_newcomer_expects() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in repository_files()} <= TOP_LEVEL


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY_HOST], ids=["machine", "registry"])
def test_no_file_names_a_machine_or_a_registry(pattern: re.Pattern[str]) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in repository_files()
        for number, line in enumerate(path.read_bytes().decode("utf-8", "replace").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []


def test_each_dependency_is_locked_with_its_hash_above_its_lower_bound() -> None:
    dependencies = [Requirement(text) for text in project()["dependencies"]]
    assert {dependency.name for dependency in dependencies if not dependency.specifier} == set()
    for lock in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / "deploy" / lock).read_text(encoding="utf-8")
        pins = {
            canonicalize_name(pin.group("name")): pin.group("version")
            for pin in re.finditer(
                r"^(?P<name>[\w.-]+)==(?P<version>[^ ]+).*\\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE
            )
        }
        assert len(pins) == len(re.findall(r"^[\w.-]+==", text, re.MULTILINE))
        for dependency in dependencies:
            assert dependency.specifier.contains(pins[canonicalize_name(dependency.name)])


# What the domain imports ------------------------------------------------------------------------------------------


def imported_by(path: Path) -> set[str]:
    """The top-level names of all that a module imports, within its functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        match node:
            case ast.Import():
                names.update(alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module)):
                names.add(module)
            case _:
                pass
    return {name.partition(".")[0] for name in names}


def test_the_domain_knows_neither_shell_nor_clock() -> None:
    modules = sorted((ROOT / "models").rglob("*.py"))
    assert modules
    assert {path.name: found for path in modules if (found := imported_by(path) & FOREIGN)} == {}


def test_the_domain_loads_without_the_shell() -> None:
    names = [f"models.{path.stem}" for path in sorted((ROOT / "models").glob("[!_]*.py"))]
    shell = sorted(FOREIGN & {"streams", "aiokafka", "faust", "mode", "prometheus_client", "rich", "typer"})
    code = f"import sys, {', '.join(names)}; print(*(set({shell!r}) & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert (loaded.returncode, loaded.stdout.split()) == (0, []), loaded.stderr


# The wheel --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built with what is installed: nothing is fetched."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, check=False, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_both_packages_whole_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    held = set(wheel.namelist())
    assert {name.partition("/")[0] for name in held} == {
        "models",
        "streams",
        f"arrears_monitor-{project()['version']}.dist-info",
    }
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in ("models", "streams")
        for path in (ROOT / package).rglob("*.py")
    }
    assert modules <= held
    assert not [name for name in held if "__pycache__" in name]


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    says = message_from_bytes(wheel.read(metadata))
    assert says["Name"] == "arrears-monitor"
    assert says["Version"] == project()["version"]
    assert says["Requires-Python"] == ">=3.11"
    assert says["License-Expression"] == "Apache-2.0"
    assert "Private :: Do Not Upload" in (says.get_all("Classifier") or [])
    required = [line for line in says.get_all("Requires-Dist") or [] if "extra ==" not in line]
    assert len(required) == len(project()["dependencies"])
    entry_points = wheel.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    assert "arrears = streams.cli:main" in entry_points
