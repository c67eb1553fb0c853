"""In parts, in processes of their own, a replay says the same to the byte: of files and of partitions of topics."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.instants import parse_instant
from models.policy import BUILT_IN
from streams import file_parts as in_parts
from streams import topic_replay
from streams.faults import Unusable
from streams.file_parts import FilePart, file_parts
from streams.files import FILE_TOPICS, Inputs
from streams.outcome import Progress, Wanted
from streams.parallel import processes_that_pay, replay_parts
from streams.partitioner import murmur2, partition_by
from streams.topic_log import Log, Logs
from streams.writers import Output, Outputs
from tests.models.histories import History, histories, lines
from tests.streams.command_line import ARREARS, arrears, bill, control, environment, package, payment, usage, write
from tests.streams.test_histories import NAMES, inputs_of, policies_of, replayed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from models.records import Topic
    from streams.outcome import PartInputs
    from streams.parallel import Source

PARTITIONS = 3

#: Lines that nobody can use, or that are hard to tell whose they are.
ODD = (
    b"{",
    b"",
    b"[]",
    b'{"account_id": "a1"}',
    b'{"account_id": 7}',
    b'{"account_id": "*", "event_id": "x"}',
    b'{"account_id": "\\ud800"}',
    b'\xff{"account_id": "a1"}',
    json.dumps(control(90, "2026-01-02T00:00:00Z", "hold", account_id="*", until="2026-01-01T00:00:00Z")).encode(),
    json.dumps(payment(91, "2026-01-03T00:00:00Z", account_id="a1")).replace('"a1"', '"\\u0061\\u0031"').encode(),
    json.dumps(bill(92, "2030-01-03T00:00:00Z", account_id="*")).encode(),
)


def _in_processes(parts: Sequence[PartInputs], wanted: Wanted) -> dict[str, bytes]:
    def at_hand(part: PartInputs, _: Progress) -> PartInputs:
        return part

    return _replayed([partial(at_hand, part) for part in parts], wanted)


def _replayed(sources: Sequence[Source], wanted: Wanted) -> dict[str, bytes]:
    with TemporaryDirectory() as folder:
        paths = {name: Path(folder) / name for name in NAMES}
        commands, notices, accounts, letters = (Output("", str(path)) for path in paths.values())
        with commands, notices, accounts, letters:
            replay_parts(sources, wanted, Outputs(commands, notices, accounts, letters), nullcontext(Progress()))
        return {name: path.read_bytes() for name, path in paths.items()}


def _wanted(history: History) -> Wanted:
    until = None if history[2] is None else parse_instant(history[2])
    return Wanted(policies_of(history), "arrears", until)


def _with_odd_lines(inputs: Inputs, odd: list[tuple[str, bytes]]) -> Inputs:
    more = {topic: b"".join(b"\n" + line for name, line in odd if name == topic) for topic in FILE_TOPICS}
    return Inputs([(file.topic, file.data + more[file.topic]) for file in inputs.files])


odd_lines = st.lists(st.tuples(st.sampled_from(FILE_TOPICS), st.sampled_from(ODD)), max_size=6)


# Files --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def however_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts, for however few records."""
    monkeypatch.setattr(in_parts, "FEWEST_LINES", 0)
    monkeypatch.setattr(topic_replay, "FEWEST_RECORDS", 0)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(histories(accounts=5, most=24), odd_lines)
def test_files_in_parts_replay_to_the_same_bytes(
    however_few: None, history: History, odd: list[tuple[str, bytes]]
) -> None:
    inputs = _with_odd_lines(inputs_of(history), odd)
    assert _in_processes(file_parts(inputs, 3), _wanted(history)) == replayed(history, inputs)


def test_few_lines_are_not_worth_a_process() -> None:
    inputs = Inputs([("bills", json.dumps(bill(1, "2026-01-01T00:00:00Z")).encode())])
    assert file_parts(inputs, 2) == [inputs]


