"""The commands of an operator without a broker: what is typed, where settings come from, what is told."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
import types
from typing import TYPE_CHECKING, Any

import pytest
import typer

from models.instants import DAY
from streams import operations, signals
from streams.arguments import app
from streams.cli import _COMMANDS, _GROUPS, _name
from streams.settings import GROUPS, Settings, describe, group_of, is_secret, option_of, variable_of
from streams.topic_design import Severity
from streams.topics import Made, Problem
from tests.streams.command_line import ARREARS, ROOT, arrears, environment, inside, told_in_one_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Nothing listens there: only the super-user may, and nobody does.
NOWHERE = "127.0.0.1:1"
SECRETS = {"tls_key_password", "sasl_password"}


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("ARREARS_"):
            monkeypatch.delenv(name)


def options(*words: str) -> dict[str, Any]:
    """The options of a command, by their names on the command line."""
    command: Any = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]
    return {option.opts[0]: option for option in command.get_params(typer.Context(command))}


# What a user gets wrong: one line, exit code 2 ------------------------------------------------------------------------

WRONG: dict[str, tuple[list[str], str]] = {
    "kafka: no such word": (["kafka", "begin"], "arrears kafka: No such command 'begin'"),
    "kafka: port 0": (["kafka", "start", "--port", "0"], "arrears kafka start: --port 0 is out of range"),
    "kafka: a port too high": (
        ["kafka", "status", "--port", "65536"],
        "--port 65536 is out of range: choose from 1 to",
    ),
    "kafka: a negative port": (["kafka", "stop", "--port", "-1"], "arrears kafka stop: --port -1 is out of range"),
    "kafka: a port that is none": (["kafka", "start", "--port", "nine"], "Invalid value for '--port'"),
    "kafka: no folder": (["kafka", "start", "--data", ""], "--data is empty: name a folder, or leave the option out"),
    "kafka: a NUL": (["kafka", "stop", "--data", "a\0b"], "--data a\\x00b cannot be a folder"),
    "kafka: a folder in a file": (["kafka", "start", "--data", f"{__file__}/x"], "cannot be written (Not a directory)"),
    "kafka: something left over": (["kafka", "status", "more"], "more"),
    "topics: no such word": (["topics", "delete"], "arrears topics: No such command 'delete'"),
    "create: no brokers": (
        ["topics", "create"],
        "arrears topics create: no brokers are named: give --brokers HOST:PORT",
    ),
    "check: no brokers": (["topics", "check"], "or set ARREARS_BROKERS"),
    "brokers that are none": (["topics", "check", "--brokers", "a:b"], "--brokers must be host:port"),
    "an empty list of brokers": (["topics", "check", "--brokers", ""], "--brokers must be host:port"),
    "create: no partitions": (
        ["topics", "create", "--brokers", NOWHERE, "--partitions", "0"],
        "--partitions 0 is out of range: choose from 1 to 1000",
    ),
    "create: too many": (
        ["topics", "create", "--brokers", NOWHERE, "--partitions", "1001"],
        "--partitions 1001 is out",
    ),
    "create: no number": (["topics", "create", "--partitions", "1.5"], "Invalid value for '--partitions'"),
    "check: no partitions": (
        ["topics", "check", "--brokers", NOWHERE, "--partitions", "0"],
        "arrears topics check: --partitions 0 is out of range",
    ),
    "check: no copies": (
        ["topics", "check", "--brokers", NOWHERE, "--replication", "0"],
        "--replication 0 is out of range: choose 1 or more",
    ),
    "an app id that names no topics": (["topics", "check", "--app-id", "a b"], "--app-id must be at most 200 letters"),
    "a setting twice": (["settings", "--history", "P50D", "--history", "P60D"], "--history is given twice"),
    "a setting that is none": (["settings", "--max-delete", "3"], "--max-deletes"),
    "a value that is none": (["settings", "--max-deletes", "no"], '--max-deletes must be "off" or a whole number'),
    "a setting without its value": (["settings", "--tls"], "requires an argument"),
    "no settings file": (["settings", "--settings", "no-such-file"], "no-such-file cannot be read"),
    "an empty name of one": (["settings", "--settings", ""], "--settings is empty: name the settings file"),
    "a secret": (
        ["worker", "--sasl-password", "hunter2"],
        "arrears worker: --sasl-password would show it to everybody on this machine: set ARREARS_SASL_PASSWORD",
    ),
    "worker: no brokers": (["worker"], "arrears worker: no brokers are named"),
    "worker: a port": (["worker", "--brokers", NOWHERE, "--metrics-port", "65536"], "--metrics-port must be a port"),
    "worker: half a sign-in": (
        ["worker", "--brokers", NOWHERE, "--sasl-mechanism", "plain"],
        "needs a name to sign in",
    ),
    "worker: no certificates": (
        ["worker", "--brokers", NOWHERE, "--tls", "on", "--tls-ca-file", "no-such-file"],
        "the certificates in no-such-file cannot be used",
    ),
    "worker: a clock for tests": (["worker", "--brokers", "far:1", "--clock", "+P1D"], "--clock is for tests"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_used_is_told_in_one_line(capfdbinary: Any, case: str) -> None:
    words, expected = WRONG[case]
    told = told_in_one_line(inside(capfdbinary, *words))
    assert expected in told
    assert told.startswith(f"{_name(words)}: ")
    assert "hunter2" not in told


@pytest.mark.parametrize("word", ["create", "check"])
def test_brokers_that_are_not_there_are_told_soon(capfdbinary: Any, word: str) -> None:
    began = time.monotonic()
    told = told_in_one_line(inside(capfdbinary, "topics", word, "--brokers", NOWHERE))
    assert f"arrears topics {word}: the brokers at {NOWHERE} do not answer as they should" in told
    assert "see that they run" in told
    assert time.monotonic() - began < 15


def test_brokers_that_say_nothing_are_told_within_a_minute(capfdbinary: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.brokers._TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert "do not answer" in told_in_one_line(inside(capfdbinary, "topics", "check", "--brokers", address))


def test_the_variable_is_named_if_that_is_wrong(capfdbinary: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARREARS_MAX_DELETES", "some")
    assert "arrears worker: ARREARS_MAX_DELETES must be" in told_in_one_line(inside(capfdbinary, "worker"))
    monkeypatch.setenv("ARREARS_MAX_DELETES", "5")
    monkeypatch.setenv("ARREARS_KAFKA_PORT", "0")
    assert "--port 0 is out of range" in told_in_one_line(inside(capfdbinary, "kafka", "status"))


def test_the_file_is_named_if_that_is_wrong(tmp_path: Path, capfdbinary: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("max_deltes = 3\n")
    told = told_in_one_line(inside(capfdbinary, "topics", "check", "--settings", file))
    assert f"{file}: max_deltes is no setting: did you mean max_deletes?" in told
    file.write_text("max_deletes = -3\n")
    monkeypatch.setenv("ARREARS_SETTINGS", str(file))
    assert f'{file}: max_deletes must be "off" or a whole number; got -3' in told_in_one_line(
        inside(capfdbinary, "settings")
    )


def test_messages_name_the_command_and_nothing_that_was_typed() -> None:
    assert _name(["kafka", "start", "--data", "stop"]) == "arrears kafka start"
    assert _name(["kafka", "--help"]) == "arrears kafka"
    assert _name(["topics"]) == "arrears topics"
    assert _name(["worker", "settings"]) == "arrears worker"
    assert _name(["policy", "x", "check"]) == "arrears policy"
    assert _name(["secret"]) == _name([]) == "arrears"
    command: Any = typer.main.get_command(app)
    for word, found in command.commands.items():
        subs = getattr(found, "commands", None)
        assert word in _COMMANDS if subs is None else set(subs) <= set(_GROUPS[word])


# Options are settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["worker", "settings"])
def test_there_is_an_option_for_every_setting_and_none_for_a_secret(command: str) -> None:
    found = options(command)
    assert {name for name in Settings.model_fields if is_secret(name)} == SECRETS
    for name, field in Settings.model_fields.items():
        option = found[option_of(name)]
        assert (option.envvar, option.help) == (variable_of(name), field.description)
        assert option.hidden == (name in SECRETS)
    assert found["--settings"].envvar == "ARREARS_SETTINGS"


def test_commands_that_only_connect_have_no_more_than_that() -> None:
    own = {"--partitions", "--replication", "--json", "--help"}
    for word in ("create", "check"):
        assert options("topics", word).keys() - own == {"--brokers", "--app-id", "--settings"}


def test_help_shows_defaults_forms_and_variables(capfdbinary: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = inside(capfdbinary, "worker", "--help").out.decode()
    for expected in ("DURATION|off", "HOST:PORT,…", "[default: PT12H]", "ARREARS_PAYMENTS_SILENCE", "The guards"):
        assert expected in text
    assert "ARREARS_SASL_PASSWORD]" not in text


def test_every_group_begins_with_a_setting() -> None:
    assert set(GROUPS) <= set(Settings.model_fields)
    assert next(iter(GROUPS)) == next(iter(Settings.model_fields))
    assert {group_of(name) for name in Settings.model_fields} == set(GROUPS.values())
    assert group_of("metrics_port") == "How the worker runs"


def test_help_lists_the_commands_in_groups(capfdbinary: Any) -> None:
    text = inside(capfdbinary, "--help").out.decode()
    at = [text.index(heading) for heading in ("The rule, on files", "Live, on Kafka", "A broker on this machine")]
    assert at == sorted(at)
    assert at[0] < text.index("replay ") < at[1] < text.index("worker ") < at[2] < text.index("kafka ")


def test_help_loads_no_settings() -> None:
    code = "import sys; from streams.cli import run; run(['--help']); print('streams.settings' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment(), cwd=ROOT)
    assert ended.stdout.splitlines()[-1] == b"False"


# Settings -------------------------------------------------------------------------------------------------------------


def listed(capfdbinary: Any, *arguments: object) -> dict[str, dict[str, Any]]:
    ended = inside(capfdbinary, "settings", "--json", *arguments)
    assert (ended.code, ended.err) == (0, "")
    return {row["name"]: row for row in ended.lines[0]["settings"]}


def test_settings_are_listed_with_where_they_came_from(
    tmp_path: Path, capfdbinary: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('app_id = "staging"\nhistory = "P60D"\nmax_deletes = 3\n')
    monkeypatch.setenv("ARREARS_MAX_DELETES", "4")
    monkeypatch.setenv("ARREARS_HISTORY", "P61D")
    rows = listed(capfdbinary, "--settings", file, "--history", "P62D")
    assert list(rows) == list(Settings.model_fields)
    assert {name: (row["value"], row["origin"]) for name, row in rows.items() if row["origin"] != "default"} == {
        "app_id": ("staging", "file"),
        "max_deletes": ("4", "environment"),
        "history": ("PT1488H", "option"),
    }
    assert rows["history"]["option"] == "--history"
    assert rows["history"]["variable"] == "ARREARS_HISTORY"
    assert rows["history"]["help"] == Settings.model_fields["history"].description
    lines = inside(capfdbinary, "settings", "--settings", file).out.decode().splitlines()
    assert len(lines) == len(Settings.model_fields)
    assert "max_deletes = 4 (environment; --max-deletes, ARREARS_MAX_DELETES): Deletes a partition" in "\n".join(lines)


def test_secrets_are_hidden_and_have_no_option(capfdbinary: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARREARS_SASL_PASSWORD", "hunter2")
    arguments = ("--sasl-mechanism", "plain", "--sasl-username", "u")
    row = listed(capfdbinary, *arguments)["sasl_password"]
    assert (row["value"], row["origin"]) == ("(hidden)", "environment")
    assert row["option"] is None
    assert b"hunter2" not in inside(capfdbinary, "settings", *arguments).out


def test_what_is_listed_can_be_given_as_it_is(capfdbinary: Any) -> None:
    rows = describe(Settings())
    typed = [word for row in rows if row.option and row.value for word in (row.option, row.value)]
    assert [row["value"] for row in listed(capfdbinary, *typed).values()] == [row.value for row in rows]


def on_a_terminal(*arguments: str) -> str:
    """What a person sees, without colours."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*ARREARS, *arguments], stdout=theirs, env=environment(COLUMNS="120"), cwd=ROOT)
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 65536):
            seen += piece
    except OSError:  # it is closed
        pass
    os.close(ours)
    assert process.wait(timeout=30) == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", seen.decode())


