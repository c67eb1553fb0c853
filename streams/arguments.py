"""What can be typed after `arrears` (contract §4): commands, options, their environment variables and their help.

Each command hands what was typed to `streams.commands`, which is loaded only then: `arrears --help` answers at once.
"""

# An option of a command is an argument (FBT); a command loads what it needs, no more (PLC0415).
# ruff: noqa: FBT001, FBT002, PLC0415

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, ClassVar

import typer

from streams.arguments_kafka import LIVE, LOCAL_BROKER, WithSettings, settings_of, typed
from streams.arguments_live import add_live_commands
from streams.arguments_tools import add_tools


def _example(command: str) -> str:
    return f"Example: `{command}`"


app = typer.Typer(
    name="arrears",
    help="Suspends, restores and deletes the accounts of a cloud by the rule of its service agreement.",
    epilog=_example("arrears demo"),
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
#: The heading under which `arrears --help` lists the commands that need no Kafka.
FILES = "The rule, on files"

policy_app = typer.Typer(help="Check policy files, put them in force, tell what is in force.")


# Options that several commands have -------------------------------------------------------------------------------

_IN = "Input: JSON lines ('-': standard input)"
_OUT = "Output: JSON lines ('-': standard output)"
_RULE = "The rule"


def _input(topic: str, told: str) -> object:
    name = f"ARREARS_{topic.upper()}"
    return typer.Option(f"--{topic}", metavar="FILE", envvar=name, help=told, rich_help_panel=_IN, show_default=False)


def _output(option: str, told: str) -> object:
    name = f"ARREARS_{option.upper().replace('-', '_')}"
    return typer.Option(f"--{option}", metavar="FILE", envvar=name, help=told, rich_help_panel=_OUT, show_default=False)


Bills = Annotated[str | None, _input("bills", "Bills issued, adjusted and voided.")]
Payments = Annotated[str | None, _input("payments", "Top-ups, refunds, reversals and gifts.")]
Usage = Annotated[str | None, _input("usage", "What was used of the services.")]
Packages = Annotated[str | None, _input("packages", "Prepaid packages, purchased and cancelled.")]
Controls = Annotated[str | None, _input("controls", "Holds, exemptions, credit limits: what operators did.")]
PolicyFile = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="FILE",
        envvar="ARREARS_POLICY",
        help="Policy file (YAML). Without it the built-in policy holds: maxcompute@2018-03-16.",
        rich_help_panel=_RULE,
        show_default=False,
    ),
]
Until = Annotated[
    str | None,
    typer.Option(
        metavar="INSTANT",
        envvar="ARREARS_UNTIL",
        help="Run the clock on to this instant, such as 2026-02-01T00:00:00Z; records after it are left out. "
        "Without it the clock ends with the last usable record.",
        rich_help_panel=_RULE,
        show_default=False,
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="INSTANT",
        envvar="ARREARS_SINCE",
        help="Leave out commands and notices before this instant, and records refused before it. It limits the output "
        "only: all records are replayed.",
        rich_help_panel=_RULE,
        show_default=False,
    ),
]
OneAccount = Annotated[
    str | None,
    typer.Option(
        "--account",
        metavar="ACCOUNT",
        envvar="ARREARS_ACCOUNT",
        help="This account alone. Of topics only its partition is read: without --until the clock ends with the last "
        "usable record of that.",
        rich_help_panel=_RULE,
        show_default=False,
    ),
]
AppId = Annotated[
    str,
    typer.Option(
        metavar="ID", envvar="ARREARS_APP_ID", help="Enters the ids of commands and notices.", rich_help_panel=_RULE
    ),
]


# Commands ---------------------------------------------------------------------------------------------------------


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"arrears {version('arrears-monitor')}")
        raise typer.Exit