@pytest.mark.parametrize("written", [b'"a"', b'"\\u0061"', b'"a", "more": "\\ud800"'])
def test_policies_that_an_account_puts_in_force_hold_for_all_so_nothing_is_parted(
    however_few: None, written: bytes
) -> None:
    policies = [{"name": "quick", "version": "1", "effective_from": "2020-01-01T00:00:00Z", "suspend_after": "PT20H"}]
    line = json.dumps(control(1, "2026-01-01T00:00:00Z", "policies", policies=policies)).encode()
    inputs = Inputs([("controls", line.replace(b'"a"', written))])
    assert file_parts(inputs, 2) == [inputs]
    everybody = Inputs([("controls", line.replace(b'"a"', b'"*"'))])
    assert len(file_parts(everybody, 2)) == 2


def test_the_end_of_the_clock_is_that_of_the_part_with_the_last_usable_record(however_few: None) -> None:
    """The last record of "a" is refused; that of "b" comes before it, and after the marks of "a"."""
    topics: dict[Topic, list[dict[str, Any]]] = {
        "bills": [
            bill(1, "2026-01-01T00:00:00Z"),
            bill(2, "2026-03-01T00:00:00Z", currency="USD"),
            *(bill(9 + number, "2026-01-01T00:00:00Z", account_id=f"b{number}") for number in range(8)),
        ],
        "payments": [payment(1, "2026-01-20T00:00:00Z", account_id="b3")],
    }
    inputs = Inputs([(topic, b"\n".join(lines(records))) for topic, records in topics.items()])
    alone = replayed((topics, None, None), inputs)  # type: ignore[arg-type]  # topics are texts
    assert _in_processes(file_parts(inputs, 4), Wanted(BUILT_IN, "arrears")) == alone
    of_a = [json.loads(line) for line in alone["commands"].splitlines() if b'"account_id":"a"' in line]
    assert [command["action"] for command in of_a] == ["suspend", "delete"]
    assert json.loads(alone["accounts"].splitlines()[0])["as_of"] == "2026-01-20T00:00:00Z"


def test_controls_for_everybody_hold_in_all_parts_and_are_told_once(however_few: None) -> None:
    quick = {"name": "quick", "version": "1", "effective_from": "2020-01-01T00:00:00Z", "suspend_after": "PT5H"}
    hold = {"account_id": "*", "until": "2026-01-20T00:00:00Z"}
    topics: dict[str, list[dict[str, Any]]] = {
        "bills": [bill(number, "2026-01-02T00:00:00Z", account_id=f"a{number}") for number in range(9)],
        "controls": [
            control(1, "2026-01-01T00:00:00Z", "policies", account_id="*", policies=[quick]),
            control(2, "2026-01-02T03:00:00Z", "hold", **hold),
            control(3, "2026-01-02T03:00:00Z", "policy", account_id="*", policy="unheard-of"),
            control(4, "2026-01-02T03:00:00Z", "hold", **hold | {"until": "2026-01-01T00:00:00Z"}),
        ],
    }
    inputs = Inputs([(topic, b"\n".join(lines(topics[topic]))) for topic in FILE_TOPICS if topic in topics])
    history = topics, None, "2026-01-21T00:00:00Z"
    alone = replayed(history, inputs)
    parts = file_parts(inputs, 3)
    assert len(parts) == 3
    assert _in_processes(parts, _wanted(history)) == alone
    suspends = [json.loads(line) for line in alone["commands"].splitlines()]
    assert {(one["policy"], one["effective_at"]) for one in suspends} == {("quick@1", "2026-01-20T00:00:00Z")}
    assert len(suspends) == 9
    assert [json.loads(line)["offset"] for line in alone["dead_letters"].splitlines()] == [3, 4]