def test_on_a_terminal_settings_are_a_table() -> None:
    text = on_a_terminal("settings", "--max-deletes", "off")
    assert re.search(r"│ max_deletes +│ off +│ option +│ Deletes a partition", text)
    assert "│ --max-deletes " in text
    assert "│ ARREARS_MAX_DELETES " in text


# Topics, as they are shown --------------------------------------------------------------------------------------------

PROBLEM = Problem(Severity.FATAL, "bills", "is [bold]wrong", "kafka-configs " + "x" * 200)
WARNING = Problem(Severity.WARNING, "acks", "is worse than it could be", "mend it")


def found(monkeypatch: pytest.MonkeyPatch, *problems: Problem) -> None:
    async def check(*_: object, **__: object) -> list[Problem]:
        return list(problems)

    async def create(*_: object, **__: object) -> list[Made]:
        return [Made("usage", created=True, problems=()), Made("bills", created=False, problems=problems)]

    monkeypatch.setattr("streams.topics.check", check)
    monkeypatch.setattr("streams.topics.create", create)


def test_a_problem_is_a_line_that_is_never_broken(capfdbinary: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, PROBLEM, WARNING)
    ended = inside(capfdbinary, "topics", "check", "--brokers", NOWHERE)
    assert (ended.code, ended.err) == (1, "")
    assert ended.out.decode().splitlines() == [f"fatal: {PROBLEM}", f"warning: {WARNING}"]
    as_json = inside(capfdbinary, "topics", "check", "--brokers", NOWHERE, "--json")
    assert as_json.code == 1
    assert as_json.lines == [
        {
            "app_id": "arrears",
            "problems": [
                {"severity": "fatal", "topic": "bills", "told": PROBLEM.told, "mend": PROBLEM.mend},
                {"severity": "warning", "topic": "acks", "told": WARNING.told, "mend": WARNING.mend},
            ],
        }
    ]


