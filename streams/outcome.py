"""What a replay of a part of the accounts comes to: its outputs in the contract's order, and how many of each (§4).

Accounts are independent but for the controls for everybody, so a part that has those and all records of its accounts
says of them what a replay of everything would. Alone, it is that replay; several are put together by `parallel`.

Without `until` the clock ends with the last usable record, whichever part has it. Which one that is shows only once all
later ones have been refused: so what is published after a record is held back until another one has been accepted, or
until all parts have agreed on the end.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, cast

from models.contract import EVERYONE
from models.enforcement import Commanded
from models.instants import FIRST_INSTANT, parse_instant
from models.monitor import Published
from models.outputs import dead_letter
from models.records import Control
from models.refusal import Refusal, printable
from streams.admission import account_of_unusable
from streams.faults import NobodyReads, Unusable
from streams.replay import Replay, Step, entry, sort_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from models.account import Account
    from models.instants import Instant
    from models.outputs import AccountView, Command, DeadLetter, Notice, Source
    from models.policy import Policies
    from models.records import Record, Topic
    from models.refusal import ErrorCode
    from streams.fetched import Record as Fetched
    from streams.replay import Entry
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

    def add(self, other: Tally) -> None:
        """Count those of another part, too."""
        for counts in ("read", "left_out", "refused", "errors", "commands", "notices", "accounts"):
            getattr(self, counts).update(getattr(other, counts))


class Instantly(NamedTuple):
    """What one instant publishes, in the contract's order."""

    commands: list[Command]
    notices: list[Notice]


class Wanted(NamedTuple):
    """What a replay is asked for."""

    policies: Policies
    app_id: str
    #: Where the clock ends; None: with the last usable record.
    until: Instant | None = None
    #: What is earlier does not go out.
    since: Instant | None = None
    #: The one account that is asked about: of others only their last usable record counts, for the end of the clock.
    account_id: str | None = None


class Portion(Protocol):
    """Records of one topic: of a file, or of a partition."""

    topic: Topic
    #: Whether they are here for what they do to others: another part tells of them.
    is_guest: bool

    def records(
        self, refuse: Callable[[int, Refusal], None], progress: Callable[[int], None]
    ) -> Iterator[tuple[int, Record]]:
        """Each record with its number; the unusable ones are handed to `refuse`, how far it is to `progress`."""


class PartInputs(Protocol):
    """All that a part reads. A record has a number; in the order of the numbers dead letters are told."""

    @property
    def portions(self) -> Sequence[Portion]:
        """The records."""

    @property
    def size(self) -> int:
        """How much there is to read, in the unit in which portions tell their progress."""

    def topic(self, number: int) -> Topic:
        """The topic of a record."""

    def number_of(self, letter: DeadLetter) -> int:
        """The number of a record by its dead letter."""

    def source(self, number: int) -> Source:
        """Where a record came from."""

    def raw(self, number: int) -> bytes:
        """The bytes of a record."""


class Progress:
    """Is told how far a run has come. This one keeps it to itself."""

    def fetching(self, count: int) -> None:
        """Tell that so many records more are about to come from the brokers."""

    def fetched(self, count: int) -> None:
        """So many records more have come."""

    def reading(self, size: int) -> None:
        """Tell that so much more is about to be read."""

    def read(self, size: int) -> None:
        """So much more has been read."""

    def replaying(self, count: int) -> None:
        """Tell that so many records more are about to be replayed."""

    def replayed(self, count: int) -> None:
        """So many records more have been replayed."""


