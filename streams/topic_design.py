"""The topics, each designed once: what it is called, what its settings have to be, and what would go wrong otherwise.

Laws of this file:

- Whatever the brokers' own defaults are, nothing that the rule or a reader needs is thrown away: each setting that
  matters is set by name.
- All topics have one number of partitions: that of an account is the same in each (contract §2).
- A name of ours is `<app-id>.…`: two monitors on one cluster read the same inputs and write topics of their own.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, NamedTuple

from models.instants import DAY, HOUR, MINUTE, Duration
from models.records import TOPICS as INPUTS
from models.refusal import shown

KIB: Final = 1024
MIB: Final = 1024 * KIB

#: Kafka's own limit for a batch of records, which producers know: no input needs more.
INPUT_BYTES: Final = 1_048_588
#: What any record of ours fits in. The largest is the dead letter of a record of `INPUT_BYTES` that is all key: each
#: byte may take six in JSON (`\u0000`), and it stands there once more as the key; of the value at most 64 KiB are in
#: it. An account's state has at most 512 KiB (§3), its view not much more.
OUTPUT_BYTES: Final = 8 * MIB

_APP_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")

#: The ledger's own inputs are needed this long whatever happens: it is the default of `history`.
_LEAST_LEDGER: Final = 45 * DAY
#: Whoever reads may be away for so long, and find where he was.
_LEAST: Final = 7 * DAY


class Severity(Enum):
    """How bad it is if a topic is not as designed."""

    FATAL = "fatal"  # records or commands would be lost, or a part of the accounts served wrongly
    WARNING = "warning"  # it works, but slower, or less safely than it could


class Rule(Enum):
    """How a setting compares with what is wanted. -1 is no limit, thus more than any number."""

    EXACTLY = "must be"
    AT_LEAST = "must be at least"
    AT_MOST = "must be at most"


class Setting(NamedTuple):
    """One setting of a topic, as it is created and as it is checked."""

    name: str
    value: str
    rule: Rule
    severity: Severity
    #: What goes wrong otherwise; it follows "else".
    otherwise: str
    #: With AT_LEAST: below this it is fatal, whatever `severity` says.
    least: int | None = None


class Role(Enum):
    """Who writes a topic."""

    INPUT = "input"  # others
    OUTPUT = "output"  # the monitor, for others
    STATE = "state"  # the monitor, for itself


class TopicDesign(NamedTuple):
    """One topic. The name of an input stands as it is; the others are written after `<app-id>.`."""

    name: str
    role: Role
    settings: tuple[Setting, ...]

    def called(self, app_id: str) -> str:
        """Its name on the brokers."""
        return self.name if self.role is Role.INPUT else f"{app_id}.{self.name}"


class AppTopics(NamedTuple):
    """What one monitor writes, by name."""

    commands: str
    notices: str
    accounts: str
    dead_letters: str
    state: str

    @classmethod
    def of(cls, app_id: str) -> AppTopics:
        """The names for an app id: `arrears.commands` … for the default."""
        return cls(*(f"{app_id}.{name}" for name in ("commands", "notices", "accounts", "dead-letters", "state")))


# Settings that several topics have ----------------------------------------------------------------------------------


def _milliseconds(duration: Duration) -> int:
    return duration // 1000


def _exactly(name: str, value: object, severity: Severity, otherwise: str) -> Setting:
    return Setting(name, str(value), Rule.EXACTLY, severity, otherwise)


def _at_most(name: str, value: object, otherwise: str) -> Setting:
    return Setting(name, str(value), Rule.AT_MOST, Severity.WARNING, otherwise)


def _kept_for_ever(otherwise: str, least: Duration) -> tuple[Setting, ...]:
    time = Setting("retention.ms", "-1", Rule.AT_LEAST, Severity.WARNING, otherwise, _milliseconds(least))
    return (time, _whatever_its_size(otherwise))


def _kept(duration: Duration, otherwise: str) -> tuple[Setting, ...]:
    value = str(_milliseconds(duration))
    time = Setting("retention.ms", value, Rule.AT_LEAST, Severity.WARNING, otherwise, _milliseconds(_LEAST))
    return (time, _whatever_its_size(otherwise))


def _whatever_its_size(otherwise: str) -> Setting:
    return _exactly("retention.bytes", -1, Severity.FATAL, f"a busy day shortens what is kept: {otherwise}")


def _appended_at(severity: Severity, otherwise: str) -> Setting:
    return _exactly("message.timestamp.type", "LogAppendTime", severity, otherwise)


#: A key is an account: compaction would leave the last record of each.
_EVERY_RECORD: Final = _exactly(
    "cleanup.policy", "delete", Severity.FATAL, "of each account only the last record would be left"
)
_LAST_OF_EACH: Final = _exactly(
    "cleanup.policy", "compact", Severity.FATAL, "accounts that are quiet for long would be deleted from it"
)
#: An input's time is only told and kept by: the rule has its own (§2).
_RECORDED_AT: Final = _appended_at(
    Severity.WARNING, "a producer whose clock is wrong says when its records came, and when retention deletes them"
)
#: Offsets that were given once would be given again, to other records.
_NO_RECORD_LOST: Final = _exactly(
    "unclean.leader.election.enable", "false", Severity.FATAL, "a copy that lacks records may become the leader"
)
_INPUT_SIZE: Final = _at_most(
    "max.message.bytes",
    INPUT_BYTES,
    "the dead letter of a record with a huge key would not fit, and stop its partition",
)
_OUTPUT_SIZE: Final = Setting(
    "max.message.bytes",
    str(OUTPUT_BYTES),
    Rule.AT_LEAST,
    Severity.FATAL,
    "a large record would be refused, and its partition stop",
)

_INPUT: Final = (_EVERY_RECORD, _RECORDED_AT, _INPUT_SIZE, _NO_RECORD_LOST)
_OUTPUT: Final = (_RECORDED_AT, _OUTPUT_SIZE, _NO_RECORD_LOST)

_LEDGER: Final = (
    *_INPUT,
    *_kept_for_ever(
        "a worker that was away misses records, and `arrears replay --brokers` refuses the topic", _LEAST_LEDGER
    ),
)


# The cleaner never touches the segment that is written to: small ones let it work on all but the last minutes.
def _cleaned(segment: Duration, removed_after: Duration, otherwise: str) -> tuple[Setting, ...]:
    return (
        _at_most("segment.ms", _milliseconds(segment), otherwise),
        _at_most("segment.bytes", 64 * MIB, otherwise),
        _at_most("min.cleanable.dirty.ratio", "0.1", otherwise),
        _at_most("delete.retention.ms", _milliseconds(removed_after), otherwise),
    )


# The topics ---------------------------------------------------------------------------------------------------------

_INPUT_DESIGNS: Final = {
    "bills": _LEDGER,
    "payments": _LEDGER,
    "packages": _LEDGER,
    "controls": _LEDGER,
    # Much of it, and no balance hangs on it: a quarter, for whoever asks what an account was used for.
    "usage": (*_INPUT, *_kept(90 * DAY, "a worker that was away for longer stops, and usage is not there to be read")),
    # An ack is of use for the minutes after its command; a month is for looking back.
    "acks": (*_INPUT, *_kept(30 * DAY, "a worker that was away for longer stops")),
}

TOPICS: Final = (
    *(TopicDesign(name, Role.INPUT, _INPUT_DESIGNS[name]) for name in INPUTS),
    # A consumer that comes back reads on from where it was; and what was done to an account can be shown for ever.
    TopicDesign(
        "commands",
        Role.OUTPUT,
        (*_OUTPUT, _EVERY_RECORD, *_kept_for_ever("a consumer that was away for longer misses commands", _LEAST)),
    ),
    # A delete names the notice that announced it: the proof that the customer was told (clause 11) is kept as long.
    TopicDesign(
        "notices",
        Role.OUTPUT,
        (*_OUTPUT, _EVERY_RECORD, *_kept_for_ever("nobody can show any more that a customer was told", _LEAST)),
    ),
    # The last view of each account. A reader of the whole has a day before what was removed is removed from it too.
    TopicDesign(
        "accounts",
        Role.OUTPUT,
        (*_OUTPUT, _LAST_OF_EACH, *_cleaned(HOUR, DAY, "a reader of all accounts reads much that is old")),
    ),
    # Values that could not be used, for as long as somebody may still mend and send them again.
    TopicDesign(
        "dead-letters",
        Role.OUTPUT,
        (*_OUTPUT, _EVERY_RECORD, *_kept(90 * DAY, "what could not be used is gone before somebody looks at it")),
    ),
    # The journal. Its append times are the brokers' clock, by which a worker's own is judged (§3). What a recovery has
    # to step over are the ends of transactions: 1.7 million a day and partition with 20 commits a second, gone after
    # an hour; no recovery takes as long as that.
    TopicDesign(
        "state",
        Role.STATE,
        (
            _LAST_OF_EACH,
            _appended_at(Severity.FATAL, "a worker compares its clock with itself, and nothing stops a wrong one"),
            _OUTPUT_SIZE,
            _NO_RECORD_LOST,
            *_cleaned(10 * MINUTE, HOUR, "a recovery reads much that is old"),
        ),
    ),
)


def least_in_sync(replication: int) -> int:
    """How many copies have to have a record: one broker may be away, and a disk may be lost."""
    return max(1, replication - 1)


def settings_to_create(design: TopicDesign, replication: int) -> dict[str, str]:
    """The settings of a new topic."""
    return {setting.name: setting.value for setting in design.settings} | {
        "min.insync.replicas": str(least_in_sync(replication))
    }


def check_app_id(app_id: str) -> None:
    """Raises ValueError, with a message, if topics cannot be named by an app id."""
    if not _APP_ID.fullmatch(app_id):
        raise ValueError(
            f"must be at most 200 letters, digits, dots, dashes and underscores, for topics have it in their names; "
            f"got {shown(app_id)}"
        )