def test_on_a_terminal_problems_are_a_table(capfdbinary: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, PROBLEM)
    monkeypatch.setattr(operations, "on_terminal", lambda: True)
    checked = inside(capfdbinary, "topics", "check", "--brokers", NOWHERE).out.decode()
    assert re.search(r"│ fatal │ bills │ is \[bold\]wrong │ kafka-configs", checked)
    made = inside(capfdbinary, "topics", "create", "--brokers", NOWHERE).out.decode()
    assert re.search(r"│ usage │ created +│ +│\n│ bills │ was there │ 1 +│", made)


@pytest.mark.parametrize(("problems", "code"), [((), 0), ((WARNING,), 0), ((WARNING, PROBLEM), 1)])
def test_topics_that_are_there_and_would_lose_data_are_no_success(
    capfdbinary: Any, monkeypatch: pytest.MonkeyPatch, problems: tuple[Problem, ...], code: int
) -> None:
    found(monkeypatch, *problems)
    ended = inside(capfdbinary, "topics", "create", "--brokers", NOWHERE)
    assert (ended.code, ended.err) == (code, "")
    lines = ended.out.decode().splitlines()
    assert lines == ["usage: created", "bills: was there", *(f"{p.severity.value}: {p}" for p in problems)]


# The worker -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fake_worker(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[Settings]]:
    """In the place of the worker: notes what it is given, and ends with this exit code."""

    def make(code: int) -> list[Settings]:
        given: list[Settings] = []
        fake = types.ModuleType("streams.worker")

        def run(settings: Settings) -> int:
            given.append(settings)
            return code

        fake.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "streams.worker", fake)
        monkeypatch.setattr(operations, "leave_signals", lambda: None)  # they are pytest's
        return given

    return make