@app.callback()
def _arrears(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


class FromTopics(WithSettings):
    """A command that can read the topics, too."""

    names: ClassVar[tuple[str, ...] | None] = ("brokers", "partitioner")


@app.command(
    cls=FromTopics,
    rich_help_panel=FILES,
    epilog=_example(
        "arrears replay --bills bills.jsonl --payments payments.jsonl --until 2026-02-01T00:00:00Z "
        "--commands commands.jsonl --accounts accounts.jsonl"
    ),
)
def replay(
    ctx: typer.Context,
    bills: Bills = None,
    payments: Payments = None,
    usage: Usage = None,
    packages: Packages = None,
    controls: Controls = None,
    policy: PolicyFile = None,
    since: Since = None,
    until: Until = None,
    account: OneAccount = None,
    app_id: AppId = "arrears",
    commands: Annotated[str | None, _output("commands", "Suspend, restore and delete commands.")] = None,
    notices: Annotated[str | None, _output("notices", "What customers and operators are told.")] = None,
    accounts: Annotated[str | None, _output("accounts", "Every account as it stands at the end.")] = None,
    dead_letters: Annotated[str | None, _output("dead-letters", "Lines that could not be used, and why.")] = None,
    without_usage: Annotated[
        bool,
        typer.Option(
            "--without-usage",
            envvar="ARREARS_WITHOUT_USAGE",
            help="With --brokers: leave out the topic usage, which is not kept for ever. Balances and commands come "
            "from the others.",
            rich_help_panel=LIVE,
        ),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", envvar="ARREARS_STRICT", help="Exit with 3 if a line could not be used.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", envvar="ARREARS_QUIET", help="No summary and no progress bar.")
    ] = False,
) -> None:
    """Replay records from files or from the topics: which accounts the rule suspends, restores and deletes.

    Give files, any of them and their lines in any order; or with --brokers the topics are read, from their first record
    to where they end now, and nothing is left on the brokers. The same records give the same output, byte for byte.
    Without an output option the commands go to standard output. A summary goes to standard error.
    """
    from streams import commands as run

    inputs = run.Sources(bills, payments, usage, packages, controls, policy, until, app_id, since, account)
    outputs = run.Targets(commands, notices, accounts, dead_letters)
    settings = None
    if run.topics_are_meant(inputs, typed=typed(ctx, "brokers", "partitioner", "without_usage")):
        given = {name: ctx.params[name] for name in ("policy", "app_id") if typed(ctx, name)}
        settings = settings_of(ctx, **given)
    raise typer.Exit(run.replay(inputs, outputs, settings, with_usage=not without_usage, strict=strict, quiet=quiet))


@app.command(
    rich_help_panel=FILES,
    epilog=_example(
        "arrears explain acct-0042 --bills bills.jsonl --payments payments.jsonl --controls controls.jsonl"
    ),
)
def explain(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="The id of the account.", show_default=False)],
    bills: Bills = None,
    payments: Payments = None,
    usage: Usage = None,
    packages: Packages = None,
    controls: Controls = None,
    policy: PolicyFile = None,
    until: Until = None,
    app_id: AppId = "arrears",
    as_json: Annotated[
        bool, typer.Option("--json", envvar="ARREARS_JSON", help="One JSON object instead of sentences.")
    ] = False,
) -> None:
    """Tell the story of one account: each record, what came of it and why, and what comes next.

    Give it the inputs of the replay. Every amount, instant and command is the one that the replay has.
    """
    from streams import commands as run

    inputs = run.Sources(bills, payments, usage, packages, controls, policy, until, app_id)
    run.explain(account, inputs, as_json=as_json)


@app.command(rich_help_panel=FILES, epilog=_example("arrears sample my-month --accounts 500 --days 31 --seed 7"))
def sample(
    directory: Annotated[
        str,
        typer.Argument(
            metavar="DIR", help="The folder: made if it is not there; its files are replaced.", show_default=False
        ),
    ],
    accounts: Annotated[
        int, typer.Option(metavar="N", envvar="ARREARS_SAMPLE_ACCOUNTS", help="How many accounts.")
    ] = 60,
    days: Annotated[int, typer.Option(metavar="N", envvar="ARREARS_SAMPLE_DAYS", help="How many days.")] = 31,
    seed: Annotated[
        int, typer.Option(metavar="N", envvar="ARREARS_SAMPLE_SEED", help="Another seed, another month.")
    ] = 7,
    start: Annotated[
        str, typer.Option(metavar="INSTANT", envvar="ARREARS_SAMPLE_START", help="The first midnight (UTC).")
    ] = "2026-01-01T00:00:00Z",
    currency: Annotated[
        str, typer.Option(metavar="CODE", envvar="ARREARS_SAMPLE_CURRENCY", help="What bills are in.")
    ] = "CNY",
    daily: Annotated[
        bool, typer.Option("--daily", envvar="ARREARS_SAMPLE_DAILY", help="Usage by the day instead of by the hour.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", envvar="ARREARS_QUIET", help="Say nothing.")] = False,
) -> None:
    """Write the records of a small cloud provider's month, to try things out with.

    Hourly usage, daily bills, top-ups, and what goes wrong: paid late, partly or never, charged back, disputed, put on
    hold. The same options give the same bytes.
    """
    from streams import commands as run

    run.sample(
        directory,
        accounts=accounts,
        days=days,
        seed=seed,
        start=start,
        currency=currency,
        hourly=not daily,
        quiet=quiet,
    )


def demo(
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            envvar="ARREARS_DEMO_DATA",
            help="Play the records of this folder (bills.jsonl, payments.jsonl …) instead of a sample month.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(metavar="N", min=10, max=3600, envvar="ARREARS_DEMO_SECONDS", help="How long it plays.")
    ] = 60,
    port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=1,
            max=65535,
            envvar="ARREARS_DEMO_PORT",
            help="The broker's port; without it 9092, or another if that is taken.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            envvar="ARREARS_DEMO_KEEP",
            help="Keep everything in this new folder: records, policy, the workers' logs, the broker's data.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show it, live: a broker, two workers, a month's records within a minute, one worker killed on the way.

    In the end the accounts are compared with a replay of the same topics; exit code 1 if they differ. Ctrl-C stops
    everything.
    """
    from streams.local_kafka.extra import needs_the_extra

    with needs_the_extra():
        from streams.demo import demo as run
    raise typer.Exit(run(data=data, seconds=seconds, port=port, keep=keep))


@policy_app.command(epilog=_example("arrears policy check policies.yaml"))
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The policy file (YAML).", show_default=False)],
) -> None:
    """Check a policy file, and tell in words what each policy does."""
    from streams import commands as run

    run.check_policies(file)


app.add_typer(policy_app, name="policy", rich_help_panel=FILES)
add_live_commands(app)
# After them: the help lists its groups in the order in which they come.
app.command(rich_help_panel=LOCAL_BROKER, epilog=_example("arrears demo --data my-records --seconds 120"))(demo)
add_tools(app, policy_app)


def run(arguments: list[str]) -> int:
    """Run a command; returns its exit code. Raises what typer raises when it cannot make sense of the arguments."""
    code = typer.main.get_command(app).main(arguments, prog_name="arrears", standalone_mode=False)
    return code if isinstance(code, int) else 0
