"""What can be typed to speak to the topics: load files, send controls, read what came out.

Each command hands what was typed to a module of its own, which is loaded only then.
"""

# An option of a command is an argument (FBT); a command loads what it needs, no more (PLC0415).
# ruff: noqa: FBT002, PLC0415

from __future__ import annotations

from typing import Annotated

import typer

from streams.arguments_kafka import LIVE, Connected, settings_of
from streams.faults import Unusable

_STATUSES = ("current", "in_arrears", "suspended", "deleted")


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


# Control --------------------------------------------------------------------------------------------------------------


def _kinds(incomplete: str) -> list[str]:
    from streams.control import KINDS

    return [kind for kind in KINDS if kind.startswith(incomplete) and kind != "policies"]


def _of(option: str, metavar: str, told: str) -> object:
    name = f"ARREARS_CONTROL_{option.upper().replace('-', '_')}"
    return typer.Option(f"--{option}", metavar=metavar, envvar=name, help=told, show_default=False)


def control(
    ctx: typer.Context,
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="hold, exempt, release, credit_limit, allowance, policy, opening, reopen or resume.",
            autocompletion=_kinds,
            show_default=False,
        ),
    ],
    account: Annotated[
        str, typer.Argument(metavar="ACCOUNT", help="Its id; '*' (in quotes): everybody.", show_default=False)
    ],
    reason: Annotated[str | None, _of("reason", "TEXT", "Why, for whoever asks later. It has to be given.")] = None,
    until: Annotated[
        str | None,
        _of("until", "INSTANT", "hold, exempt, resume: when it ends, or how long it lasts (+P7D). Without it: open."),
    ] = None,
    freeze_clock: Annotated[
        bool,
        typer.Option(
            "--freeze-clock",
            envvar="ARREARS_CONTROL_FREEZE_CLOCK",
            help="hold, exempt: its time does not count, the marks move by it.",
        ),
    ] = False,
    amount: Annotated[str | None, _of("amount", "MONEY", "credit_limit: how far the balance may fall.")] = None,
    duration: Annotated[str | None, _of("duration", "DURATION", "allowance: how much longer, such as P3D.")] = None,
    policy: Annotated[str | None, _of("policy", "NAME", "policy: that of episodes that begin later.")] = None,
    balance: Annotated[str | None, _of("balance", "MONEY", "opening: what is there; negative: what is owed.")] = None,
    currency: Annotated[str | None, _of("currency", "CODE", "opening: what the account is in, such as CNY.")] = None,
    status: Annotated[
        str | None, _of("status", "STATUS", "opening: current, in_arrears, suspended or deleted.")
    ] = None,
    arrears_since: Annotated[str | None, _of("arrears-since", "INSTANT", "opening: when its arrears began.")] = None,
    sequence: Annotated[int | None, _of("sequence", "N", "opening: that of the last command it was sent.")] = None,
    actor: Annotated[str | None, _of("actor", "NAME", "Who sends it. Without it your name on this machine.")] = None,
    at: Annotated[str | None, _of("at", "INSTANT", "From when it counts. Without it: now.")] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Tell the monitor what an operator decides about an account, or about everybody.

    It is checked before it is sent. What cannot be taken back, or concerns everybody, is asked first.
    """
    from streams import control as run

    fields = {
        "until": until,
        "freeze_clock": freeze_clock or None,
        "amount": amount,
        "duration": duration,
        "policy": policy,
        "balance": balance,
        "currency": currency,
        "status": status,
        "arrears_since": arrears_since,
        "sequence": sequence,
    }
    run.control(settings_of(ctx), run.Given(kind, account, reason, actor, at, fields), yes=yes, as_json=as_json)


# What came out --------------------------------------------------------------------------------------------------------


Follow = Annotated[
    bool, typer.Option("--follow", "-f", envvar="ARREARS_FOLLOW", help="Then those that come, until Ctrl-C.")
]
Account = Annotated[
    str | None,
    typer.Option(
        "--account", "-a", metavar="ACCOUNT", envvar="ARREARS_ACCOUNT", help="Of this one only.", show_default=False
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="INSTANT",
        envvar="ARREARS_SINCE",
        help="What was published at this instant or later, or within so long (PT1H).",
        show_default=False,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", "-n", metavar="N", envvar="ARREARS_LIMIT", help="The last N of them.", show_default=False),
]
JsonLines = Annotated[
    bool, typer.Option("--json", envvar="ARREARS_JSON", help="A line of JSON each, on a terminal too.")
]


def commands(
    ctx: typer.Context,
    follow: Follow = False,
    account: Account = None,
    since: Since = None,
    limit: Limit = None,
    as_json: JsonLines = False,
) -> None:
    """List what was commanded: suspend, restore, delete. Committed commands only, in the order of publication."""
    from streams import listing as run

    given = run.Given(follow, account, since, limit)
    run.list_outputs("commands", settings_of(ctx), given, as_json=as_json)


def notices(
    ctx: typer.Context,
    follow: Follow = False,
    account: Account = None,
    since: Since = None,
    limit: Limit = None,
    as_json: JsonLines = False,
) -> None:
    """List what customers and operators were told. Committed notices only, in the order of publication."""
    from streams import listing as run

    given = run.Given(follow, account, since, limit)
    run.list_outputs("notices", settings_of(ctx), given, as_json=as_json)


def dead_letters(
    ctx: typer.Context,
    follow: Follow = False,
    account: Account = None,
    since: Since = None,
    limit: Limit = None,
    as_json: JsonLines = False,
) -> None:
    """List the records that could not be used, and why."""
    from streams import listing as run

    given = run.Given(follow, account, since, limit)
    run.list_outputs("dead-letters", settings_of(ctx), given, as_json=as_json)


def accounts(
    ctx: typer.Context,
    follow: Follow = False,
    account: Account = None,
    status: Annotated[
        str | None,
        typer.Option(
            metavar="STATUS",
            envvar="ARREARS_STATUS",
            help="Those that are current, in_arrears, suspended or deleted.",
            autocompletion=lambda incomplete: [one for one in _STATUSES if one.startswith(incomplete)],
            show_default=False,
        ),
    ] = None,
    since: Since = None,
    limit: Limit = None,
    as_json: JsonLines = False,
) -> None:
    """List the accounts as they stand: the last view of each. With --limit those that have changed last."""
    from streams import listing as run

    if status is not None and status not in _STATUSES:
        raise Unusable(f"--status must be {', '.join(_STATUSES[:-1])} or {_STATUSES[-1]}")
    given = run.Given(follow, account, since, limit, status)
    run.list_outputs("accounts", settings_of(ctx), given, as_json=as_json)


# Policies -------------------------------------------------------------------------------------------------------------


def apply(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The policy file (YAML).", show_default=False)],
    without_notice: Annotated[
        bool,
        typer.Option(
            "--without-notice",
            envvar="ARREARS_WITHOUT_NOTICE",
            help="A new version may hold sooner than in 30 days (14.2). Customers have to have agreed.",
        ),
    ] = False,
    reason: Annotated[
        str | None,
        typer.Option(metavar="TEXT", envvar="ARREARS_CONTROL_REASON", help="Why, for whoever asks later."),
    ] = None,
    actor: Annotated[str | None, _of("actor", "NAME", "Who sends it. Without it your name on this machine.")] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Put the policies of a file in force, on every partition at once.

    What changes is told in words, and asked. The content of a version never changes; a new version holds 30 days from
    now at the earliest. An episode that runs keeps the version that it began under.
    """
    from streams import policy_apply as run

    given = run.Applied(file, reason, actor, without_notice)
    run.apply_policies(settings_of(ctx), given, yes=yes, as_json=as_json)


