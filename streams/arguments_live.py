"""What can be typed to run the live system: the local broker, the topics, the settings, the worker.

Each command hands what was typed to `streams.operations`, which is loaded only then.
"""

# An option of a command is an argument (FBT); a command loads what it needs, no more (PLC0415).
# ruff: noqa: FBT002, PLC0415

from __future__ import annotations

from typing import Annotated

import typer

from streams.arguments_kafka import LIVE, LOCAL_BROKER, Connected, WithSettings, settings_of


def _example(command: str) -> str:
    return f"Example: `{command}`"


kafka_app = typer.Typer(help="Run a real Kafka broker on this machine, to try things out.")
topics_app = typer.Typer(help="Create the topics, or check that they keep what has to be kept.")

Json = Annotated[bool, typer.Option("--json", envvar="ARREARS_JSON", help="One JSON object instead of sentences.")]


# The local broker -----------------------------------------------------------------------------------------------------


def _port(told: str) -> object:
    return typer.Option("--port", metavar="PORT", envvar="ARREARS_KAFKA_PORT", help=told, show_default=False)


Data = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        envvar="ARREARS_KAFKA_DATA",
        help="The folder of its data. Without it a folder in your cache.",
        show_default=False,
    ),
]
OnPort = Annotated[int | None, _port("Its port; without --data the broker on this port is meant.")]


@kafka_app.command(epilog=_example("arrears kafka start --port 9092"))
def start(
    port: Annotated[int | None, _port("The port it listens on; 9092 by default.")] = None, data: Data = None
) -> None:
    """Start a broker, and wait until it answers.

    It is Apache Kafka, one node, that listens on 127.0.0.1 alone and runs on until it is stopped. The first start
    fetches it (45 MB).
    """
    from streams import operations as run

    run.start_kafka(port, data)


@kafka_app.command(epilog=_example("arrears kafka stop"))
def stop(port: OnPort = None, data: Data = None) -> None:
    """Stop the broker. Its data stays, for the next start."""
    from streams import operations as run

    run.stop_kafka(port, data)


@kafka_app.command(epilog=_example("arrears kafka status --json"))
def status(port: OnPort = None, data: Data = None, as_json: Json = False) -> None:
    """Tell whether the broker runs. Exits with 1 if it does not, or does not answer."""
    from streams import operations as run

    raise typer.Exit(run.kafka_status(port, data, as_json=as_json))


# Topics ---------------------------------------------------------------------------------------------------------------


def _number(option: str, told: str) -> object:
    return typer.Option(f"--{option}", metavar="N", envvar=f"ARREARS_{option.upper()}", help=told)


@topics_app.command(cls=Connected, epilog=_example("arrears topics create --brokers 127.0.0.1:9092"))
def create(
    ctx: typer.Context,
    partitions: Annotated[int, _number("partitions", "Partitions of each topic. They cannot be changed later.")] = 8,
    replication: Annotated[int, _number("replication", "Copies of each partition: 3 on a cluster.")] = 1,
    as_json: Json = False,
) -> None:
    """Create the topics that are not there, as they are designed. What is there is never changed.

    Exits with 1 if a topic that was there would lose data as it is: that is told, with what mends it.
    """
    from streams import operations as run

    raise typer.Exit(run.create_topics(settings_of(ctx), partitions, replication, as_json=as_json))


@topics_app.command(cls=Connected, epilog=_example("arrears topics check --brokers 127.0.0.1:9092"))
def check(
    ctx: typer.Context,
    partitions: Annotated[
        int | None, _number("partitions", "How many each has to have. Without it they are held to one another.")
    ] = None,
    replication: Annotated[int | None, _number("replication", "How many copies each has to have at least.")] = None,
    as_json: Json = False,
) -> None:
    """Tell what is wrong with the topics, and how to mend it. Exits with 1 if anything is."""
    from streams import operations as run

    raise typer.Exit(run.check_topics(settings_of(ctx), partitions, replication, as_json=as_json))


# Settings and worker --------------------------------------------------------------------------------------------------


def settings(ctx: typer.Context, as_json: Json = False) -> None:
    """List all settings: what each is, its value, and where that came from.

    An option is stronger than its environment variable, that than the settings file (TOML, each setting by its name),
    that than the default. Passwords are given in the environment or the file only, and are never shown.
    """
    from streams import operations as run

    run.show_settings(settings_of(ctx), as_json=as_json)


def worker(ctx: typer.Context) -> None:
    """Run a worker: what comes in from Kafka, commands, notices and account views out, each exactly once.

    Start as many as you like: they share the partitions. Ctrl-C or SIGTERM stops it in order. Passwords are given in
    the environment or the settings file only (`arrears settings` lists them), for others can read a command line.
    """
    from streams import operations as run

    raise typer.Exit(run.run_worker(settings_of(ctx)))


def add_live_commands(app: typer.Typer) -> None:
    """Add them all to the command line."""
    example = _example("arrears worker --brokers 127.0.0.1:9092")
    app.command(cls=WithSettings, rich_help_panel=LIVE, epilog=example)(worker)
    app.add_typer(topics_app, name="topics", rich_help_panel=LIVE)
    example = _example("arrears settings --settings arrears.toml")
    app.command(cls=WithSettings, rich_help_panel=LIVE, epilog=example)(settings)
    app.add_typer(kafka_app, name="kafka", rich_help_panel=LOCAL_BROKER)
