"""What a replay of files comes to: its outputs in the contract's order, and how many there were of each (§4).

Without `until` the clock ends with the last usable record. Which one that is shows only once all later ones have been
refused: so what is published after a record is held back until another one has been accepted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from models.enforcement import Commanded
from models.instants import parse_instant
from models.outputs import dead_letter
from models.refusal import Refusal
from streams.faults import NobodyReads
from streams.replay import Replay, entry, sort_entries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from models.account import Account
    from models.instants import Instant
    from models.monitor import Published
    from models.outputs import Command, DeadLetter, Notice
    from models.policy import Policies
    from models.refusal import ErrorCode
    from streams.files import Inputs
    from streams.replay import Entry, Step
    from streams.writers import Outputs

#: Of the notices of one account and instant these come last.
_LAST_NOTICES: Final = frozenset(("usage_while_suspended", "package_exhausted"))

#: How many records are replayed until progress is told.
_RECORDS_A_REPORT: Final = 10_000


@dataclass
class Tally:
    """How many there were of each."""

    #: Lines that are not blank, by topic.
    read: Counter[str] = field(default_factory=Counter)
    #: Records after `until`.
    left_out: Counter[str] = field(default_factory=Counter)
    #: Bad lines, by topic and by error.
    refused: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    commands: Counter[str] = field(default_factory=Counter)
    notices: Counter[str] = field(default_factory=Counter)
    #: By status.
    accounts: Counter[str] = field(default_factory=Counter)
    #: Where the clock ended; None if there was no usable record and no `until`.
    ended_at: Instant | None = None

    @property
    def bad_lines(self) -> int:
        """How many lines could not be used."""
        return self.refused.total()


class Instantly(NamedTuple):
    """What one instant publishes, in the contract's order."""

    commands: list[Command]
    notices: list[Notice]


class Progress:
    """Is told how far a run has come. This one keeps it to itself."""

    def reading(self, size: int) -> None:
        """Tell that so many bytes are about to be read."""

    def read(self, size: int) -> None:
        """So many bytes more have been read."""

    def replaying(self, count: int) -> None:
        """Tell that so many records are about to be replayed."""

    def replayed(self, count: int) -> None:
        """So many records more have been replayed."""