def show(ctx: typer.Context, as_json: Json = False) -> None:
    """Tell which policies each partition holds, and which are on their way."""
    from streams import policy_apply as run

    run.show_policies(settings_of(ctx), as_json=as_json)


def add_tools(app: typer.Typer, policy_app: typer.Typer) -> None:
    """Add them all to the command line."""
    example = _example("arrears policy apply policies.yaml --brokers 127.0.0.1:9092")
    policy_app.command(cls=Connected, epilog=example)(apply)
    example = _example("arrears policy show --brokers 127.0.0.1:9092")
    policy_app.command(cls=Connected, epilog=example)(show)
    example = _example("arrears load --brokers 127.0.0.1:9092 --bills bills.jsonl --payments payments.jsonl")
    app.command(cls=Sending, rich_help_panel=LIVE, epilog=example)(load)
    example = _example("arrears control hold acct-0042 --until +P7D --reason 'ticket 4711' --brokers 127.0.0.1:9092")
    app.command(cls=Sending, rich_help_panel=LIVE, epilog=example)(control)
    for name, command in (
        ("commands", commands),
        ("notices", notices),
        ("dead-letters", dead_letters),
        ("accounts", accounts),
    ):
        example = _example(f"arrears {name} --brokers 127.0.0.1:9092 --follow")
        app.command(name, cls=Sending, rich_help_panel=LIVE, epilog=example)(command)
