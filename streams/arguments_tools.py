"""What can be typed to speak to the topics: load files, send controls, read what came out.

Each command hands what was typed to a module of its own, which is loaded only then.
"""

# An option of a command is an argument (FBT); a command loads what it needs, no more (PLC0415).
# ruff: noqa: FBT002, PLC0415

from __future__ import annotations

from typing import Annotated

import typer

from streams.arguments_kafka import LIVE, Connected, settings_of


def _example(command: str) -> str:
    return f"Example: `{command}`"


class Sending(Connected):
    """A command that has to find an account's partition too."""

    names = ("brokers", "app_id", "partitioner")


def _input(topic: str, told: str) -> object:
    return typer.Option(f"--{topic}", metavar="FILE", envvar=f"ARREARS_{topic.upper()}", help=told, show_default=False)


Bills = Annotated[str | None, _input("bills", "Bills issued, adjusted and voided ('-': standard input).")]
Payments = Annotated[str | None, _input("payments", "Top-ups, refunds, reversals and gifts.")]
Usage = Annotated[str | None, _input("usage", "What was used of the services.")]
Packages = Annotated[str | None, _input("packages", "Prepaid packages, purchased and cancelled.")]
Controls = Annotated[str | None, _input("controls", "What operators did; that for everybody goes to every partition.")]
Json = Annotated[bool, typer.Option("--json", envvar="ARREARS_JSON", help="JSON instead of words and tables.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", envvar="ARREARS_YES", help="Do not ask.")]


# Load -----------------------------------------------------------------------------------------------------------------


def load(
    ctx: typer.Context,
    bills: Bills = None,
    payments: Payments = None,
    usage: Usage = None,
    packages: Packages = None,
    controls: Controls = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            envvar="ARREARS_RESUME",
            help="Where to remember how far the load has come. Without it a file in your home, one for these "
            "inputs and this cluster.",
            show_default=False,
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", envvar="ARREARS_AGAIN", help="From the beginning, whatever was loaded before.")
    ] = False,
    as_is: Annotated[
        bool,
        typer.Option("--as-is", envvar="ARREARS_AS_IS", help="Send lines too that are no JSON or name no account."),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", envvar="ARREARS_STRICT", help="Exit with 3 if a line could not be used.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", envvar="ARREARS_QUIET", help="No summary and no progress bar.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Load files of records (JSON lines) into the topics, in the order of what happened.

    The same command again goes on where the one before was interrupted, takes what has been added to the files since,
    and sends nothing twice; standard input and pipes are always taken whole. A record that comes twice all the same
    does no harm: its event_id counts once.
    """
    from streams import load as run

    given = run.Given(bills, payments, usage, packages, controls, resume, again=again, as_is=as_is)
    raise typer.Exit(run.load(settings_of(ctx), given, strict=strict, quiet=quiet, as_json=as_json))


def add_tools(app: typer.Typer) -> None:
    """Add them all to the command line."""
    example = _example("arrears load --brokers 127.0.0.1:9092 --bills bills.jsonl --payments payments.jsonl")
    app.command(cls=Sending, rich_help_panel=LIVE, epilog=example)(load)
