"""The entry of the command line `arrears`: it runs a command, and tells what goes wrong (contract §4).

Whatever a user does, there is no traceback: what he has to mend is told in one line on standard error, with exit code
2. Nothing is loaded before signals are looked after; the commands stand in `streams.arguments`.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import NoReturn, Protocol, runtime_checkable

from streams.faults import Declined, NobodyReads, Unusable
from streams.signals import end_on_signals

OK, BUG, FAULT = 0, 1, 2
DECLINED = 1

#: The words that messages name a command by; what else was typed is data. A group's own words stand beside it.
_GROUPS = {"policy": ("check", "apply", "show"), "topics": ("create", "check"), "kafka": ("start", "stop", "status")}
_COMMANDS = (
    "replay",
    "explain",
    "sample",
    "demo",
    "worker",
    "settings",
    "load",
    "control",
    "commands",
    "notices",
    "dead-letters",
    "accounts",
    "status",
    "doctor",
)


@runtime_checkable
class _Misuse(Protocol):
    """What typer raises when it cannot make sense of the command line; its class depends on typer's version."""

    def format_message(self) -> str: ...


def main() -> NoReturn:
    """Run the command line and exit."""
    end_on_signals(lambda: _name(sys.argv[1:]))
    # The operating system takes the memory back at once; Python would free a million records one by one.
    os._exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code. What goes wrong is told in one line on standard error."""
    if arguments == [] or (len(arguments) == 1 and arguments[0] in _GROUPS):
        arguments = [*arguments, "--help"]
    try:
        _refuse_repeated(arguments)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show a name shows the rest
        from streams import arguments as typed

        code = typed.run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001  # nobody is shown a traceback
        return _failed(_name(arguments), error)
    return code


def _failed(name: str, error: BaseException) -> int:
    """Tell what went wrong, in one line; returns the exit code."""
    code = FAULT
    match error:
        case Unusable():
            told = str(error)
        case Declined():
            code = DECLINED
            told = "nothing was done"
        case NobodyReads() | BrokenPipeError():
            return OK  # who read has what he wanted
        case SystemExit(code=int(left)):
            return left
        case OSError():
            what = "standard output" if error.filename is None else error.filename
            told = f"{what} cannot be used ({error.strerror}): make room or set its permissions, or choose another"
        case MemoryError():
            told = "there is not enough memory: replay a part of the accounts at a time"
        case _Misuse():
            told = f"{' '.join(error.format_message().split()).rstrip('.')} ({name} --help lists what there is)"
        case _:
            if os.environ.get("ARREARS_TRACEBACK"):
                raise error
            code = BUG
            told = f"a fault in arrears itself, please report it: {error!r} (ARREARS_TRACEBACK=1 shows where)"
    _tell(f"{name}: {told}")
    return code


def _refuse_repeated(arguments: list[str]) -> None:
    """Of an option given twice typer takes the last: a file would be left out without a word."""
    options = [argument.partition("=")[0] for argument in arguments if argument.startswith("--") and argument != "--"]
    for option in options:
        if options.count(option) > 1:
            raise Unusable(f"{option} is given twice: give it once (files can be joined with cat)")


def _name(arguments: list[str]) -> str:
    """The command as its messages name it."""
    first, second, *_ = (*arguments, "", "")
    if first in _GROUPS:
        return " ".join(("arrears", first, *(word for word in _GROUPS[first] if word == second)))
    return f"arrears {first}" if first in _COMMANDS else "arrears"


def _tell(line: str) -> None:
    if sys.stderr is not None:
        with suppress(OSError):  # there is nobody to tell
            sys.stderr.write("".join(char if char.isprintable() else ascii(char)[1:-1] for char in line) + "\n")
            sys.stderr.flush()


if __name__ == "__main__":
    main()
