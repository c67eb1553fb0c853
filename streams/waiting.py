"""What an account waits for now: its marks and notices, and whatever stops or holds up its commands (contract §3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from models.decision import Decision, Moment
from models.instants import LAST_INSTANT, SECOND
from streams import telling

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from models.account import Account
    from models.enforcement import Action, Episode, MarkSeen
    from models.everybody import Everybody
    from models.instants import Duration, Instant
    from models.monitor import Live

#: What to do about a stop of a partition; each goes on with a `resume`, or by itself.
_STOPS: Final = {
    "max_deletes": "too many deletes came within an hour",
    "max_suspends": "too many suspends came within an hour",
    "payments_silence": "bills come, but no payments",
    "unusable_payments": "payments came that cannot be used, and nobody can say whose they are",
    "clock_skew": "the worker's clock differs from the brokers'",
    "delete_contradicted": "a payment showed that an earlier delete should not have come",
}
#: These end when their cause does.
_BY_THEMSELVES: Final = ("payments_silence", "clock_skew")


class Wait(NamedTuple):
    """One thing that it waits for."""

    #: fence, hold, stop, mark, notice, ack, lateness, fee or confirmation.
    kind: str
    says: str


class Partition(NamedTuple):
    """How the account's partition stands."""

    number: int
    everybody: Everybody
    #: By input, how many records are not applied yet.
    unread: Mapping[str, int]
    #: Inputs in which a transaction is open.
    open_transactions: Sequence[str]


def waits(account: Account, partition: Partition, live: Live, now: Instant) -> list[Wait]:
    """What it waits for at `now`, what holds up everything first."""
    return list(_Waiting(account, partition, live, now).all())


class _Waiting:
    def __init__(self, account: Account, partition: Partition, live: Live, now: Instant) -> None:
        moment = Moment("", partition.everybody, live)
        moment.now = now
        self._account = account
        self._partition = partition
        self._live = live
        self._now = now
        self._decision = Decision(account, moment)

    def all(self) -> Iterator[Wait]:
        enforcement = self._decision.enforcement
        yield from self._fence()
        if enforcement.deletion is None:
            if enforcement.episode is not None:
                yield from self._hold()
                yield from self._marks(enforcement.episode)
            elif enforcement.fee_missing is not None:
                yield Wait("fee", "The bills are paid; it waits for the late fee that its policy asks for (3.4).")
        for command in enforcement.unconfirmed:
            if command.missing:
                whom, due = telling.listed(command.missing), telling.when(command.due)
                yield Wait("confirmation", f"Command {command.command_id} waits to be applied by {whom} (due {due}).")

    def _fence(self) -> Iterator[Wait]:
        unread = {topic: count for topic, count in self._partition.unread.items() if count}
        if unread:
            told = ", ".join(f"{topic} {count:,}" for topic, count in unread.items())
            number = self._partition.number
            yield Wait(
                "fence", f"Partition {number} has records that are not applied yet ({told}): nothing is sent before."
            )
        for topic in self._partition.open_transactions:
            yield Wait("fence", f"A transaction is open in {topic}: nothing is sent before it ends.")
        if self._account.touched and not unread:
            yield Wait("fence", "Records of it are applied that no decision has seen yet: one follows the next fence.")

    def _hold(self) -> Iterator[Wait]:
        if self._decision.held.covers(self._now):
            end = self._decision.held.free_from(self._now)
            until = "until it is released" if end > LAST_INSTANT else f"until {telling.when(end)}"
            yield Wait("hold", f"A hold is in force {until}: no suspend and no delete while it lasts.")

    def _marks(self, episode: Episode) -> Iterator[Wait]:
        policy = self._decision.policy
        if self._decision.enforcement.suspension is None:
            can = self._decision.can_suspend_at(episode)
            notice = "`arrears_started` or a `suspension_ahead`"
            yield from self._command("suspend", episode.suspend_mark, can, policy.lateness_suspend, notice)
        else:
            can = self._decision.can_delete_at(episode)
            yield from self._ack(episode)
            yield from self._command("delete", episode.delete_mark, can, policy.lateness_delete, "a `deletion_ahead`")

    def _ack(self, episode: Episode) -> Iterator[Wait]:
        """With `notice_acks` the wait of a delete runs from the ack of its notice."""
        mark = None if episode.delete_mark is None else episode.delete_mark.mark
        warned = [one for one in episode.warned if one.kind == "deletion_ahead" and one.mark == mark]
        if self._live.notice_acks and warned and all(one.acked_at is None for one in warned):
            first = warned[0]
            yield Wait(
                "ack",
                f"The delete waits for an ack of the notice {first.notice_id} of {telling.when(first.at)}.",
            )

    def _command(
        self, action: Action, seen: MarkSeen | None, can: Instant, lateness: Duration, notice: str
    ) -> Iterator[Wait]:
        if seen is None or seen.mark > LAST_INSTANT or can > LAST_INSTANT:
            return  # under an open hold it never comes
        if self._now <= seen.mark:
            more = "" if can == seen.mark else f"; it can come at {telling.when(can)}"
            yield Wait("mark", f"The {action} mark is at {telling.when(seen.mark)}{more}.")
        elif self._now <= can:
            yield Wait(
                "notice",
                f"The {action} mark has passed; {notice} has to be out for long enough: until {telling.when(can)}.",
            )
        elif self._now <= can + lateness:
            at = telling.when(can + lateness)
            yield Wait("lateness", f"The {action} is called for; it waits for records that are late until {at}.")
        else:
            yield from self._stopped(action)

    def _stopped(self, action: Action) -> Iterator[Wait]:
        """What stops a command that is called for."""
        found = False
        if self._account.stopped:
            found = True
            yield Wait(
                "stop",
                f"The {action} is called for, and stopped: a payment of this account came that cannot be used, or "
                "its state has grown too large. Mend it, then `arrears control resume` with its id.",
            )
        for stop in self._partition.everybody.stops.values():
            if action in stop.actions:
                found = True
                why = _STOPS.get(stop.reason, stop.reason)
                mend = (
                    "it goes on when that is over"
                    if stop.reason in _BY_THEMSELVES
                    else "`arrears control resume '*'` lets it go on"
                )
                since = telling.when(stop.since // SECOND * SECOND)
                yield Wait("stop", f"The {action} is called for, and stopped since {since}: {why}; {mend}.")
        if not found:
            yield Wait("fence", f"The {action} is called for: it goes out with the next decision.")