@pytest.mark.parametrize("code", [0, 1, 3])
def test_the_worker_gets_its_settings_and_its_exit_code_is_the_command_s(
    capfdbinary: Any, monkeypatch: pytest.MonkeyPatch, fake_worker: Callable[[int], list[Settings]], code: int
) -> None:
    given = fake_worker(code)
    monkeypatch.setenv("ARREARS_METRICS_PORT", "0")
    ended = inside(
        capfdbinary,
        "worker",
        "--brokers",
        "a:1,b:2",
        "--history",
        "P50D",
        "--subscribers",
        "x,y",
        "--max-deletes",
        "off",
    )
    assert (ended.code, ended.out, ended.err) == (code, b"", "")
    (settings,) = given
    assert (settings.brokers, settings.history, settings.subscribers) == (("a:1", "b:2"), 50 * DAY, ("x", "y"))
    assert (settings.max_deletes, settings.metrics_port) == (None, 0)
    assert (settings.origin("metrics_port"), settings.origin("history")) == ("environment", "option")


STOPPED_IN_ORDER = """
import signal, sys, time, types
def run(settings):
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(1))
    print("runs", flush=True)
    while not told:
        time.sleep(0.01)
    print("in order", flush=True)
    return 0
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # whatever runs the tests has turned off
    signal.signal(number, signal.SIG_DFL)
fake = types.ModuleType("streams.worker")
fake.run = run
sys.modules["streams.worker"] = fake
sys.argv = ["arrears", "worker", "--brokers", "127.0.0.1:1"]
from streams.cli import main
main()
"""


