"""What the commands of an operator do: the local broker, the topics, the settings, the worker.

What the user has to mend is raised as `Unusable`; `streams.cli` tells it.
"""

# A command loads what it needs, no more.
# ruff: noqa: PLC0415

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from models.refusal import printable
from streams.faults import Unusable
from streams.files import STANDARD
from streams.settings import describe
from streams.showing import on_terminal, say, show
from streams.signals import leave_signals
from streams.writers import Output

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import RenderableType

    from streams.local_kafka import LocalKafka, Status
    from streams.settings import Row, Settings
    from streams.topics import Made, Problem

#: Exit codes (§4).
OK: Final = 0
FOUND: Final = 1
STOPPED: Final = 130

#: Where Kafka is looked for if nothing else is said.
PORT: Final = 9092
MOST_PORT: Final = 65_535


def _as_json(value: object) -> None:
    with Output("--json", STANDARD) as output:
        output.write_all([value])
        output.finish()


# The local broker -----------------------------------------------------------------------------------------------------


def start_kafka(port: int | None, data: str | None) -> None:
    """`arrears kafka start`."""
    from streams.local_kafka import KAFKA_VERSION, LocalKafka

    _check_port(port)
    broker = LocalKafka(
        PORT if port is None else port, _folder(data), say=lambda line: say(f"arrears kafka start: {line}")
    )
    started = broker.start()
    show(
        f"Kafka {KAFKA_VERSION} {'runs' if started else 'runs already'} at {broker.address}, "
        f"its data in {printable(str(broker.folder))}.",
        f"Next:       arrears topics create --brokers {broker.address}",
        f"To stop it: arrears kafka stop{_data_option(broker.folder)}",
    )


def stop_kafka(port: int | None, data: str | None) -> None:
    """`arrears kafka stop`. That there is none to stop is no fault."""
    broker = _find(port, data)
    if broker is not None and broker.stop():
        show(f"Kafka is stopped; its data stays in {printable(str(broker.folder))}.")
    else:
        show(f"{_none_runs(broker, port)}: there is nothing to stop.")


def kafka_status(port: int | None, data: str | None, *, as_json: bool) -> int:
    """`arrears kafka status`. Returns the exit code: 0 if it runs and answers, 1 if not."""
    from streams.local_kafka import KAFKA_VERSION, State

    broker = _find(port, data)
    status = None if broker is None else broker.status()
    state = State.STOPPED if status is None else status.state
    if as_json:
        _as_json(
            {
                "state": state.name.lower(),
                "address": None if status is None or status.port is None else _address(status),
                "port": None if status is None else status.port,
                "pid": None if status is None else status.pid,
                "folder": None if status is None else printable(str(status.folder)),
                "log": None if broker is None else printable(str(broker.log)),
                "version": KAFKA_VERSION,
            }
        )
    elif broker is None or status is None or state is State.STOPPED:
        show(f"{_none_runs(broker, port)}.")
    elif state is State.SILENT:
        show(
            f"Kafka (process {status.pid}) does not answer at {_address(status)}: wait if it starts just now, "
            f"else end it (arrears kafka stop{_data_option(broker.folder)}); {printable(str(broker.log))} says more."
        )
    else:
        folder = printable(str(broker.folder))
        show(f"Kafka {KAFKA_VERSION} runs at {_address(status)} (process {status.pid}), its data in {folder}.")
    return OK if state is State.RUNNING else FOUND


def _find(port: int | None, data: str | None) -> LocalKafka | None:
    """The broker that is meant: that of the folder, or that on the port. None if none runs on the port."""
    from streams.local_kafka import LocalKafka
    from streams.local_kafka.process import brokers

    _check_port(port)
    if data is None and port is not None:
        return next((LocalKafka(port, Path(one.folder)) for one in brokers() if one.port == port), None)
    broker = LocalKafka(port or PORT, _folder(data))
    runs_on = broker.status().port
    if None not in {port, runs_on} and port != runs_on:
        raise Unusable(
            f"--port {port} is not that of the local Kafka of {printable(str(broker.folder))}, which is {runs_on}: "
            "give one of --port and --data"
        )
    return broker


def _check_port(port: int | None) -> None:
    if port is not None and not 1 <= port <= MOST_PORT:
        raise Unusable(f"--port {port} is out of range: choose from 1 to {MOST_PORT}, such as {PORT}")


def _folder(data: str | None) -> Path | None:
    if data is None:
        return None
    if not data:
        raise Unusable("--data is empty: name a folder, or leave the option out")
    try:
        return Path(data).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links, a NUL
        raise Unusable(f"--data {printable(data)} cannot be a folder ({error}): name another") from None


def _data_option(folder: Path) -> str:
    from streams.local_kafka import default_data_dir

    return "" if folder == default_data_dir().resolve() else f" --data {shlex.quote(printable(str(folder)))}"


