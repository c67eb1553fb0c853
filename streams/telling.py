"""The words of an explanation: records, commands, notices and what comes next, in sentences to be read aloud.

Instants are told in UTC, amounts with their currency, and each rule with the clause of the service agreement that it
comes from. Whatever a stranger wrote (ids, reasons) is made printable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, assert_never

from models.instants import DAY, HOUR, MINUTE, SECOND, format_instant, parse_instant
from models.money import format_fine, format_money, parse_signed_money
from models.records import Ack, Bill, Control, Package, Payment, Usage
from models.refusal import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from models.instants import Duration, Instant
    from models.money import Fine, Money
    from models.outputs import AccountView, Command, Notice
    from models.policy import Policy
    from models.records import Record

#: Up to so many days are told in hours, as the agreement does.
_IN_HOURS: Final = 2


# Values -------------------------------------------------------------------------------------------------------------


def when(at: Instant | str) -> str:
    """An instant: "2026-01-06 00:04:10"."""
    text = at if isinstance(at, str) else format_instant(at)
    return text.replace("T", " ").removesuffix("Z")


def length(duration: Duration) -> str:
    """A duration: "24 hours", "15 days", "1 hour 30 minutes"."""
    left, parts = duration, []
    for unit, name in ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute")):
        if unit == DAY and duration < _IN_HOURS * DAY:
            continue
        number, left = divmod(left, unit)
        if number:
            parts.append(counted(number, name))
    if left or not parts:
        seconds = f"{left / SECOND:f}".rstrip("0").rstrip(".")
        parts.append(f"{seconds} second{'' if seconds == '1' else 's'}")
    return " ".join(parts)


def money(amount: str, currency: str | None) -> str:
    """An amount: "128.4 CNY"."""
    return f"{amount} {currency}" if currency else amount


def listed(names: Iterable[str]) -> str:
    """Names: "compute and download"."""
    *first, last = [printable(name) for name in names]
    return f"{', '.join(first)} and {last}" if first else last


def quoted(text: str) -> str:
    """What somebody wrote, between quotes."""
    return f'"{printable(text)}"'


def counted(number: int, name: str) -> str:
    """A number of things: "1 bill", "2 bills"."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"


# Records ------------------------------------------------------------------------------------------------------------


def record_sentence(record: Record, before: Money = 0) -> str:
    """What a record says has happened. `before` is the total that its bill had, if it changes one."""
    match record:
        case Bill():
            return _bill(record, before)
        case Payment():
            return _payment(record)
        case Usage():
            return usage_sentence([record])
        case Package():
            return _package(record)
        case Control():
            return _control(record)
        case Ack():
            return f"{printable(record.subscriber)} acknowledges: {record.status}."
        case _:
            assert_never(record)


def _bill(bill: Bill, before: Money) -> str:
    name = f"Bill {printable(bill.bill_id)}"
    match bill.kind:
        case "issued":
            return f"{name} of {money(format_money(bill.amount), bill.currency)} is charged."
        case "adjusted":
            old, new = money(format_money(before), bill.currency), money(format_money(bill.amount), bill.currency)
            return f"{name} is adjusted from {old} to {new}."
        case "voided":
            return f"{name} of {money(format_money(before), bill.currency)} is voided."
        case _:
            assert_never(bill.kind)


def _payment(payment: Payment) -> str:
    amount, name = money(format_money(payment.amount), payment.currency), printable(payment.payment_id)
    match payment.kind:
        case "topup":
            return f"Top-up {name}: {amount} is paid in."
        case "refund":
            return f"Refund {name}: {amount} is paid back to the customer."
        case "reversal":
            return f"Chargeback of {name}: the bank takes {amount} back."
        case "gift":
            return f"Gift credit {name} of {amount}: it never pays a bill (3.5)."
        case _:
            assert_never(payment.kind)


class Draw(NamedTuple):
    """What usage drew on a package, and what that has left then."""

    package_id: str
    quantity: Fine
    unit: str
    left: Fine

    def as_json(self) -> dict[str, str]:
        """As `arrears explain --json` gives it."""
        quantity, left = format_fine(self.quantity), format_fine(self.left)
        return {"package_id": self.package_id, "quantity": quantity, "unit": self.unit, "left": left}


def usage_sentence(usage: list[Usage], draws: Iterable[Draw] = ()) -> str:
    """What was used, added up by service and unit, and what packages gave of it."""
    used: dict[tuple[str, str], int] = {}
    cost: dict[str, int] = {}
    for record in usage:
        used[record.service, record.unit] = used.get((record.service, record.unit), 0) + record.quantity
        if record.cost is not None:
            currency = record.currency or ""
            cost[currency] = cost.get(currency, 0) + record.cost
    quantities = ", ".join(f"{service} {format_fine(q)} {printable(unit)}" for (service, unit), q in used.items())
    costs = ", ".join(money(format_fine(amount), currency) for currency, amount in cost.items())
    records = "Usage" if len(usage) == 1 else f"{len(usage)} records of usage until {when(usage[-1].at)}"
    charged = f"; cost {costs}, which a bill will charge" if costs else ""
    drawn: dict[str, Draw] = {}
    for draw in draws:
        before = drawn.get(draw.package_id)
        drawn[draw.package_id] = draw if before is None else draw._replace(quantity=before.quantity + draw.quantity)
    given = "".join(
        f" Package {printable(draw.package_id)} gives {format_fine(draw.quantity)} {printable(draw.unit)},"
        f" {format_fine(draw.left)} left (9.1.4)."
        for draw in drawn.values()
    )
    return f"{records}: {quantities}{charged}.{given}"


