"""What the documents say can be followed: links lead somewhere, commands can be typed, names are in the code."""

from __future__ import annotations

import importlib
import re
import shlex
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer

from deploy import operations
from models import contract
from streams.arguments import app
from streams.settings import Settings, variable_of

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md")),
    *(ROOT / "deploy" / name for name in ("OPERATIONS.md", "RUNBOOK.md", "asyncapi/guide.md")),
    *(ROOT / name / "README.md" for name in ("models", "streams", "tests/scenarios")),
]
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
PICTURES = sorted((ROOT / "deploy" / "pictures").glob("*.svg"))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


# Links --------------------------------------------------------------------------------------------------------------


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", read(path), flags=re.MULTILINE)}


def links(text: str) -> list[str]:
    without_code = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [target for target in re.findall(r"\]\(([^()\s]+)\)", without_code) if "://" not in target]


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for target in links(read(page)):
        path, _, fragment = unquote(target).partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if fragment:
            assert fragment in anchors(there), target


def test_a_link_that_leads_nowhere_would_be_noticed() -> None:
    assert links("a [b](c.md#d) ![e](f.svg)\n```\n[g](h)\n```\n[i](https://j.example)") == ["c.md#d", "f.svg"]
    assert anchor("Upgrade, roll back") == "upgrade-roll-back"


# Commands -----------------------------------------------------------------------------------------------------------


class NotUnderstood(Exception):
    """What `arrears` would say of a command line."""


COMMAND: Any = typer.main.get_command(app)


def parse(arguments: list[str]) -> None:
    """Read a command line as `arrears` does, and run nothing. Raises NotUnderstood."""
    try:
        command, context = COMMAND, COMMAND.make_context("arrears", list(arguments))
        while hasattr(command, "resolve_command"):  # a group
            rest = [*context._protected_args, *context.args]
            if not rest:
                raise NotUnderstood("Missing command")
            name, command, rest = command.resolve_command(context, rest)
            context = command.make_context(name, rest, parent=context)
    except Exception as error:
        if hasattr(error, "format_message"):  # whose class depends on typer's version
            raise NotUnderstood(error.format_message()) from None
        raise


def in_consoles(text: str) -> list[str]:
    """The command lines of the blocks that show a terminal."""
    found = []
    for block in re.findall(r"^ *```console\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL):
        joined = re.sub(r"\\\n\s*", " ", block)
        found += re.findall(r"^ *\$ (?:\.venv/bin/)?(arrears .*)$", joined, flags=re.MULTILINE)
    return found


def in_sentences(text: str) -> list[str]:
    """What stands between backquotes and begins as a command does; `…` stands for what the reader fills in."""
    without_blocks = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`(arrears [^`]*)`", without_blocks)


def arguments_of(line: str) -> list[str]:
    _, *arguments = shlex.split(line.replace("\n", " "), comments=True)
    return arguments


#: What a document may leave to the reader: the account, why, the file.
LEFT_OUT = ("Missing argument", "Missing option", "Missing command", "Option '--reason' requires")

CONSOLES = [pytest.param(line, id=f"{path.name}: {line}") for path in DOCUMENTS for line in in_consoles(read(path))]
SENTENCES = [
    pytest.param(line, id=f"{path.name}: {line}")
    for path in DOCUMENTS
    for line in dict.fromkeys(in_sentences(read(path)))
]


@pytest.mark.parametrize("line", CONSOLES)
def test_a_command_can_be_typed_as_it_stands(line: str) -> None:
    parse(arguments_of(line))


@pytest.mark.parametrize("line", SENTENCES)
def test_a_command_that_is_named_is_there(line: str) -> None:
    arguments = ["hold" if argument == "KIND" else argument for argument in arguments_of(line) if argument != "…"]
    if arguments in (["--help"], ["--install-completion"]):
        return  # which end the program at once
    try:
        parse(arguments)
    except NotUnderstood as told:
        assert str(told).startswith(LEFT_OUT), told  # noqa: PT017  # most raise nothing


@pytest.mark.parametrize(
    "line", ["demos", "demo --second 3", "topics make", "replay --bills", "control hold a --untl x"]
)
def test_a_command_that_is_wrong_would_be_noticed(line: str) -> None:
    with pytest.raises(NotUnderstood) as told:
        parse(line.split())
    assert not str(told.value).startswith(LEFT_OUT)


# Names of the code ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_settings_that_are_named_are_there(name: str) -> None:
    known = {variable_of(setting) for setting in Settings.model_fields} | {"ARREARS_SETTINGS"}
    assert set(re.findall(r"ARREARS_[A-Z_]+(?<!_)", read(ROOT / name))) <= known


#: What looks like a name of the code, and is one of Kafka's or a file's.
OF_OTHERS = {"min.insync.replicas"}


def test_the_functions_that_a_record_passes_are_there() -> None:
    text = read(ROOT / "streams" / "README.md")
    modules = {path.stem for path in (ROOT / "streams").glob("*.py")}
    named = re.findall(r"`((?:models\.)?\w+(?:\.\w+)+)`", text)
    assert len(named) > 20
    for name in named:
        module, *rest = name.removeprefix("models.").split(".")
        if module not in modules and not name.startswith("models."):
            assert name in OF_OTHERS, name
            continue
        found: Any = importlib.import_module(f"{'models' if name.startswith('models.') else 'streams'}.{module}")
        for part in rest:
            found = getattr(found, part)


def test_the_modules_that_are_drawn_are_there() -> None:
    drawing = re.findall(r"```text\n(.*?)```", read(ROOT / "streams" / "README.md"), flags=re.DOTALL)[0]
    drawn = set(re.findall(r"(\w+\.py)", drawing))
    assert len(drawn) > 8
    assert drawn <= {path.name for path in (ROOT / "streams").glob("*.py")}


def test_the_tables_of_operations_are_what_the_code_has() -> None:
    text = read(operations.FILE)
    assert operations.filled(text) == text, "run python -m deploy.operations"
    for setting in Settings.model_fields:
        assert f"`{variable_of(setting)}`" in text


def test_the_guide_names_what_there_is() -> None:
    guide = read(ROOT / "deploy" / "asyncapi" / "guide.md")
    fields = {field for model in contract.OUT.values() for field in model.model_fields}
    for name in ("sequence", "supersedes", "services", "notice_id", "last_command_id", "suspended_services"):
        assert f"`{name}`" in guide
        assert name in fields
    for word in ("read_committed", "delete_contradicted", "deletion_ahead", "arrears.accounts", "acks"):
        assert word in guide


# Pictures -----------------------------------------------------------------------------------------------------------

SAYS = {
    "demo.svg": ("workers", "suspend", "restore", "killed"),
    "demo-end.svg": ("command", "delete", "matches the replay of the topics"),
    "explain.svg": ("SUSPEND", "1.1.2", "arrears begin"),
}


def test_there_are_the_pictures_that_are_made() -> None:
    assert {path.name for path in PICTURES} == set(SAYS)


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_a_picture_shows_what_was_printed_and_asks_nobody_for_anything(path: Path) -> None:
    drawing = ET.parse(path).getroot()  # noqa: S314  # our own
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    shown = " ".join(" ".join(drawing.itertext()).replace("\xa0", " ").split())
    for words in SAYS[path.name]:
        assert words in shown, words
    assert re.findall(r"https?://[^\"]+", read(path)) == ["http://www.w3.org/2000/svg"]
