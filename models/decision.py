"""The decision on one account: what the ledger and the policy require now, against what has been commanded.

One direction: the ledger's episode is followed, the marks are worked out, the command that `TRANSITIONS` names is sent,
and what has to be told is told. Order within a decision (contract §1): `arrears_started`, suspend, `suspended`,
`deletion_ahead`, delete.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from models import fees
from models.enforcement import (
    CLAUSES,
    TRANSITIONS,
    Deletion,
    Enforcement,
    Episode,
    FeeMissing,
    MarkSeen,
    Required,
    Suspension,
    Unconfirmed,
    Warned,
)
from models.instants import LAST_INSTANT, MINUTE, Instant, format_instant
from models.marks import NO_HOLDS, HeldTime, held_time, later_mark, marks
from models.money import format_fine, format_money
from models.outputs import MAX_UNPAID_BILLS, Command, Notice, UnpaidBill, stable_id
from models.standing import NEVER, allowances_in_force

if TYPE_CHECKING:
    from models.account import Account, Fact
    from models.enforcement import Action, Reason
    from models.everybody import Everybody
    from models.instants import Duration
    from models.money import Money
    from models.monitor import Live
    from models.policy import Policy
    from models.records import Payment, Usage

_DELETION_AHEAD: Final = "deletion_ahead"
_SUSPENSION_AHEAD: Final = "suspension_ahead"


class Moment:
    """The instant that decisions are made for, and what holds for all accounts at it.

    The clock stands at `now`, or with `past` just behind it: no record of a later instant has been seen yet, and a mark
    that falls at `now` has passed.
    """

    __slots__ = ("app_id", "commands", "everybody", "evidence", "history", "live", "notices", "now", "past")

    def __init__(self, app_id: str, everybody: Everybody, live: Live | None) -> None:
        self.app_id = app_id
        self.everybody = everybody
        #: §3, or None in a replay.
        self.live = live
        #: What has been applied, by topic: commands carry it.
        self.evidence: dict[str, int] | None = None
        self.now: Instant = 0
        self.past = False
        #: Movements and ids before this are forgotten.
        self.history: Instant = 0
        self.commands: list[Command] = []
        self.notices: list[Notice] = []

    def passed(self, at: Instant) -> bool:
        """Whether the clock is past `at`: later than, not at."""
        return at < self.now or (self.past and at == self.now)

    def told_at(self, due: Instant) -> Instant:
        """A notice's `at`: its due instant if it goes out within a minute of that, else the decision's clock."""
        return due if self.now - due <= MINUTE else self.now


class Decision:
    """The decision on `account` at `moment`. `due` says afterwards when it has to be decided on again."""

    __slots__ = (
        "account",
        "contradicts",
        "due",
        "enforcement",
        "everybody",
        "held",
        "ledger",
        "marks_may_move",
        "moment",
        "now",
        "policy",
    )

    def __init__(self, account: Account, moment: Moment) -> None:
        self.account = account
        self.moment = moment
        self.now = moment.now
        self.ledger = account.ledger
        self.enforcement = account.enforcement or Enforcement()
        self.everybody = moment.everybody
        own, everybody = account.own, self.everybody.standing
        episode = self.enforcement.episode
        #: That of the episode; between episodes whichever.
        self.policy: Policy = self.everybody.versions[0 if episode is None else episode.policy]
        self.marks_may_move = everybody.moves_marks or (own is not None and own.moves_marks)
        self.held: HeldTime = held_time(self.now, own, everybody) if self.marks_may_move else NO_HOLDS
        self.due: Instant = NEVER
        #: Whether it tells that the account's delete is contradicted.
        self.contradicts = False

    def decide(self) -> Instant:
        """Publish what is due to `moment`; returns when to decide again (NEVER: not before a record comes)."""
        enforcement = self.enforcement
        counts_from = max(self.ledger.opened_at or self.now, enforcement.reopened_at or self.now)
        if counts_from > self.now:  # an opening or a reopen that is ahead of the clock: until then nothing of it holds
            self._wake(counts_from)
            return self.due
        if enforcement.deletion is None:
            self._follow_ledger()
            if enforcement.suspension is not None:
                self._restore_exempt()
            if enforcement.episode is not None:
                self._tell_arrears_started(enforcement.episode)
                self._follow_marks(enforcement.episode)
        elif self.account.recheck:
            self._recheck_delete(enforcement.deletion)
        self.account.recheck = False
        if enforcement.unconfirmed:
            self._tell_unconfirmed()
        for fact in self.account.facts:
            self._tell_fact(fact)
        self.account.facts.clear()
        if self.account.enforcement is None and enforcement != _NOTHING:
            self.account.enforcement = enforcement
        return self.due

    # -- the ledger's episode ---------------------------------------------------------------------------------------

    def _follow_ledger(self) -> None:
        ledger, enforcement = self.ledger, self.enforcement
        episode = enforcement.episode
        since = ledger.since if ledger.in_arrears else None
        if episode is not None and (since is None or since > episode.since):
            self._end_episode(episode)
        if enforcement.fee_missing is not None and since is None:
            self._restore_once_fee_paid(enforcement.fee_missing)
        if since is None:
            return
        if enforcement.episode is None:
            enforcement.episode = self._begin_episode(since)
        elif since != enforcement.episode.since:  # late evidence has moved its start
            enforcement.episode.since = since
            enforcement.episode.suspend_mark = enforcement.episode.delete_mark = None
            enforcement.episode.policy = self._policy_for(since)

    def _begin_episode(self, since: Instant) -> Episode:
        # R10: an episode keeps the policy that held when it began.
        number = self._policy_for(since)
        missing, self.enforcement.fee_missing = self.enforcement.fee_missing, None
        opening = self.ledger.opened_at
        floor = opening if opening is not None and since <= opening else since
        return Episode(since, number, floor, carried=missing.fee if missing else 0)

    def _policy_for(self, since: Instant) -> int:
        number = self.everybody.policy_for(self.account.own, since)
        self.policy = self.everybody.versions[number]
        return number

    def _end_episode(self, episode: Episode) -> None:
        enforcement = self.enforcement
        since, ended_at, integral = self.ledger.ended()
        if since is None or ended_at < episode.since:  # as known now there never was such an episode
            ended_at, integral = episode.since, 0
        policy = self.everybody.versions[episode.policy]
        fee = episode.carried + fees.accrued(integral, policy)
        suspension = enforcement.suspension
        if suspension is not None:
            in_time = suspension.effective_at is not None and ended_at <= suspension.effective_at
            if self.ledger.in_arrears and self._calls_for_suspend(self.ledger.since):
                pass  # a later episode calls for the same: nothing to undo
            elif policy.late_fee_required and not in_time and not self._fee_paid(fee):
                enforcement.fee_missing = FeeMissing(episode.since, episode.policy, fee)
            else:
                reason: Reason = "late_evidence" if in_time else "paid_in_full"
                self._restore(reason, ended_at, episode.since, policy, fee)
        elif (episode.told_at is not None or episode.taken_over) and not self.ledger.in_arrears:
            self._tell(
                "arrears_cleared",
                self.moment.told_at(ended_at),
                since=episode.since,
                late_fee=fees.reported(fee),
                policy=policy,
            )
        enforcement.episode = None

    def _calls_for_suspend(self, since: Instant) -> bool:
        """Whether an episode of which nothing was told yet is to be suspended at once."""
        policy = self.everybody.versions[self.everybody.policy_for(self.account.own, since)]
        if policy.suspension_ahead:  # its `arrears_started` has to be out first
            return False
        allowances = allowances_in_force(self.now, self.account.own, self.everybody.standing)
        found = marks(since, policy, allowances, self.held, floor=since, suspended_at=None)
        return self.moment.passed(found.suspend)

    def _fee_paid(self, fee: int) -> bool:
        return self.ledger.tip.balance + self.ledger.tip.limit >= fees.reported(fee)

    def _restore_once_fee_paid(self, missing: FeeMissing) -> None:
        if self._fee_paid(missing.fee):
            paid_at = self.ledger.enough_since(fees.reported(missing.fee))
            policy = self.everybody.versions[missing.policy]
            self._restore("paid_in_full", paid_at, missing.since, policy, missing.fee)

    def _restore_exempt(self) -> None:
        suspension = self.enforcement.suspension
        exempt_since = None if self.held is NO_HOLDS else self.held.exempt_since(self.now)
        if suspension is None or exempt_since is None:
            return
        at = max(exempt_since, suspension.decided_at)
        episode, missing = self.enforcement.episode, self.enforcement.fee_missing
        if episode is not None:
            self._restore("operator", at, episode.since, self.policy, self._fee(episode))
            episode.exempted_at = at
            episode.delete_mark = None
        elif missing is not None:
            self._restore("operator", at, missing.since, self.everybody.versions[missing.policy], missing.fee)

    # -- marks, warnings, commands ----------------------------------------------------------------------------------

    def _follow_marks(self, episode: Episode) -> None:
        blocked = self.held is not NO_HOLDS and self.held.covers(self.now)
        if blocked:
            self._wake(self.held.free_from(self.now))
        if self.marks_may_move or episode.delete_mark is None:
            self._look_at_marks(episode)
        if self.enforcement.suspension is None:
            if not blocked:
                self._warn_of_suspend(episode)
            if self._required(episode, blocked) is Required.STOP and self._may("suspend"):
                self._suspend(episode)
        if not blocked:
            self._warn_of_delete(episode)
        suspended = self.enforcement.suspension is not None
        if suspended and self._required(episode, blocked) is Required.END and self._may("delete"):
            self._delete(episode)

    def _may(self, action: Action) -> bool:
        """Whether nothing stops this command (§3); what is stopped goes on with a `resume`."""
        live, everybody = self.moment.live, self.everybody
        if live is not None:
            everybody.guard("suspend", live.max_suspends, self.now)
            everybody.guard("delete", live.max_deletes, self.now)
        if self.account.stopped or not everybody.may(action):
            everybody.stopped.add(self.account.account_id)
            self.account.held_back = True
            return False
        if live is not None:
            everybody.sent(action, self.now)
        return True

    def _required(self, episode: Episode, blocked: bool) -> Required:  # noqa: FBT001
        """What an account in arrears is to be; asks to be decided on again when that may change."""
        policy = self.policy
        if self.enforcement.suspension is None:
            at = self._suspend_effective_at(episode)
            if policy.suspension_ahead:
                at = max(at, episode.told_decided_at + policy.suspension_ahead[-1])
            return Required.STOP if self._has_come(at, policy.lateness_suspend, blocked) else Required.STAY
        at = self._delete_mark(episode)
        if policy.deletion_ahead and self.moment.passed(at):
            counting = self._counting_notice(episode)
            if counting is None:
                return Required.STAY
            at = max(at, (self._out_since(counting) or 0) + policy.deletion_ahead[-1])
        return Required.END if self._has_come(at, policy.lateness_delete, blocked) else Required.STAY

    def _has_come(self, at: Instant, lateness: Duration, blocked: bool) -> bool:  # noqa: FBT001
        if self.moment.live is not None:
            at += lateness
        if self.moment.passed(at) and not blocked:
            return True
        self._wake(at)
        return False

    def _wake(self, at: Instant) -> None:
        if self.now <= at < self.due:
            self.due = at

    def _look_at_marks(self, episode: Episode) -> None:
        """Work out both marks, and since when they have had their value."""
        account, suspension = self.account, self.enforcement.suspension
        found = marks(
            episode.since,
            self.policy,
            allowances_in_force(self.now, account.own, self.everybody.standing) if self.marks_may_move else (),
            self.held,
            floor=episode.floor,
            suspended_at=None if suspension is None else suspension.decided_at,
        )
        if episode.suspend_mark is None or episode.suspend_mark.mark != found.suspend:
            given = _given(episode, _SUSPENSION_AHEAD, found.suspend, self.policy.suspension_ahead)
            episode.suspend_mark = MarkSeen(found.suspend, self.now, given)
        # The delete mark's `min_suspended` part runs from the suspend, or as things stand from when it can come.
        start = self._suspend_effective_at(episode) if suspension is None else suspension.decided_at
        least = start + self.policy.min_suspended
        delete = NEVER if start >= NEVER else later_mark(found.delete, least, self.held)
        if episode.delete_mark is None or episode.delete_mark.mark != delete:
            given = _given(episode, _DELETION_AHEAD, delete, self.policy.deletion_ahead)
            episode.delete_mark = MarkSeen(delete, self.now, given)

    def _suspend_mark(self, episode: Episode) -> Instant:
        return NEVER if episode.suspend_mark is None else episode.suspend_mark.mark

    def _delete_mark(self, episode: Episode) -> Instant:
        return NEVER if episode.delete_mark is None else episode.delete_mark.mark

    def _suspend_effective_at(self, episode: Episode) -> Instant:
        """The suspend mark, or when `arrears_started` has been out for the shortest `suspension_ahead`."""
        mark, ahead = self._suspend_mark(episode), self.policy.suspension_ahead
        if mark >= NEVER:
            return NEVER
        if not ahead:
            return self.held.free_from(max(mark, episode.exempted_at))
        told_at = self.now if episode.told_at is None else episode.told_at
        return self.held.free_from(max(mark, told_at + ahead[-1], episode.exempted_at))

    def _counting_notice(self, episode: Episode) -> Warned | None:
        """The earliest `deletion_ahead` that counts: for this mark, and with a deadline outside all holds."""
        mark = self._delete_mark(episode)
        for warned in episode.warned:
            if warned.kind == _DELETION_AHEAD and warned.mark == mark:
                out_since = self._out_since(warned)
                if out_since is not None and not self.held.covers(
                    max(mark, out_since + self.policy.deletion_ahead[-1])
                ):
                    return warned
        return None

    def _out_since(self, warned: Warned) -> Instant | None:
        """When a notice was decided; with `notice_acks` when its ack came (None: it has not come yet)."""
        live = self.moment.live
        if live is None or not live.notice_acks:
            return warned.decided_at
        return None if warned.acked_at is None else max(warned.acked_at, warned.decided_at)

    def _wait_from(self, warned: Warned) -> Instant:
        """What a delete's `effective_at` counts from: the notice's `at`, or its ack."""
        live = self.moment.live
        return max(warned.acked_at or warned.at, warned.at) if live is not None and live.notice_acks else warned.at

    def _warn_of_suspend(self, episode: Episode) -> None:
        seen, ahead = episode.suspend_mark, self.policy.suspension_ahead
        nearest = self._due_warning(seen, ahead)
        if seen is not None and nearest is not None:
            index, at = nearest
            deadline = self._suspend_effective_at(episode)
            self._give_warning(episode, _SUSPENSION_AHEAD, seen.mark, ahead[index], at, deadline)
            episode.suspend_mark = MarkSeen(seen.mark, seen.since, index + 1)
            self._due_warning(episode.suspend_mark, ahead)

    def _warn_of_delete(self, episode: Episode) -> None:
        seen, ahead = episode.delete_mark, self.policy.deletion_ahead
        if seen is None or not ahead or seen.mark >= NEVER:
            return
        nearest = self._due_warning(seen, ahead)
        if nearest is not None:
            index, at = nearest
        elif not self._needs_notice(episode, seen.mark):
            return
        else:
            index, at = len(ahead) - 1, self._needed_notice_at(episode, seen.mark)
            if not self.moment.passed(at):
                self._wake(at)
                return
        if self._counting_notice(episode) is not None:
            deadline = self.can_delete_at(episode)  # an earlier one counts: the delete does not wait for this
        else:
            deadline = self._after_notices(max(seen.mark, self.moment.told_at(at) + ahead[-1]))
        self._give_warning(episode, _DELETION_AHEAD, seen.mark, ahead[index], at, deadline)
        episode.delete_mark = MarkSeen(seen.mark, seen.since, max(seen.given, index + 1))
        self._due_warning(episode.delete_mark, ahead)

    def _due_warning(self, seen: MarkSeen | None, ahead: tuple[Duration, ...]) -> tuple[int, Instant] | None:
        """Which warning of this mark is due, and since when; of those due together the nearest, the others lapse.

        None goes out when the mark has passed. Asks to be decided on again at the next one.
        """
        if seen is None or seen.given == len(ahead) or seen.mark >= NEVER or self.moment.passed(seen.mark):
            return None
        due = None
        for index in range(seen.given, len(ahead)):  # longest first: each falls due later than the one before
            at = self.held.free_from(max(seen.mark - ahead[index], seen.since))
            if not self.moment.passed(at):
                self._wake(at)
                break
            due = index, at
        return due

    def _needs_notice(self, episode: Episode, mark: Instant) -> bool:
        """Whether the delete mark has passed and no `deletion_ahead` counts that was given."""
        if self.enforcement.suspension is None or not self.moment.passed(mark):
            return False
        if self._counting_notice(episode) is not None:
            return False
        # One whose ack has not come is waited for.
        return all(
            self._out_since(w) is not None for w in episode.warned if w.kind == _DELETION_AHEAD and w.mark == mark
        )

    def _needed_notice_at(self, episode: Episode, mark: Instant) -> Instant:
        """When the notice may go out that such a delete needs.

        Outside of holds, and once the earlier ones' deadlines have passed (each fell in a hold, else it would count).
        """
        deadlines = [
            (self._out_since(warned) or self.now) + self.policy.deletion_ahead[-1]
            for warned in episode.warned
            if warned.kind == _DELETION_AHEAD and warned.mark == mark
        ]
        return self.held.free_from(max([mark, *deadlines]))

    def _give_warning(
        self, episode: Episode, kind: str, mark: Instant, ahead: Duration, due: Instant, deadline: Instant
    ) -> None:
        at = self.moment.told_at(due)
        notice_id = self._tell(kind, at, episode=episode, deadline=deadline)
        episode.warned.append(Warned(kind, mark, ahead, at, self.now, notice_id))

    def _recheck_delete(self, deletion: Deletion) -> None:
        """§3: late evidence that removes the reason of a delete stops all deletes until somebody has looked at it."""
        if deletion.contradicted or deletion.effective_at is None or deletion.since is None:
            return
        since = self.ledger.arrears_at(deletion.effective_at)
        if since is not None and since <= deletion.since:
            return
        self.enforcement.deletion = msgspec.structs.replace(deletion, contradicted=True)
        self.contradicts = True
        self.everybody.stop("delete_contradicted", ("delete",), self.now)
        self._tell(
            "delete_contradicted",
            self.now,
            since=deletion.since,
            policy=self.everybody.versions[deletion.policy],
            command_id=deletion.command_id,
        )

    # -- when commands can come -------------------------------------------------------------------------------------

    def can_suspend_at(self, episode: Episode) -> Instant:
        """When the suspend can come, as things stand; NEVER under an open hold."""
        return NEVER if self._is_held_openly() else self._suspend_effective_at(episode)

    def can_delete_at(self, episode: Episode) -> Instant:
        """When the delete can come, as things stand, with the notice that it has to wait for."""
        mark, ahead = self._delete_mark(episode), self.policy.deletion_ahead
        if mark >= NEVER or self._is_held_openly():
            return NEVER
        counting = self._counting_notice(episode)
        if counting is not None:
            return max(mark, self._wait_from(counting) + ahead[-1])
        if not ahead:
            return mark
        seen = episode.delete_mark
        if seen is not None and seen.given < len(ahead):
            notice_at = self.held.free_from(max(mark - ahead[seen.given], seen.since, self.now))
        else:
            notice_at = max(self.now, self._needed_notice_at(episode, mark))
        return self._after_notices(max(mark, notice_at + ahead[-1]))

    def _after_notices(self, deadline: Instant) -> Instant:
        """A notice whose deadline falls in a hold does not count: another one follows at the hold's end."""
        while self.held.covers(deadline):
            deadline = self.held.free_from(deadline) + self.policy.deletion_ahead[-1]
        return deadline

    def _is_held_openly(self) -> bool:
        return self.held.free_from(self.now) > LAST_INSTANT

    # -- commands ---------------------------------------------------------------------------------------------------

    def _suspend(self, episode: Episode) -> None:
        services = self.policy.suspends
        effective_at = self._suspend_effective_at(episode)
        command_id = self._command(
            Required.STOP, "unpaid_past_suspend_mark", effective_at, episode.since, self.policy, services
        )
        self.enforcement.suspension = Suspension(self.now, services, command_id, effective_at)
        self.enforcement.stop(self.now, services, command_id)
        self._look_at_marks(episode)  # the delete mark's `min_suspended` part is known now
        self._tell(
            "suspended",
            self.moment.told_at(effective_at),
            episode=episode,
            deadline=self.can_delete_at(episode),
            command_id=command_id,
            services=services,
        )

    def _restore(self, reason: Reason, effective_at: Instant, since: Instant, policy: Policy, fee: int) -> None:
        enforcement = self.enforcement
        suspension = enforcement.suspension
        assert suspension is not None  # TRANSITIONS: only what is suspended is restored
        command_id = self._command(
            Required.RUN,
            reason,
            effective_at,
            since,
            policy,
            suspension.services,
            fee=fee,
            supersedes=suspension.command_id if reason == "late_evidence" else None,
        )
        enforcement.suspension = enforcement.fee_missing = None
        enforcement.end_stops(self.now, self.moment.history)
        self._tell(
            "restored",
            self.moment.told_at(effective_at),
            since=since,
            late_fee=fees.reported(fee),
            policy=policy,
            command_id=command_id,
            reason=reason,
            services=suspension.services,
        )

    def _delete(self, episode: Episode) -> None:
        policy = self.policy
        counting = self._counting_notice(episode)
        effective_at = self._delete_mark(episode)
        if counting is not None:
            effective_at = max(effective_at, self._wait_from(counting) + policy.deletion_ahead[-1])
        fee = self._fee(episode)
        command_id = self._command(
            Required.END,
            "unpaid_past_delete_mark",
            effective_at,
            episode.since,
            policy,
            policy.deletes,
            notice_id=None if counting is None else counting.notice_id,
        )
        told_at = self.moment.told_at(effective_at)
        self._tell("deleted", told_at, episode=episode, command_id=command_id, services=policy.deletes)
        enforcement = self.enforcement
        enforcement.deletion = Deletion(
            self.now, policy.deletes, command_id, effective_at, episode.since, fees.reported(fee), episode.policy
        )
        enforcement.stop(self.now, policy.deletes, command_id)
        enforcement.episode = enforcement.suspension = None
        self.due = NEVER

    def _command(
        self,
        required: Required,
        reason: Reason,
        effective_at: Instant,
        since: Instant,
        policy: Policy,
        services: tuple[str, ...],
        *,
        fee: int | None = None,
        supersedes: str | None = None,
        notice_id: str | None = None,
    ) -> str:
        account, enforcement = self.account, self.enforcement
        action = TRANSITIONS[enforcement.commanded, required]
        assert action is not None  # callers ask for what is not commanded yet
        enforcement.sequence += 1
        arrears_since, effective = format_instant(since), format_instant(effective_at)
        command_id = stable_id(
            self.moment.app_id, account.account_id, enforcement.sequence, action, arrears_since, effective
        )
        enforcement.last_command_id = command_id
        unpaid, count = unpaid_bills(account)
        self.moment.commands.append(
            Command(
                command_id,
                account.account_id,
                enforcement.sequence,
                action,
                services,
                effective,
                format_instant(self.now),
                arrears_since,
                format_money(self.ledger.owed),
                format_money(fees.reported(self._fee(enforcement.episode) if fee is None else fee)),
                account.currency,
                unpaid,
                count,
                policy.label,
                policy.policy_hash,
                CLAUSES[action],
                reason,
                supersedes,
                self.moment.evidence,
                notice_id,
            )
        )
        live = self.moment.live
        if live is not None and live.subscribers:
            enforcement.unconfirmed.append(Unconfirmed(command_id, self.now + live.confirm_within, live.subscribers))
        return command_id

    # -- notices ----------------------------------------------------------------------------------------------------

    def _tell_arrears_started(self, episode: Episode) -> None:
        if episode.told_at is not None:
            return
        self._look_at_marks(episode)
        episode.told_at = self.moment.told_at(episode.floor)
        episode.told_decided_at = self.now
        suspended = self.enforcement.suspension is not None
        deadline = self.can_delete_at(episode) if suspended else self.can_suspend_at(episode)
        self._tell("arrears_started", episode.told_at, episode=episode, deadline=deadline)

    def _tell_unconfirmed(self) -> None:
        """§3: a command that a subscriber has not applied in time, or has failed to apply."""
        unconfirmed = self.enforcement.unconfirmed
        for index, command in enumerate(unconfirmed):
            late = command.missing if self.moment.passed(command.due) else ()
            told = command.told
            for subscriber in dict.fromkeys((*command.failed, *late)):
                if subscriber not in told:
                    told = (*told, subscriber)
                    has_failed = subscriber in command.failed
                    self._tell(
                        "command_unconfirmed",
                        self.now if has_failed else self.moment.told_at(command.due),
                        episode=self.enforcement.episode,
                        command_id=command.command_id,
                        subject=(command.command_id + subscriber,),
                        subscriber=subscriber,
                        detail="failed" if has_failed else "not applied in time",
                    )
            unconfirmed[index] = msgspec.structs.replace(command, told=told)
            self._wake(command.due)

    def _tell_fact(self, fact: Fact) -> None:
        if fact.payment is not None:
            self._tell_payment_after_delete(fact, fact.payment)
        elif fact.usage is not None:
            self._tell_usage(fact, fact.usage)

    def _tell_payment_after_delete(self, fact: Fact, record: Payment) -> None:
        assert fact.deletion is not None  # such a fact always has it
        in_time = fact.deletion.effective_at is not None and record.at <= fact.deletion.effective_at
        if in_time and self.contradicts:
            return  # `delete_contradicted` tells it
        self._tell(
            fact.kind,
            self.moment.told_at(record.at),
            late_fee=fact.deletion.late_fee,
            command_id=fact.deletion.command_id,
            subject=(record.event_id,),
            event_id=record.event_id,
            payment_id=record.payment_id,
            amount=format_money(record.amount),
        )

    def _tell_usage(self, fact: Fact, record: Usage) -> None:
        enforcement = self.enforcement
        command_id = None
        if fact.kind == "usage_while_suspended":
            breached = [stop for stop in enforcement.stops if stop.covers(record.service, record.started_at)]
            if not breached:
                return
            command_id = breached[-1].command_id
        self._tell(
            fact.kind,
            self.moment.told_at(record.at),
            episode=enforcement.episode,
            command_id=command_id,
            subject=(record.event_id,) if fact.package_id is None else (record.event_id, fact.package_id),
            event_id=record.event_id,
            usage_id=record.usage_id,
            package_id=fact.package_id,
            service=record.service,
            quantity=format_fine(record.quantity),
            unit=record.unit,
            started_at=format_instant(record.started_at),
        )

    def _tell(
        self,
        kind: str,
        at: Instant,
        *,
        episode: Episode | None = None,
        since: Instant | None = None,
        late_fee: Money | None = None,
        policy: Policy | None = None,
        deadline: Instant | None = None,
        command_id: str | None = None,
        subject: tuple[str, ...] = ("",),
        services: tuple[str, ...] | None = None,
        **particulars: str | None,
    ) -> str:
        """Publish a notice; returns its id. `particulars` are what its reader needs beside the fields of all."""
        account = self.account
        if episode is not None:
            since, policy = episode.since, self.policy
        arrears_since = None if since is None else format_instant(since)
        at_text = arrears_since if at == since and arrears_since is not None else format_instant(at)
        notice_id = stable_id(
            self.moment.app_id, account.account_id, self.enforcement.sequence, kind, arrears_since, at_text, *subject
        )
        if late_fee is None:
            late_fee = self.late_fee()
        self.moment.notices.append(
            Notice(
                notice_id,
                account.account_id,
                kind,
                at_text,
                format_money(self.ledger.owed),
                format_money(late_fee) if late_fee else "0",
                account.currency,
                arrears_since,
                None if deadline is None or deadline > LAST_INSTANT else format_instant(deadline),
                command_id,
                None if policy is None else policy.label,
                services=services,
                **particulars,
            )
        )
        return notice_id

    # -- the fee ----------------------------------------------------------------------------------------------------

    def _fee(self, episode: Episode | None) -> int:
        """The fee of the episode that runs, up to now."""
        if episode is None:
            return 0
        integral = self.ledger.integral(self.now) if self.ledger.in_arrears else 0
        return episode.carried + fees.accrued(integral, self.policy)

    def late_fee(self) -> Money:
        """The fee as reported now."""
        enforcement = self.enforcement
        if enforcement.deletion is not None:
            return enforcement.deletion.late_fee
        if enforcement.fee_missing is not None:
            return fees.reported(enforcement.fee_missing.fee)
        return fees.reported(self._fee(enforcement.episode))


_NOTHING: Final = Enforcement()


def _given(episode: Episode, kind: str, mark: Instant, ahead: tuple[Duration, ...]) -> int:
    """How many of a mark's warnings are given or have lapsed: a mark that moves away and back is the old mark."""
    if not episode.warned:
        return 0
    nearest = min(
        (warned.ahead for warned in episode.warned if warned.kind == kind and warned.mark == mark), default=NEVER
    )
    return sum(duration >= nearest for duration in ahead)


def unpaid_bills(account: Account) -> tuple[tuple[UnpaidBill, ...], int]:
    """The oldest unpaid bills as they are published, and how many there are."""
    ledger = account.ledger
    if ledger.covered == len(ledger.bills):
        return (), 0
    unpaid, count = ledger.unpaid(MAX_UNPAID_BILLS)
    bills = tuple(
        UnpaidBill(bill_id, format_money(total), format_money(outstanding)) for bill_id, total, outstanding in unpaid
    )
    return bills, count
