"""Makes the pictures beside it again: `python -m deploy.pictures [NAME …]`.

That of the demo takes two minutes, on a machine that has nothing else to do.
Each program runs on a terminal of its own; what it wrote there is drawn as it stood.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER: Final = Path(__file__).parent
_ARREARS: Final = (sys.executable, "-m", "streams.cli")
_WIDTH: Final = 104
_HEIGHT: Final = 50

#: What rich's Live writes before it draws again: up over the lines of the last time, each wiped.
_AGAIN: Final = re.compile(r"\r?\x1b\[2K(?:\x1b\[1A\x1b\[2K)+")
#: Other signs that move or hide something; what is left are colours.
_NO_COLOUR: Final = re.compile(r"\x1b\[\??[0-9;]*[A-Zhl]|\x1b\][^\x07]*\x07")

_THEME: Final = TerminalTheme(
    (24, 26, 31),
    (214, 219, 226),
    [(60, 64, 72), (232, 104, 104), (122, 199, 132), (229, 192, 107), (97, 160, 233), (198, 140, 219), (92, 190, 200),
     (214, 219, 226)],
)  # fmt: skip

#: Rich's own names a font on a server: a picture asks nobody for anything.
_SVG: Final = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def printed_by(*command: str, folder: Path) -> str:
    """What a program writes to a terminal. It has to end well."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", _HEIGHT, _WIDTH, 0, 0))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ARREARS_")}
    environment |= {"TERM": "xterm-256color", "COLUMNS": str(_WIDTH), "LINES": str(_HEIGHT)}
    environment["PYTHONPATH"] = str(FOLDER.parents[1])
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, cwd=folder, env=environment) as program:
        os.close(its)
        written = bytearray()
        try:
            while part := os.read(ours, 1 << 16):
                written += part
        except OSError:  # how Linux says that nobody has it open any more
            pass
        finally:
            os.close(ours)
    assert program.returncode == 0, written.decode(errors="replace")
    return written.decode().replace("\r\n", "\n")


def drawn(title: str, name: str, shown: str) -> str:
    """A picture of a terminal with this on it."""
    text = Text.from_ansi(_NO_COLOUR.sub("", shown).rstrip())
    console = Console(record=True, file=StringIO(), width=_WIDTH, highlight=False)
    console.print(text)
    return console.export_svg(title=title, theme=_THEME, code_format=_SVG, unique_id=name)


def demo(*options: str) -> dict[str, str]:
    """The live view in its last third, with a worker killed and back; and how it ends."""
    with tempfile.TemporaryDirectory() as folder:
        frames = _AGAIN.split(printed_by(*_ARREARS, "demo", *options, folder=Path(folder)))
    # The last frame is what stays on the terminal, then comes the summary.
    *views, end = frames
    playing = views[len(views) * 4 // 5]
    summary = end[end.rindex("┏") :]
    return {
        "demo.svg": drawn("make demo", "demo", playing),
        "demo-end.svg": drawn("make demo: how it ends", "demo-end", summary),
    }


def explain() -> dict[str, str]:
    """The story of one account."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        printed_by(*_ARREARS, "sample", "month", folder=folder)
        inputs = [f"--{topic}=month/{topic}.jsonl" for topic in ("bills", "payments", "usage", "packages", "controls")]
        printed = printed_by(*_ARREARS, "explain", *_EXPLAINED, *inputs, folder=folder)
    return {"explain.svg": drawn(f"arrears explain {' '.join(_EXPLAINED)}", "explain", printed)}


_EXPLAINED: Final = ("acct-0027", "--until=2026-01-06T00:00:00Z")
PICTURES: Final[dict[str, Callable[[], dict[str, str]]]] = {"explain": explain, "demo": demo}

if __name__ == "__main__":
    for wanted in sys.argv[1:] or PICTURES:
        for file, picture in PICTURES[wanted]().items():
            (FOLDER / file).write_text(picture, encoding="utf-8")