class _Broken:
    """Inputs that cannot be read."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, _: Progress) -> PartInputs:
        raise self.error


def test_what_goes_wrong_in_a_process_is_told() -> None:
    with pytest.raises(Unusable, match="no topics"):
        _replayed([_Broken(Unusable("there are no topics")), _Broken(Unusable("there are no topics"))], _plain())
    with pytest.raises(RuntimeError, match="a fault") as found:
        _replayed([_Broken(RuntimeError("a fault")), _Broken(RuntimeError("a fault"))], _plain())
    assert "__call__" in found.value.__notes__[0]  # where it was


def test_a_process_that_dies_is_told() -> None:
    def killed(_: Progress) -> PartInputs:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    with pytest.raises(Unusable, match="killed"):
        _replayed([killed, killed], _plain())


def _plain() -> Wanted:
    return Wanted(BUILT_IN, "arrears")


# Topics, as they come from Kafka ------------------------------------------------------------------------------------


class Fetched(NamedTuple):
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = 1_767_225_600_000
    timestamp_type: int = 1


def _log(topic: Topic, partition: int, records: list[Fetched], end: int = 1 << 30) -> Log:
    log = Log(topic, partition)
    log.extend(records, end, {})
    return log


def _logs_of(history: History) -> list[Log]:
    """As producers would spread them; controls for everybody on every partition."""
    spread: dict[tuple[Topic, int], list[Fetched]] = {
        (topic, partition): [] for topic in FILE_TOPICS for partition in range(PARTITIONS)
    }
    for topic in FILE_TOPICS:
        for record, value in zip(history[0][topic], lines(history[0][topic]), strict=True):
            key = record["account_id"].encode()
            own = (murmur2(key) & 0x7FFFFFFF) % PARTITIONS
            for partition in range(PARTITIONS) if key == b"*" else (own,):
                log = spread[topic, partition]
                log.append(Fetched(len(log) * 2, key, value))  # markers of transactions lie between
    return [_log(topic, partition, records) for (topic, partition), records in spread.items()]


def _shared(logs: list[Log], shares: list[list[int]]) -> list[Logs]:
    partition_of = partition_by("murmur2", PARTITIONS)
    return [
        Logs(
            [log for log in logs if log.partition in share],
            [log for log in logs if log.topic == "controls" and log.partition not in share],
            partition_of,
        )
        for share in shares
    ]


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(histories(accounts=5, most=24))
def test_topics_replay_to_the_bytes_of_files_with_the_same_records(history: History) -> None:
    from_files = replayed(history, inputs_of(history))
    logs = _logs_of(history)
    sets_policies = topic_replay.accounts_that_set_policies([log for log in logs if log.topic == "controls"])
    letters = []
    for shares in ([[0, 1, 2]], [[0], [1], [2]], [[2, 0], [1]]):
        if sets_policies and len(shares) > 1:
            continue
        from_topics = _in_processes(_shared(logs, shares), _wanted(history))
        assert {name: from_topics[name] for name in NAMES[:3]} == {name: from_files[name] for name in NAMES[:3]}
        letters.append(from_topics["dead_letters"])
    assert len(set(letters)) == 1
    # Those of controls for everybody come once a partition.
    assert {(one["topic"], one["error"], one["value"]) for one in map(json.loads, letters[0].splitlines())} == {
        (one["topic"], one["error"], one["value"]) for one in map(json.loads, from_files["dead_letters"].splitlines())
    }


def test_records_are_judged_as_live() -> None:
    value = json.dumps(bill(1, "2026-01-01T00:00:00Z")).encode()
    own = (murmur2(b"a") & 0x7FFFFFFF) % PARTITIONS
    elsewhere = (own + 1) % PARTITIONS
    logs = [
        _log("bills", own, [Fetched(3, b"a", value), Fetched(5, None, value), Fetched(6, b"b", value)]),
        _log("payments", own, [Fetched(0, b"a", None), Fetched(1, b"\xff", b"\xfe")]),
        _log("bills", elsewhere, [Fetched(8, b"a", value), Fetched(9, b"a", value)], end=9),
    ]
    outputs = _in_processes(_shared(logs, [[0, 1, 2]]), _plain())
    assert [json.loads(line)["account_id"] for line in outputs["accounts"].splitlines()] == ["a"]
    found = [json.loads(line) for line in outputs["dead_letters"].splitlines()]
    told = sorted((one["topic"], one["partition"], one["offset"], one["key"], one["error"]) for one in found)
    assert told == sorted(
        [
            ("bills", own, 5, None, "key_mismatch"),
            ("bills", own, 6, "b", "key_mismatch"),
            ("payments", own, 0, "a", "invalid"),
            ("payments", own, 1, "/w==", "not_json"),
            ("bills", elsewhere, 8, "a", "wrong_partition"),
        ]
    )
    places = [(FILE_TOPICS.index(one["topic"]), one["partition"], one["offset"]) for one in found]
    assert places == sorted(places)
    assert {one["received_at"] for one in found} == {"2026-01-01T00:00:00Z"}
    assert found[0]["value"] == value.decode()


def test_controls_for_everybody_have_their_dead_letters_once_a_partition() -> None:
    bad = json.dumps(control(1, "2026-01-02T00:00:00Z", "hold", account_id="*", until="2026-01-01T00:00:00Z")).encode()
    unknown = json.dumps(control(2, "2026-01-02T00:00:00Z", "policy", account_id="*", policy="unheard-of")).encode()
    logs = [
        _log("controls", number, [Fetched(4, b"*", bad), Fetched(6, b"*", unknown)]) for number in range(PARTITIONS)
    ]
    for shares in ([[0, 1, 2]], [[0], [1], [2]]):
        outputs = _in_processes(_shared(logs, shares), _plain())
        found = [json.loads(line) for line in outputs["dead_letters"].splitlines()]
        assert [(one["partition"], one["offset"]) for one in found] == [
            (number, offset) for number in range(PARTITIONS) for offset in (4, 6)
        ]


# What is asked for --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(histories(accounts=3, most=20), odd_lines)
def test_one_account_is_replayed_as_among_all(history: History, odd: list[tuple[str, bytes]]) -> None:
    inputs = _with_odd_lines(inputs_of(history), odd)
    everything = replayed(history, inputs)
    for account in map(json.loads, everything["accounts"].splitlines()):
        mine = account["account_id"]
        outputs = _in_processes([inputs], _wanted(history)._replace(account_id=mine))
        for name in ("commands", "notices", "accounts"):
            assert outputs[name] == b"".join(
                line + b"\n" for line in everything[name].splitlines() if json.loads(line)["account_id"] == mine
            )
        assert set(outputs["dead_letters"].splitlines()) <= set(everything["dead_letters"].splitlines())


@settings(deadline=None, max_examples=50, suppress_health_check=list(HealthCheck))
@given(histories(), st.integers(0, 40))
def test_since_limits_the_output_only(history: History, days: int) -> None:
    since = parse_instant("2026-01-01T00:00:00Z") + days * 86_400_000_000
    everything = replayed(history, inputs_of(history))
    outputs = _in_processes([inputs_of(history)], _wanted(history)._replace(since=since))
    for name, field in (("commands", "effective_at"), ("notices", "at")):
        assert outputs[name] == b"".join(
            line + b"\n" for line in everything[name].splitlines() if parse_instant(json.loads(line)[field]) >= since
        )
    assert outputs["accounts"] == everything["accounts"]
    assert outputs["dead_letters"] == everything["dead_letters"]


def test_partitions_are_shared_out_by_what_they_hold() -> None:
    found = topic_replay.Found(4, {("bills", 0): 10, ("bills", 1): 90, ("bills", 2): 20, ("bills", 3): 60}, 0, [])
    assert topic_replay.shares_of(found, 2) == [[1], [3, 2, 0]]
    assert topic_replay.shares_of(found, 8) == [[1], [3], [2], [0]]


# The command line ---------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> list[object]:
    bills = write(tmp_path / "bills", bill(1, "2026-01-01T00:00:00Z"), bill(2, "2026-01-20T00:00:00Z", account_id="b"))
    more = write(tmp_path / "usage", usage(1, "2026-01-01T00:00:00Z"))
    packs = write(tmp_path / "packages", package(1, "2026-01-01T00:00:00Z"))
    return ["--bills", bills, "--usage", more, "--packages", packs]


def test_one_account_of_files(files: list[object]) -> None:
    ended = arrears("replay", *files, "--account", "a", "--accounts", "-")
    assert ended.code == 0
    assert [(account["account_id"], account["as_of"]) for account in ended.lines] == [("a", "2026-01-20T00:00:00Z")]
    assert "3 records" in ended.err


def test_commands_since(files: list[object]) -> None:
    ended = arrears("replay", *files, "--since", "2026-01-10T00:00:00Z")
    assert [command["action"] for command in ended.lines] == ["delete"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--account", "c"], "there is no record of an account c"),
        (["--account", "*"], "name one account"),
        (["--since", "yesterday"], "--since"),
        (["--since", "2026-01-02T00:00:00Z", "--until", "2026-01-01T00:00:00Z"], "--since is later than --until"),
        (["--brokers", "127.0.0.1:1"], "leave out one of them"),
        (["--without-usage"], "leave out one of them"),
    ],
)
def test_what_cannot_be_is_told(files: list[object], options: list[str], told: str) -> None:
    ended = arrears("replay", *files, *options)
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert told in ended.err


def test_brokers_of_the_environment_leave_files_alone(files: list[object]) -> None:
    ended = arrears("replay", *files, env={"ARREARS_BROKERS": "127.0.0.1:1"})
    assert ended.code == 0
    assert ended.lines


def test_without_files_the_brokers_of_the_environment_are_asked() -> None:
    ended = arrears("replay", env={"ARREARS_BROKERS": "127.0.0.1:1"})
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert "127.0.0.1:1 do not answer" in ended.err


@pytest.fixture(scope="module")
def many_bills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many lines as make parts pay."""
    path = tmp_path_factory.mktemp("many") / "bills.jsonl"
    with path.open("wb") as file:
        for number in range(in_parts.FEWEST_LINES):
            day = f"2026-01-{1 + number % 28:02}T00:00:00Z"
            file.write(json.dumps(bill(number, day, "1", account_id=f"acct-{number % 997}")).encode() + b"\n")
    return path


def test_many_lines_replay_to_the_same_bytes_in_one_process_and_in_two(many_bills: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / name for name in ("commands", "accounts")]
    ended = arrears("replay", "--bills", many_bills, "--commands", outputs[0], "--accounts", outputs[1])
    assert ended.code == 0
    inputs = Inputs([("bills", many_bills.read_bytes())])
    alone = _in_processes([inputs], _plain())
    assert [path.read_bytes() for path in outputs] == [alone["commands"], alone["accounts"]]
    assert _in_processes([FilePart(inputs, number, 2) for number in range(2)], _plain()) == alone


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_command(many_bills: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(
        [*ARREARS, "replay", "--bills", str(many_bills), "--commands", str(out)],
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    ) as command:
        parts = processes_that_pay()
        _await(lambda: parts == 1 or len(psutil.Process(command.pid).children()) == parts)
        if number == signal.SIGINT:  # as a terminal does: to all of them
            os.killpg(command.pid, number)
        else:
            command.send_signal(number)
        _, told = command.communicate()
        assert told == (b"" if number == signal.SIGKILL else b"arrears replay: stopped before the end\n")
        _await(lambda: not _in_session(command.pid))
    assert not out.exists()


def _await(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _in_session(leader: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