def _none_runs(broker: LocalKafka | None, port: int | None) -> str:
    return f"No local Kafka runs {f'on port {port}' if broker is None else f'in {printable(str(broker.folder))}'}"


def _address(status: Status) -> str:
    from streams.local_kafka.probe import HOST

    return f"{HOST}:{status.port}"


# Topics ---------------------------------------------------------------------------------------------------------------


def create_topics(settings: Settings, partitions: int, replication: int, *, as_json: bool) -> int:
    """`arrears topics create`. Returns the exit code: 1 if a topic that was there would lose data."""
    from streams.kafka_client import kafka_client_options
    from streams.topic_design import Severity
    from streams.topics import create

    kafka = kafka_client_options(settings)
    made = asyncio.run(create(kafka, partitions=partitions, replication=replication, app_id=settings.app_id))
    problems = [problem for one in made for problem in one.problems]
    if as_json:
        topics = [
            {"topic": one.topic, "created": one.created, "problems": [_problem(problem) for problem in one.problems]}
            for one in made
        ]
        _as_json({"app_id": settings.app_id, "partitions": partitions, "topics": topics})
    else:
        show(*_made_shown(made), *_problems_shown(problems))
    return FOUND if any(problem.severity is Severity.FATAL for problem in problems) else OK


def check_topics(settings: Settings, partitions: int | None, replication: int | None, *, as_json: bool) -> int:
    """`arrears topics check`. Returns the exit code: 1 if there is a problem."""
    from streams.kafka_client import kafka_client_options
    from streams.topics import check

    kafka = kafka_client_options(settings)
    problems = asyncio.run(check(kafka, partitions=partitions, replication=replication, app_id=settings.app_id))
    if as_json:
        _as_json({"app_id": settings.app_id, "problems": [_problem(problem) for problem in problems]})
    elif problems:
        show(*_problems_shown(problems))
    else:
        show(f"The topics of {settings.app_id} are as they should be.")
    return FOUND if problems else OK


def _problem(problem: Problem) -> dict[str, str]:
    return problem._asdict() | {"severity": problem.severity.value}


def _made_shown(made: Iterable[Made]) -> Iterator[RenderableType]:
    what = {True: "created", False: "was there"}
    if not on_terminal():
        for one in made:
            yield f"{one.topic}: {what[one.created]}"
        return
    table = Table("topic", "", "problems")
    for one in made:
        table.add_row(one.topic, what[one.created], str(len(one.problems) or ""))
    yield table


def _problems_shown(problems: Iterable[Problem]) -> Iterator[RenderableType]:
    """On a terminal a table; else a line for each, with nothing broken: what mends it is there to be pasted."""
    problems = list(problems)
    if not on_terminal():
        for problem in problems:
            yield f"{problem.severity.value}: {problem}"
        return
    if problems:
        table = Table("", "topic", "what is wrong", "how to mend it", show_lines=True)
        styles = {"fatal": "bold red", "warning": "yellow"}
        for problem in problems:
            severity = problem.severity.value
            table.add_row(Text(severity, styles[severity]), problem.topic, problem.told, problem.mend)
        yield table
        yield "With | cat behind it each is one line, and what mends it can be copied."


# Settings and worker --------------------------------------------------------------------------------------------------


def show_settings(settings: Settings, *, as_json: bool) -> None:
    """`arrears settings`."""
    rows = describe(settings)
    if as_json:
        _as_json({"settings": [row._asdict() for row in rows]})
    elif on_terminal():
        show(_settings_table(rows))
    else:
        show(*map(_setting_line, rows))


def _setting_line(row: Row) -> str:
    ways = f"{row.option}, {row.variable}" if row.option else row.variable
    return f"{row.name} = {printable(row.value) or '-'} ({row.origin}; {ways}): {row.help}"


def _settings_table(rows: Iterable[Row]) -> Table:
    table = Table("setting, option, variable", "value", "from", "what it is", show_lines=True)
    for row in rows:
        ways = "\n".join(filter(None, (row.option, row.variable)))
        style = "" if row.origin == "default" else "bold"
        value = Text(printable(row.value), style)
        table.add_row(Text.assemble((row.name, "bold"), "\n", (ways, "dim")), value, Text(row.origin, style), row.help)
    return table


def run_worker(settings: Settings) -> int:
    """`arrears worker`. Returns the exit code."""
    from streams.kafka_client import kafka_client_options

    kafka_client_options(settings)  # no brokers, no certificate, no password: told before anything else is done
    from streams.worker import run

    leave_signals()
    try:
        return run(settings)
    except KeyboardInterrupt:  # it has no handlers of its own yet, or no longer
        say("arrears worker: stopped before the end")
        return STOPPED