@pytest.mark.parametrize(
    ("number", "ended"),
    [
        (signal.SIGTERM, (0, b"in order\n", b"")),
        (signal.SIGINT, (130, b"", b"arrears worker: stopped before the end\n")),
        (signal.SIGHUP, (-signal.SIGHUP, b"", b"")),
    ],
)
def test_signals_are_the_worker_s(number: signal.Signals, ended: tuple[int, bytes, bytes]) -> None:
    command = [sys.executable, "-c", STOPPED_IN_ORDER]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"runs\n"
        process.send_signal(number)
        try:
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, out, err) == ended


def test_signals_that_were_turned_off_stay_so(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {number: signal.getsignal(number) for number in signals._ENDING}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signals.end_on_signals(lambda: "arrears")
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert callable(signal.getsignal(signal.SIGTERM))
        signals.leave_signals()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# The local broker, without one ----------------------------------------------------------------------------------------


def test_nothing_runs(tmp_path: Path, capfdbinary: Any) -> None:
    status = inside(capfdbinary, "kafka", "status", "--data", tmp_path)
    assert (status.code, status.out.decode(), status.err) == (1, f"No local Kafka runs in {tmp_path}.\n", "")
    stopped = inside(capfdbinary, "kafka", "stop", "--data", tmp_path)
    assert stopped.code == 0
    assert stopped.out.decode() == f"No local Kafka runs in {tmp_path}: there is nothing to stop.\n"
    as_json = inside(capfdbinary, "kafka", "status", "--data", tmp_path, "--json")
    assert (as_json.code, as_json.lines[0]["state"], as_json.lines[0]["address"]) == (1, "stopped", None)


def test_nothing_runs_on_a_port(capfdbinary: Any) -> None:
    assert inside(capfdbinary, "kafka", "status", "--port", 1).out == b"No local Kafka runs on port 1.\n"
    assert inside(capfdbinary, "kafka", "stop", "--port", 1).code == 0
    as_json = inside(capfdbinary, "kafka", "status", "--port", 1, "--json")
    assert (as_json.code, as_json.lines[0]["state"], as_json.lines[0]["folder"]) == (1, "stopped", None)


def test_a_port_that_something_else_has(tmp_path: Path, capfdbinary: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        told = told_in_one_line(inside(capfdbinary, "kafka", "start", "--port", port, "--data", tmp_path))
    assert f"arrears kafka start: port {port} is in use by something else: choose another (--port)" in told


@pytest.mark.parametrize("word", ["start", "stop", "status"])
def test_without_the_extra_it_is_named(word: str) -> None:
    code = f"import sys; sys.modules['psutil'] = None; from streams.cli import run; sys.exit(run(['kafka', '{word}']))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, env=environment(), cwd=ROOT)
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert ended.stderr.decode() == (
        f"arrears kafka {word}: a local Kafka needs the Python package psutil: "
        "pip install 'arrears-monitor[local-kafka]'\n"
    )


def test_a_download_that_is_missing_is_told(tmp_path: Path) -> None:
    settings = tmp_path / "jgo.conf"
    settings.write_text("[repositories]\ncentral = http://127.0.0.1:1\n")
    ended = arrears(
        *("kafka", "start", "--data", tmp_path / "kafka", "--port", _free_port()),
        env={
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "JGO_CONFIG_FILE": str(settings),
            "JGO_CACHE_DIR": str(tmp_path / "jgo"),
            "M2_REPO": str(tmp_path / "m2"),
        },
    )
    assert (ended.code, ended.out) == (2, b"")
    fetching, told = ended.err.splitlines()
    assert fetching.startswith("arrears kafka start: fetching 46 of the 46 jars of Kafka ")
    assert told.startswith("arrears kafka start: the jars of Kafka cannot be fetched (")
    assert "go online for the first start, or name a mirror" in told


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def test_json_is_json_whatever_a_folder_is_called(tmp_path: Path, capfdbinary: Any) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n")
    ended = inside(capfdbinary, "kafka", "status", "--data", folder, "--json")
    assert json.loads(ended.out)["folder"].endswith("/\\udcff\\n")
