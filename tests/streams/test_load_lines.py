"""The lines of several files as one sequence: in the order of what happened, the same each time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.instants import FIRST_INSTANT, format_instant, parse_instant
from streams.faults import Unusable
from streams.loading.lines import InputFile, Line, Stream, in_order, open_source
from streams.loading.run import _chunks
from tests.streams.command_line import bill, control, package, payment, usage, write

if TYPE_CHECKING:
    from pathlib import Path

    from models.records import Topic


def day(number: int) -> str:
    return f"2026-01-{number:02}T00:00:00Z"


def surveyed(topic: Topic, path: Path) -> InputFile:
    source = open_source(topic, str(path))
    assert isinstance(source, InputFile)
    source.survey(None, lambda _: None)
    return source


def numbers(sources: list[InputFile], taken: list[int] | None = None) -> list[tuple[str, int]]:
    """Topic and line number of each line that has a value."""
    topics = {source.index: source.topic for source in sources}
    lines = in_order(sources, taken or [0] * len(sources))
    return [(topics[line.file], line.number) for line in lines if line.value is not None]


def test_lines_of_all_files_come_by_their_instants(tmp_path: Path) -> None:
    files = [
        surveyed("bills", write(tmp_path / "b", bill(1, day(2)), bill(2, day(5)))),
        surveyed("payments", write(tmp_path / "p", payment(1, day(1)), payment(2, day(5)))),
        surveyed("usage", write(tmp_path / "u", usage(1, day(3)))),
        surveyed("packages", write(tmp_path / "k", package(1, day(4)))),
        surveyed("controls", write(tmp_path / "c", control(1, day(6), "hold"))),
    ]
    expected = [("payments", 1), ("bills", 1), ("usage", 1), ("packages", 1)]
    assert numbers(files) == [*expected, ("bills", 2), ("payments", 2), ("controls", 1)]


def test_a_file_that_is_not_in_order_is_put_in_order(tmp_path: Path) -> None:
    path = write(tmp_path / "b", bill(1, day(3)), bill(2, day(1)), b"", bill(3, day(2)), bill(4, day(1)))
    file = surveyed("bills", path)
    assert [number for _, number in numbers([file])] == [2, 5, 4, 1]
    values = [line.value for line in file.lines(0) if line.value is not None]
    assert values == [path.read_bytes().splitlines()[index] for index in (1, 4, 3, 0)]


@given(st.lists(st.integers(1, 28) | st.none(), max_size=30), st.integers(0, 30))
def test_going_on_gives_what_is_left(tmp_path_factory: pytest.TempPathFactory, days: list[int | None], at: int) -> None:
    path = tmp_path_factory.mktemp("lines") / "b"
    write(path, *(b"no record" if one is None else bill(number, day(one)) for number, one in enumerate(days)))
    file = surveyed("bills", path)
    whole = list(file.lines(0))
    assert [line.taken for line in whole] == list(range(1, len(days) + 1))
    assert [line.at for line in whole] == sorted(line.at for line in whole)
    assert sorted(line.number for line in whole) == list(range(1, len(days) + 1))
    assert list(file.lines(min(at, len(days)))) == whole[at:]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"nonsense", "is no JSON: "),
        (b'{"event_id":"e"}', 'has no "account_id"'),
        (b'{"account_id":7}', 'has no "account_id"'),
        (b'{"account_id":""}', 'has an empty "account_id"'),
        (b"[]", "is no record: "),
        (b"\xef\xbb\xbf{}", "begins with a byte order mark: save the file as UTF-8 without BOM"),
    ],
)
def test_a_line_that_cannot_be_used_says_why(tmp_path: Path, line: bytes, fault: str) -> None:
    (read,) = surveyed("bills", write(tmp_path / "b", line)).lines(0)
    assert read.fault.startswith(fault)
    assert (read.key, read.value, read.number) == (None, line, 1)


def test_what_else_is_wrong_with_a_line_is_the_workers_to_tell(tmp_path: Path) -> None:
    lines = [
        b'{"account_id":"a","issued_at":"yesterday"}',
        b'{"account_id":"a","issued_at":5}',
        b'{"account_id":"*"}\r',
    ]
    read = list(surveyed("bills", write(tmp_path / "b", *lines)).lines(0))
    assert [(line.key, line.value, line.fault) for line in read] == [
        (b"a", lines[0], ""),
        (b"a", lines[1], ""),
        (b"*", lines[2].rstrip(b"\r"), ""),
    ]
    assert {line.at for line in read} == {FIRST_INSTANT}


def test_a_line_without_an_instant_stays_behind_the_one_before(tmp_path: Path) -> None:
    file = surveyed("bills", write(tmp_path / "b", bill(1, day(2)), b"nonsense", bill(2, day(3))))
    assert [format_instant(line.at) for line in file.lines(0)] == [day(2), day(2), day(3)]


def test_only_what_was_there_at_the_beginning_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "b", bill(1, day(1)), bill(2, day(2)))
    file = surveyed("bills", path)
    with path.open("ab") as more:
        more.write(b'{"account_id":"later"}\n')
    assert len(list(file.lines(0))) == 2
    again = surveyed("bills", path)
    again.begin, again.lines_before = file.end, 2
    again.survey(file.end, lambda _: None)
    assert [(line.key, line.number, line.taken) for line in again.lines(0)] == [(b"later", 3, 1)]


def test_a_survey_tells_what_was_loaded_from_what_has_changed(tmp_path: Path) -> None:
    path = write(tmp_path / "b", bill(1, day(1)))
    first = surveyed("bills", path).survey(None, lambda _: None)
    end = path.stat().st_size
    with path.open("ab") as more:
        more.write(b"{}\n")
    grown = surveyed("bills", path)
    assert grown.survey(end, lambda _: None).earlier == first.digest
    path.write_bytes(path.read_bytes().replace(b"CNY", b"USD", 1))
    assert surveyed("bills", path).survey(end, lambda _: None).earlier != first.digest


def test_a_pipe_is_read_as_it_comes() -> None:
    read, written = os.pipe()
    stream = Stream("bills", f"/dev/fd/{read}")
    lines = stream.lines(0)
    assert next(lines).number == 0  # nothing yet: nobody has to wait for a chunk to fill up
    os.write(written, b'{"account_id":"a","issued_at":"' + day(1).encode() + b'"}\n{"account')
    first = next(lines)
    assert (first.key, first.number, first.at) == (b"a", 1, parse_instant(day(1)))
    os.write(written, b'_id":"b"}')
    os.close(written)
    rest = [line for line in lines if line.number]
    assert [(line.key, line.number, line.taken) for line in rest] == [(b"b", 2, 2)]
    os.close(read)


def test_a_control_for_everybody_goes_alone_and_a_pause_sends_what_is_there() -> None:
    def line(number: int, key: bytes = b"a", file: int = 4) -> Line:
        return Line(number, file, number, number, key, b"{}")

    everybody, pause = line(3, b"*"), Line(4, 0, 0, 0, None, None)
    others = [line(1), line(2), line(5), line(6, b"*", 0)]
    chunks = list(_chunks(iter([others[0], others[1], everybody, pause, others[2], pause, others[3]])))
    assert chunks == [[others[0], others[1]], [everybody], [], [others[2]], [others[3]]]


@pytest.mark.parametrize("name", ["none", "."])
def test_a_file_that_is_not_there_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(Unusable, match="--bills: "):
        open_source("bills", str(tmp_path / name))