def _package(package: Package) -> str:
    name = f"Package {printable(package.package_id)}"
    if package.kind == "cancelled":
        return f"{name} is cancelled: it is drawn on no more."
    assert package.quantity is not None  # the contract's model requires these of a purchase
    assert package.unit is not None
    assert package.starts_at is not None
    assert package.ends_at is not None
    what = f"{format_fine(package.quantity)} {printable(package.unit)} of {package.service}"
    return f"{name} is bought: {what}, from {when(package.starts_at)} to {when(package.ends_at)} (9.1.4)."


def _control(control: Control) -> str:
    who = printable(control.actor)
    whom = "all accounts" if control.account_id == "*" else "the account"
    until = "until it is released" if control.until is None else f"until {when(control.until)}"
    match control.kind:
        case "hold":
            clock = "; the clock stands still" if control.freeze_clock else ""
            said = f"{who} puts {whom} on hold {until}{clock}"
        case "exempt":
            clock = "; the clock stands still" if control.freeze_clock else ""
            said = f"{who} exempts {whom} {until}{clock}"
        case "release":
            said = f"{who} releases {whom} from holds and exemptions"
        case "credit_limit":
            said = f"{who} sets the credit limit to {format_money(control.amount or 0)}"
        case "allowance":
            said = f"{who} allows {whom} {length(control.duration or 0)} more, for this episode and those that follow"
        case "policy":
            said = f"{who} chooses policy {printable(control.policy or '')} for episodes that begin later"
        case "policies":
            labels = listed(policy.label for policy in control.policies or ())
            said = f"{who} puts policies in force: {labels}; an episode that runs keeps its own (14.2)"
        case "opening":
            said = f"{who} takes {whom} over from another system, {(control.status or '').replace('_', ' ')}"
        case "reopen":
            said = f"{who} reopens {whom}: it starts anew"
        case "resume":
            said = f"{who} lets decisions that a guard stopped go on (in a replay nothing is stopped)"
        case _:
            assert_never(control.kind)
    return f"{said}. Reason: {quoted(control.reason)}."


# Commands and notices -----------------------------------------------------------------------------------------------


def command_sentence(command: Command, policy: Policy | None, moved_by: Iterable[str]) -> str:
    """A command, why it is sent and by which clause. `moved_by`: kinds of control that may have moved its mark."""
    services, owed = listed(command.services), money(command.owed, command.currency)
    match command.action:
        case "suspend":
            passed = _passed(command, None if policy is None else policy.suspend_after, moved_by)
            why = f"{passed} and {owed} is owed (1.1.2)."
        case "delete":
            moved_by = moved_by or ("notice or the least time suspended",)
            passed = _passed(command, None if policy is None else policy.delete_after, moved_by)
            why = f"{passed} and {owed} is owed (1.1.3): the service ends, all data goes, no payment brings it back."
        case _:
            why = _why_restored(command)
    fee = f" Late fee so far: {money(command.late_fee, command.currency)} (3.4)." if command.late_fee != "0" else ""
    return f"Command {command.sequence}: {command.action.upper()} {services}. {why}{fee}"


def _passed(command: Command, after: Duration | None, moved_by: Iterable[str]) -> str:
    since = command.arrears_since
    if after is not None and since is not None and parse_instant(command.effective_at) == parse_instant(since) + after:
        return f"{length(after)} have passed since arrears began"
    by = " or ".join(moved_by)
    moved = f", which {'an' if by[0] in 'aeiou' else 'a'} {by} has moved," if by else ""
    return f"The {command.action} mark{moved} has passed"


def _why_restored(command: Command) -> str:
    match command.reason:
        case "operator":
            return "An operator's exemption restores it, although the bills are not paid."
        case "late_evidence":
            return "The payment was made in time, before the suspend mark: the suspension is taken back (1.1.1)."
        case _:
            return "Everything is paid (1.1.2, 3.4)."