class PartReplay:
    """A replay of `inputs`: `instants`, then `views` and `letters`. Alone, `run` does it all."""

    def __init__(self, inputs: PartInputs, wanted: Wanted, progress: Progress) -> None:
        self._inputs = inputs
        self._wanted = wanted
        self._progress = progress
        self._refused: list[tuple[int, Refusal]] = []
        #: Records that another part tells of.
        self._guests: set[int] = set()
        self._replay = Replay(wanted.policies, wanted.app_id)
        self.tally = Tally()

    def run(self, outputs: Outputs, *, stop_unread: bool = True) -> Tally:
        """Replay, and write what is asked for. Raises `Unusable` if that cannot be, and `NobodyReads`.

        A replay of one account that the inputs do not name is `Unusable`.
        """
        for _, (commands, notices) in self.instants(lambda last_usable: last_usable):
            if outputs.commands is not None:
                outputs.commands.write_all(commands)
            if outputs.notices is not None:
                outputs.notices.write_all(notices)
            if stop_unread and outputs.unread:
                raise NobodyReads
        if outputs.accounts is not None:
            outputs.accounts.write_all(self.views())
        if outputs.dead_letters is not None:
            outputs.dead_letters.write_all(self.letters())
        outputs.finish()
        return self.tally

    # -- in ---------------------------------------------------------------------------------------------------------

    def _load(self) -> list[Entry]:
        inputs, until, only, tally = self._inputs, self._wanted.until, self._wanted.account_id, self.tally
        entries: list[Entry] = []
        self._progress.reading(inputs.size)
        for portion in inputs.portions:
            kept, refused, late = len(entries), len(self._refused), 0
            for number, record in portion.records(self._refuse, self._progress.read):
                if until is None or record.at <= until:
                    entries.append(entry(record, number))
                elif only in (None, record.account_id):
                    late += 1
            if portion.is_guest:
                self._guests.update(one.number for one in entries[kept:])
                continue
            tally.left_out[portion.topic] += late
            tally.read[portion.topic] += len(entries) - kept + len(self._refused) - refused + late
        sort_entries(entries, inputs.raw)
        return entries

    def _about(self, entries: list[Entry], account_id: str) -> list[Entry]:
        """What bears on an account: its own records, those for everybody, and all of accounts that set policies.

        Policies hold for everybody, and whether such a control is accepted hangs on its account.
        """
        found = {account_id, EVERYONE}
        found |= {
            one.record.account_id
            for one in entries
            if isinstance(one.record, Control) and one.record.kind == "policies"
        }
        return [one for one in entries if one.record.account_id in found]

    def _last_usable(self, entries: list[Entry]) -> Instant | None:
        """The instant of the last usable record of all accounts: from the latest back, few have to be replayed."""
        latest = {one.record.account_id: one.at for one in entries}  # they are in order
        last: Instant | None = None
        for account_id, at in sorted(latest.items(), key=itemgetter(1), reverse=True):
            if last is not None and at <= last:
                break
            replay = Replay(self._wanted.policies, self._wanted.app_id)
            for step in replay.run(self._about(entries, account_id), self._inputs.source, until=None):
                if len(step.published.dead_letters) < len(step.records):
                    last = step.at if last is None else max(last, step.at)
        return last

    def _refuse(self, number: int, refusal: Refusal) -> None:
        only = self._wanted.account_id
        # A source has a key and a value, which is all that is looked at.
        if only is not None and account_of_unusable(cast("Fetched", self._inputs.source(number))) != only:
            return
        self.tally.refused[self._inputs.topic(number)] += 1
        self.tally.errors[refusal.error] += 1
        self._refused.append((number, refusal))

    # -- out --------------------------------------------------------------------------------------------------------

    def instants(self, agree: Callable[[Instant | None], Instant | None]) -> Iterator[tuple[Instant, Instantly]]:
        """What each instant publishes.

        `agree` is told the instant of this part's last usable record, if there is one, and answers with that of all
        parts: it is asked once, when this part's records are through.
        """
        instant: Instant | None = None
        now = Instantly([], [])
        for at, _, published in self._confirmed(agree):
            if at != instant:
                if instant is not None:
                    yield instant, self._counted(in_order(now))
                instant, now = at, Instantly([], [])
            now.commands.extend(published.commands)
            now.notices.extend(published.notices)
        if instant is not None:
            yield instant, self._counted(in_order(now))

    def views(self) -> Iterator[AccountView]:
        """The accounts as they stand at the end, once all instants have been told."""
        ended_at, monitor, only = self.tally.ended_at, self._replay.monitor, self._wanted.account_id
        if ended_at is None:
            return iter(())
        return (view for view in monitor.views(ended_at) if only is None or view.account_id == only)

    def letters(self) -> Iterator[DeadLetter]:
        """The records that could not be used, once all instants have been told."""
        self._refused.sort(key=itemgetter(0))
        since, source = self._wanted.since, self._inputs.source
        letters = (dead_letter(source(number), refusal) for number, refusal in self._refused)
        if since is None:
            return letters
        return (one for one in letters if one.received_at is None or parse_instant(one.received_at) >= since)

    def _confirmed(self, agree: Callable[[Instant | None], Instant | None]) -> Iterator[Step]:
        """The steps that publish something, once it is certain that the clock comes so far."""
        entries, until, source = self._load(), self._wanted.until, self._inputs.source
        only = self._wanted.account_id
        if only is not None:
            if until is None:
                agree = partial(_whatever, self._last_usable(entries))
            entries = self._of_one_account(entries, only)
        self._progress.replaying(len(entries))
        last_usable: Instant | None = None
        held: list[Step] = []
        done = 0
        for step in self._replay.run(entries, source, until=until):
            records, (commands, notices, letters) = step.records, step.published
            for letter in letters:
                self._refuse_told(letter)
            done += len(records)
            if done >= _RECORDS_A_REPORT:
                self._progress.replayed(done)
                done = 0
            if commands or notices:
                held.append(step)
            if len(letters) < len(records):  # one of them was accepted
                last_usable = step.at
            elif until is None:
                continue
            if held:
                yield from self._asked_for(held)
                held.clear()
        ended_at = self.tally.ended_at = agree(last_usable if until is None else until)
        if until is None and ended_at is not None:
            # Those of another part's last records count, but not what falls due once the clock is past the end.
            yield from self._asked_for(one for one in held if one.at < ended_at or (one.at == ended_at and one.records))
            yield from self._asked_for(self._run_on(entries, ended_at))
        self._count_accounts()

    def _run_on(self, entries: list[Entry], ended_at: Instant) -> Iterator[Step]:
        """The clock goes on to the end of all parts; or back to it, if the last records here were all refused."""
        clock, source, wanted = self._replay.ended_at, self._inputs.source, self._wanted
        if clock is None or clock < ended_at:
            yield from self._replay.run((), source, until=ended_at)
        elif clock > ended_at:
            self._replay = Replay(wanted.policies, wanted.app_id)
            usable = [entry for entry in entries if entry.at <= ended_at]
            for _ in self._replay.run(usable, source, until=ended_at):
                pass

    def _of_one_account(self, entries: list[Entry], account_id: str) -> list[Entry]:
        """What bears on it. Raises `Unusable` if nothing names it."""
        own = self.tally.refused + self.tally.left_out
        own.update(self._inputs.topic(one.number) for one in entries if one.record.account_id == account_id)
        if not own:
            raise Unusable(f"there is no record of an account {printable(account_id)}: check its id")
        self.tally.read = own
        return self._about(entries, account_id)

    def _refuse_told(self, letter: DeadLetter) -> None:
        number = self._inputs.number_of(letter)
        if number not in self._guests:
            self._refuse(number, refusal_of(letter))

    def _asked_for(self, steps: Iterable[Step]) -> Iterator[Step]:
        """Without what is too early, and what is another account's."""
        since, only = self._wanted.since, self._wanted.account_id
        if since is None and only is None:
            yield from steps
            return
        earliest = FIRST_INSTANT if since is None else since
        for at, records, (commands, notices, letters) in steps:
            asked_for = Published(
                [
                    one
                    for one in commands
                    if only in (None, one.account_id) and parse_instant(one.effective_at) >= earliest
                ],
                [one for one in notices if only in (None, one.account_id) and parse_instant(one.at) >= earliest],
                letters,
            )
            yield Step(at, records, asked_for)

    def _counted(self, published: Instantly) -> Instantly:
        for command in published.commands:
            self.tally.commands[command.action] += 1
        for notice in published.notices:
            self.tally.notices[notice.kind] += 1
        return published

    def _count_accounts(self) -> None:
        if self.tally.ended_at is None:
            return
        accounts, only = self._replay.monitor.accounts, self._wanted.account_id
        for account_id in accounts:
            if (account := accounts[account_id]).usable and only in (None, account_id):
                self.tally.accounts[status_of(account)] += 1


def _whatever(ended_at: Instant | None, _: Instant | None) -> Instant | None:
    return ended_at


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
        commands.sort(key=place_of_command)
    if len(notices) > 1:
        notices.sort(key=place_of_notice)
    return Instantly(commands, notices)


def place_of_command(command: Command) -> tuple[str, int]:
    """Where it stands among those of its instant."""
    return command.account_id, command.sequence


def place_of_notice(notice: Notice) -> tuple[Instant, str, bool, str]:
    """Where it stands among those of its instant."""
    return parse_instant(notice.at), notice.account_id, notice.kind in _LAST_NOTICES, notice.notice_id
