"""Writes the tables of deploy/OPERATIONS.md that are known to the code: `python -m deploy.operations`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from models.instants import DAY
from streams.settings import Settings, default_of, form_of, group_of, is_secret, option_of, variable_of
from streams.topic_design import MIB, TOPICS, TopicDesign

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FILE: Final = Path(__file__).parent / "OPERATIONS.md"
_PART: Final = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def filled(text: str) -> str:
    """The page with its tables as the code has them."""
    makers = {"settings": settings_table, "topics": topics_table}
    return _PART.sub(lambda part: f"{part[1]}{makers[part[2]]()}{part[3]}", text)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *(list(row) for row in rows)]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def settings_table() -> str:
    """All settings, in their groups."""
    return _table(("setting", "written", "default", "what it is"), _settings())


def _settings() -> Iterator[tuple[str, str, str, str]]:
    group = None
    for name, field in Settings.model_fields.items():
        if group_of(name) != group:
            group = group_of(name)
            yield f"**{group}**", "", "", ""
        option = "" if is_secret(name) else f"<br>`{option_of(name)}`"
        default = default_of(name)
        told = f"{field.description}{' Never an option: a command line can be read by all.' if is_secret(name) else ''}"
        yield f"`{variable_of(name)}`{option}", form_of(name), f"`{default}`" if default else "", told


def topics_table() -> str:
    """All topics, with what of their settings matters most."""
    rows = ((f"`{_name(topic)}`", topic.role.value, *_kept(topic)) for topic in TOPICS)
    return _table(("topic", "role", "cleanup", "kept for", "largest record"), rows)


def _name(topic: TopicDesign) -> str:
    return topic.called("<app-id>")


def _kept(topic: TopicDesign) -> tuple[str, str, str]:
    settings = {setting.name: setting.value for setting in topic.settings}
    milliseconds = settings.get("retention.ms")
    if milliseconds is None:
        kept = "the latest of each key"
    else:
        kept = "ever" if milliseconds == "-1" else f"{int(milliseconds) * 1000 // DAY} days"
    return settings["cleanup.policy"], kept, f"{int(settings['max.message.bytes']) / MIB:.0f} MiB"


if __name__ == "__main__":
    FILE.write_text(filled(FILE.read_text(encoding="utf-8")), encoding="utf-8")