def notice_sentence(notice: Notice) -> str:
    """What the customer or an operator is told (R9), or what the monitor reports."""
    owed = money(notice.owed, notice.currency)
    deadline = None if notice.deadline is None else when(notice.deadline)
    match notice.kind:
        case "arrears_started":
            end = f" and that it has to be paid by {deadline}" if deadline else ""
            said = f"the customer is told that arrears began, that {owed} is owed{end}"
        case "arrears_cleared":
            said = "the customer is told that the arrears are cleared"
        case "suspension_ahead":
            said = f"the customer is warned: the suspension comes at {deadline}, unless {owed} is paid"
        case "suspended":
            end = f", and that everything is deleted at {deadline} if it is not paid" if deadline else ""
            said = f"the customer is told of the suspension{end}"
        case "deletion_ahead":
            said = f"the customer is warned: everything is deleted at {deadline}, unless {owed} is paid"
        case "deleted":
            said = "the customer is told of the delete"
        case "restored":
            said = "the customer is told that the services are back"
        case "payment_after_delete":
            said = "a payment came after the delete; it is recorded and brings nothing back (1.1.3)"
        case "usage_while_suspended":
            since = when(notice.started_at or "")
            said = f"{notice.service} was used from {since} on, although it is stopped: a breach"
        case "package_exhausted":
            package = printable(notice.package_id or "")
            said = f"package {package} is used up; from here on usage is paid as it goes (9.1.4)"
        case _:
            said = f"{notice.detail or 'see its fields'}"
    return f"Notice {notice.kind}: {said}."


# Policies -----------------------------------------------------------------------------------------------------------


def policy_sentences(policy: Policy) -> list[str]:
    """What a policy does, line by line."""
    clock = "arrears began" if policy.delete_clock == "arrears" else "the suspend mark"
    required = "has to be paid for a restore" if policy.late_fee_required else "is reported only"
    share = f"{policy.late_fee_per_day / 10**10:f}".rstrip("0").rstrip(".")
    suspends, deletes = listed(policy.suspends), listed(policy.deletes)
    at_least, warned = length(policy.min_suspended), (_ahead(policy.suspension_ahead), _ahead(policy.deletion_ahead))
    lateness = length(policy.lateness_suspend), length(policy.lateness_delete)
    return [
        f"suspends {suspends} {length(policy.suspend_after)} after arrears began (1.1.2); warns {warned[0]}",
        f"deletes {deletes} {length(policy.delete_after)} after {clock} (1.1.3); warns {warned[1]}",
        f"nobody is deleted who has not been suspended for {at_least}",
        f"the late fee is {share} % a day of what is owed (3.4); it {required}",
        f"live, a suspend waits {lateness[0]} and a delete {lateness[1]} more for records that are late",
    ]


def _ahead(durations: tuple[Duration, ...]) -> str:
    return f"{listed(length(duration) for duration in durations)} before" if durations else "nobody before"


# What comes next ----------------------------------------------------------------------------------------------------


def to_pay(view: AccountView, policy: Policy | None) -> Money:
    """What has to be paid now for the account to be clear, or restored; 0 if nothing or if no payment helps."""
    if view.status == "deleted":
        return 0
    needed = 0
    if view.status == "suspended" and policy is not None and policy.late_fee_required:
        needed = parse_signed_money(view.late_fee)
    return max(0, needed - parse_signed_money(view.balance) - parse_signed_money(view.credit_limit))


def next_sentences(view: AccountView, policy: Policy | None) -> list[str]:
    """How the account stands, and what comes next."""
    pay = money(format_money(to_pay(view, policy)), view.currency)
    hold = _hold_sentence(view)
    match view.status:
        case "current":
            said = ["Nothing is due."]
            if view.owed != "0":
                limit = money(view.credit_limit, view.currency)
                owed = money(view.owed, view.currency)
                said = [f"{owed} is owed, within the credit limit of {limit}: nothing is due."]
        case "in_arrears":
            said = _next_in_arrears(view, policy, pay)
        case "suspended":
            said = _next_suspended(view, policy, pay)
        case _:
            said = ["The service has ended and all data is gone. No payment brings it back (1.1.3)."]
            said.append("An operator may reopen the account.")
    return [*said, *hold]


def _next_in_arrears(view: AccountView, policy: Policy | None, pay: str) -> list[str]:
    services = listed(policy.suspends) if policy else "services"
    if view.suspend_at is None:
        said = [f"{pay} has to be paid. Nothing stops before the hold ends."]
    else:
        by = when(view.suspend_at)
        said = [f"If {pay} is paid by {by}, nothing stops (1.1.1); else {services} stop then (1.1.2)."]
    if view.delete_at is not None:
        said.append(f"As things stand everything is deleted at {when(view.delete_at)} (1.1.3).")
    return said


def _next_suspended(view: AccountView, policy: Policy | None, pay: str) -> list[str]:
    services = listed(view.suspended_services)
    fee = ""
    if policy is not None and policy.late_fee_required:
        fee = f", with the late fee of {money(view.late_fee, view.currency)} that its policy asks for (3.4)"
    said = [f"Once {pay} is paid{fee}, {services} are restored (1.1.2). A part of it restores nothing."]
    if view.arrears_since is None:
        said.append("The bills are paid and only the fee is missing: nothing is deleted for that.")
    elif view.delete_at is None:
        said.append("Nothing is deleted before the hold ends.")
    else:
        said.append(f"If it is not paid by {when(view.delete_at)}, everything is deleted (1.1.3).")
    return said


def _hold_sentence(view: AccountView) -> list[str]:
    hold = view.hold
    if hold is None:
        return []
    name = "An exemption" if hold.kind == "exempt" else "A hold"
    until = "until it is released" if hold.until is None else f"until {when(hold.until)}"
    return [f"{name} has been in force since {when(hold.at)} {until}."]
