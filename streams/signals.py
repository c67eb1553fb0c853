"""Who is told of Ctrl-C and of SIGTERM: the process ends at once, unless a command looks after them itself."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_on_signals(name: Callable[[], str]) -> None:
    """End the process at once, with a line that begins with `name()`: no traceback and no half of a file."""

    def stop(number: int, _: object) -> NoReturn:
        unfinished = getattr(sys.modules.get("streams.writers"), "UNFINISHED", ())
        import shutil  # noqa: PLC0415  # nothing is loaded before signals are looked after

        for path in tuple(unfinished):
            with suppress(OSError):
                if Path(path).is_dir():
                    shutil.rmtree(path)
                else:
                    Path(path).unlink()
        cursor = b"\x1b[?25h\n" if os.isatty(2) else b""  # a progress bar hides it
        with suppress(OSError):
            os.write(2, cursor + f"{name()}: stopped before the end\n".encode())
        os._exit(128 + number)

    for number in _not_ignored():
        signal.signal(number, stop)


def leave_signals() -> None:
    """Give them back, as Python has them: for a worker, which stops in order when it is told to.

    Until it has set handlers of its own a SIGTERM ends the process at once, as a kill -9 would: nothing is lost by
    that. Ctrl-C is a KeyboardInterrupt till then. A closed terminal (SIGHUP) ends it at once if it sets no handler.
    """
    for number in _not_ignored():
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _not_ignored() -> list[signal.Signals]:
    """Those that whoever started us has not turned off: under nohup, or in the background of a script."""
    return [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