class FileReplay:
    """A replay of `inputs`. `run` writes the outputs and returns the tally; `monitor` has the accounts afterwards."""

    def __init__(
        self, inputs: Inputs, policies: Policies, app_id: str, until: Instant | None, progress: Progress
    ) -> None:
        self._inputs = inputs
        self._policies = policies
        self._app_id = app_id
        self._until = until
        self._progress = progress
        self._refused: list[tuple[int, Refusal]] = []
        self._last_usable: Instant | None = None
        self.tally = Tally()

    def run(self, outputs: Outputs, *, stop_unread: bool = True) -> Tally:
        """Replay, and write what is asked for. Raises `Unusable` if that cannot be, and `NobodyReads`."""
        tally = self.tally
        entries = self._load()
        self._progress.replaying(len(entries))
        replay = Replay(self._policies, self._app_id)
        for commands, notices in self._confirmed(replay.run(entries, self._inputs.source, until=self._until)):
            for command in commands:
                tally.commands[command.action] += 1
            for notice in notices:
                tally.notices[notice.kind] += 1
            if outputs.commands is not None:
                outputs.commands.write_all(commands)
            if outputs.notices is not None:
                outputs.notices.write_all(notices)
            if stop_unread and outputs.unread:
                raise NobodyReads
        self._write_accounts(self._final(replay, entries), outputs)
        self._refused.sort(key=lambda refused: refused[0])
        if outputs.dead_letters is not None:
            source = self._inputs.source
            outputs.dead_letters.write_all(dead_letter(source(number), refusal) for number, refusal in self._refused)
        for output in outputs:  # first all to the disk: if one fails, none takes its place
            output.flush()
        for output in outputs:
            output.finish()
        return tally

    # -- in ---------------------------------------------------------------------------------------------------------

    def _load(self) -> list[Entry]:
        inputs, until, left_out = self._inputs, self._until, self.tally.left_out
        entries: list[Entry] = []
        self._progress.reading(inputs.size)
        for file in inputs.files:
            before = len(entries) + len(self._refused)
            late = 0
            for number, record in file.records(self._refuse, self._progress.read):
                if until is None or record.at <= until:
                    entries.append(entry(record, number))
                else:
                    late += 1
            left_out[file.topic] += late
            self.tally.read[file.topic] += len(entries) + len(self._refused) - before + late
        sort_entries(entries, inputs.raw)
        return entries

    def _refuse(self, number: int, refusal: Refusal) -> None:
        self.tally.refused[self._inputs.topic(number)] += 1
        self.tally.errors[refusal.error] += 1
        self._refused.append((number, refusal))

    # -- out --------------------------------------------------------------------------------------------------------

    def _confirmed(self, steps: Iterable[Step]) -> Iterator[Instantly]:
        instant: Instant | None = None
        now = Instantly([], [])
        held: list[tuple[Instant, Published]] = []
        done = 0
        for at, records, published in steps:
            commands, notices, letters = published
            for letter in letters:
                self._refuse(self._inputs.number(letter.topic, letter.offset), refusal_of(letter))
            done += len(records)
            if done >= _RECORDS_A_REPORT:
                self._progress.replayed(done)
                done = 0
            if commands or notices:
                held.append((at, published))
            if len(letters) < len(records):  # one of them was accepted
                self._last_usable = at
            elif self._until is None:
                continue
            if held:
                for proven_at, proven in held:
                    if proven_at != instant:
                        yield in_order(now)
                        instant, now = proven_at, Instantly([], [])
                    now.commands.extend(proven.commands)
                    now.notices.extend(proven.notices)
                held.clear()
        yield in_order(now)

    def _final(self, replay: Replay, entries: list[Entry]) -> Replay:
        """The replay that ends where the clock ends."""
        ended_at = self._last_usable if self._until is None else self._until
        self.tally.ended_at = ended_at
        if ended_at is None or replay.ended_at == ended_at:
            return replay
        # The last records were all refused, and the clock has gone too far with them.
        usable = [entry for entry in entries if entry.at <= ended_at]
        replay = Replay(self._policies, self._app_id)
        for _ in replay.run(usable, self._inputs.source, until=ended_at):
            pass
        return replay

    def _write_accounts(self, replay: Replay, outputs: Outputs) -> None:
        ended_at = self.tally.ended_at
        if ended_at is None:
            return
        accounts = replay.monitor.accounts
        for account_id in accounts:
            if (account := accounts[account_id]).usable:
                self.tally.accounts[status_of(account)] += 1
        if outputs.accounts is not None:
            outputs.accounts.write_all(replay.monitor.views(ended_at))


def status_of(account: Account) -> str:
    """The status that the account's view has (§2)."""
    enforcement = account.enforcement
    if enforcement is None:
        return "current"
    match enforcement.commanded:
        case Commanded.DELETED:
            return "deleted"
        case Commanded.SUSPENDED:
            return "suspended"
        case Commanded.RUN:
            return "current" if enforcement.episode is None else "in_arrears"


def refusal_of(letter: DeadLetter) -> Refusal:
    """Why it is one."""
    return Refusal(cast("ErrorCode", letter.error), letter.field, letter.message)


def in_order(published: Instantly | Published) -> Instantly:
    """One instant's commands and notices (§4)."""
    commands, notices = published[0], published[1]
    if len(commands) > 1:
        commands.sort(key=lambda command: (command.account_id, command.sequence))
    if len(notices) > 1:
        notices.sort(
            key=lambda notice: (
                parse_instant(notice.at),
                notice.account_id,
                notice.kind in _LAST_NOTICES,
                notice.notice_id,
            )
        )
    return Instantly(commands, notices)
