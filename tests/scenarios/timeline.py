"""The scenarios: Markdown files of timelines, read so strictly that a slip of the pen is an error.

A file begins with its title, may tell what it is about, and may define policies in YAML blocks. Each scenario is a
`##` heading that says it in one sentence, the contract's sentences it proves (`> R2 1.1.1: …`), perhaps `policy: name`
and a working-out (`Why: …`), and one table. tests/scenarios/README.md has the vocabulary.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from . import expectations
from .expectations import Expectation, LeftOut, Output, Refused, Shown
from .happenings import Happening, Vocabulary
from .times import instant, position

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER: Final = Path(__file__).parent

_HEADER: Final = ["time", "what happens", "what follows"]


class NotATimeline(ValueError):
    """A file that is not written as it has to be; `str()` begins with its name and line."""


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    line: int
    #: As written, as µs from the start, and as the contract's instant.
    time: str
    at: int
    instant: str
    happenings: tuple[Happening, ...]
    expected: tuple[Expectation, ...]

    @property
    def outputs(self) -> list[Output]:
        """The commands and notices that have to come."""
        return [one for one in self.expected if isinstance(one, Output)]

    @property
    def shown(self) -> list[Shown]:
        """How accounts have to stand."""
        return [one for one in self.expected if isinstance(one, Shown)]

    @property
    def refused(self) -> Refused | None:
        """How its record has to be refused."""
        return next((one for one in self.expected if isinstance(one, Refused)), None)

    @property
    def left_out(self) -> bool:
        """Whether it lies after the end of the clock."""
        return any(isinstance(one, LeftOut) for one in self.expected)


@dataclass
class Scenario:
    """One timeline. `policies` is the text of a policy file, None: the built-in policy."""

    file: str
    line: int
    title: str
    quotes: list[str] = field(default_factory=list)
    policies: str | None = None
    rows: list[Row] = field(default_factory=list)
    #: The last row's time: the clock runs on to it.
    end: Row | None = None

    @property
    def name(self) -> str:
        """Readable, and good for `pytest -k`."""
        return f"{self.file.removesuffix('.md')}/{re.sub('[^a-z0-9]+', '-', self.title.lower()).strip('-')}"


@cache
def scenarios() -> tuple[Scenario, ...]:
    """Every scenario of every file."""
    found = [scenario for path in sorted(FOLDER.glob("[0-9]*.md")) for scenario in read(path.name, path.read_text())]
    return tuple(found)


def read(file: str, text: str) -> list[Scenario]:
    """The scenarios of a file's text. Raises `NotATimeline`."""
    return list(_File(file, text).scenarios())


class _File:
    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._lines = text.splitlines()
        self._policies: dict[str, list[dict[str, Any]]] = {}

    def scenarios(self) -> Iterator[Scenario]:
        starts = [index for index, line in enumerate(self._lines) if line.startswith("## ")]
        if not self._lines or not self._lines[0].startswith("# "):
            raise self._error(0, "begin the file with its title: '# …'")
        if not starts:
            raise self._error(0, "there is no scenario: '## …'")
        self._read_policies(starts[0])
        for start, end in zip(starts, [*starts[1:], len(self._lines)], strict=True):
            yield self._scenario(start, end)

    def _error(self, index: int, message: str) -> NotATimeline:
        return NotATimeline(f"{self._file}:{index + 1}: {message}")

    def _read_policies(self, end: int) -> None:
        inside: list[str] | None = None
        for index, line in enumerate(self._lines[:end]):
            if inside is None:
                inside = [] if line == "```yaml" else None
            elif line == "```":
                # Texts stay texts, dates too; yes and no are what they are in JSON.
                block = yaml.load("\n".join(inside), Loader=yaml.BaseLoader)  # noqa: S506  # makes nothing but texts
                if not isinstance(block, dict) or not all(isinstance(value, list) for value in block.values()):
                    raise self._error(index, "a YAML block names lists of policies")
                self._policies |= json.loads(
                    json.dumps(block), object_hook=lambda item: {name: _plain(value) for name, value in item.items()}
                )
                inside = None
            else:
                inside.append(line)

    def _scenario(self, start: int, end: int) -> Scenario:
        scenario = Scenario(self._file, start + 1, self._lines[start].removeprefix("## ").strip())
        vocabulary = Vocabulary(self._policies)
        table: list[tuple[int, str]] = []
        in_prose = False
        for index in range(start + 1, end):
            line = self._lines[index]
            in_prose = bool(line) and (in_prose or line.startswith("Why: "))
            if in_prose:
                continue
            if line.startswith("> "):
                scenario.quotes.append(line.removeprefix("> "))
            elif line.startswith("policy: "):
                scenario.policies = self._policy(index, line.removeprefix("policy: "))
            elif line.startswith("|"):
                table.append((index, line))
            elif line:
                raise self._error(index, f"this is no part of a scenario: {line!r}")
        if not scenario.quotes:
            raise self._error(start, "quote the sentence of the contract that it proves: '> R1 1.1: …'")
        self._read_table(scenario, table, vocabulary, start)
        return scenario

    def _policy(self, index: int, name: str) -> str:
        if name not in self._policies:
            raise self._error(index, f"there are no policies {name!r} at the top of the file")
        return json.dumps({"policies": self._policies[name]})

    def _read_table(self, scenario: Scenario, table: list[tuple[int, str]], vocabulary: Vocabulary, start: int) -> None:
        indexes = [index for index, _ in table]
        if len(table) < 3 or indexes != list(range(indexes[0], indexes[0] + len(table))):
            raise self._error(start, "a scenario has one table")
        cells = [self._cells(index, line) for index, line in table]
        if cells[0] != _HEADER or any(set(cell) != {"-"} for cell in cells[1]):
            raise self._error(indexes[0], f"its columns are {' | '.join(_HEADER)}, and a line of dashes follows")
        for index, row in zip(indexes[2:], cells[2:], strict=True):
            scenario.rows.append(self._row(scenario, index, row, vocabulary))
        if scenario.end is None:
            raise self._error(indexes[-1], "the last row says where the clock ends: '| end 400h | | … |'")

    def _cells(self, index: int, line: str) -> list[str]:
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) != len(_HEADER) + 2 or cells[0] or cells[-1]:
            raise self._error(index, f"a row has {len(_HEADER)} cells between bars")
        return cells[1:-1]

    def _row(self, scenario: Scenario, index: int, cells: list[str], vocabulary: Vocabulary) -> Row:
        time, happens, follows = cells
        time, is_end = time.removeprefix("end "), time.startswith("end ")
        try:
            at = position(time)
            happenings = [one for part in _parts(happens) for one in vocabulary.read(part, instant(time))]
            expected = [one for part in _parts(follows) if (one := expectations.read(part)) is not None]
        except ValueError as error:  # NotInVocabulary, or what is no time
            raise self._error(index, str(error)) from None
        row = Row(index + 1, time, at, instant(time), tuple(happenings), tuple(expected))
        if not follows:
            raise self._error(index, "say what follows, if only: nothing")
        if scenario.rows and at < scenario.rows[-1].at:
            raise self._error(index, "its time lies before that of the row above")
        if row.refused is not None and len(happenings) != 1:
            raise self._error(index, "'refused' goes with one happening: give each its own row")
        if (scenario.end is not None) != row.left_out:
            raise self._error(index, "after the end everything is 'left out', and before it nothing")
        if is_end:
            scenario.end = row
        return row


def _parts(cell: str) -> list[str]:
    return [part.strip() for part in cell.split(";")] if cell else []


def _plain(value: object) -> object:
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
