"""The story of a demo: records of weeks or years, told within a minute or so, and a policy to match."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from models.instants import (
    DAY,
    HOUR,
    SECOND,
    Duration,
    Instant,
    format_duration,
    format_instant,
    parse_duration,
    parse_instant,
)
from models.policy import BUILT_IN
from models.records import decode
from models.refusal import Refusal
from streams.faults import Unusable
from streams.files import FILE_TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from models.records import Topic

#: Fields that are instants, whatever the topic.
_INSTANTS: Final = (
    "issued_at",
    "period_start",
    "period_end",
    "paid_at",
    "started_at",
    "ended_at",
    "at",
    "starts_at",
    "ends_at",
    "until",
    "arrears_since",
)
#: However short the story: marks stay so far apart that a person sees one after the other.
_LEAST_SUSPEND: Final = 3 * SECOND // 2
_LEAST_BETWEEN: Final = 6 * SECOND


class Cue(NamedTuple):
    """A record and when it comes, in the story's own time; `fields` are those of the file."""

    at: Instant
    topic: Topic
    account_id: str
    fields: dict[str, Any]


class Script:
    """The records of a folder in the order of their instants, `times` as fast as they were."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.cues = sorted(_cues(folder), key=lambda cue: cue.at)
        if not self.cues:
            names = ", ".join(f"{topic}.jsonl" for topic in FILE_TOPICS)
            raise Unusable(f"--data {folder}: there is no record in it that can be used: it should have {names}")
        self.begins = self.cues[0].at
        self.lasts = max(self.cues[-1].at - self.begins, DAY)
        self.seconds = seconds
        self.times = max(1.0, self.lasts / (seconds * SECOND))
        #: When the story begins on the clock of this machine.
        self.started: Instant = 0

    def played(self, at: Instant) -> Instant:
        """An instant of the story on the clock of this machine."""
        return self.started + int((at - self.begins) / self.times)

    def told(self, now: Instant) -> Instant:
        """The instant of the story that is played at `now`."""
        return self.begins + int((now - self.started) * self.times)

    def value(self, cue: Cue) -> bytes:
        """The record as it is sent."""
        fields = dict(cue.fields)
        for name in _INSTANTS:
            if isinstance(fields.get(name), str):
                fields[name] = format_instant(self.played(parse_instant(fields[name])))
        if isinstance(fields.get("duration"), str):
            fields["duration"] = format_duration(self._short(parse_duration(fields["duration"])))
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()

    def _short(self, duration: Duration) -> Duration:
        return int(duration / self.times)

    def policy(self) -> str:
        """The built-in policy as fast as the story, as a policy file."""
        policy = BUILT_IN.versions[0]
        suspend = max(self._short(policy.suspend_after), _LEAST_SUSPEND)
        delete = max(self._short(policy.delete_after), suspend + _LEAST_BETWEEN)
        between = delete - suspend
        ahead = [max(self._short(duration), SECOND // 10) for duration in policy.deletion_ahead]
        ahead = sorted({min(duration, between // (2 + place)) for place, duration in enumerate(ahead)}, reverse=True)
        first = min(self._short(policy.suspension_ahead[-1]), suspend // 2)
        durations = ", ".join(format_duration(duration) for duration in ahead)
        return f"""policies:
  - name: {policy.name}
    version: "demo"
    effective_from: {format_instant(policy.effective_from)}
    suspend_after: {format_duration(suspend)}   # {format_duration(policy.suspend_after)} in the story
    delete_after: {format_duration(delete)}   # {format_duration(policy.delete_after)} in the story
    min_suspended: {format_duration(max(self._short(policy.min_suspended), ahead[-1]))}
    lateness: {{suspend: PT0S, delete: {format_duration(self._short(HOUR))}}}
    notices: {{suspension_ahead: [{format_duration(first)}], deletion_ahead: [{durations}]}}
"""


def _cues(folder: Path) -> Iterator[Cue]:
    for topic in FILE_TOPICS:
        path = folder / f"{topic}.jsonl"
        if not path.exists():
            continue
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if not line.strip():
                continue
            try:
                record = decode(topic, line)
            except Refusal as refusal:
                raise Unusable(f"{path} line {number}: {refusal.message}: mend it, or leave it out") from None
            yield Cue(record.at, topic, record.account_id, json.loads(line))
