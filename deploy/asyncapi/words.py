"""What deploy/asyncapi.yaml says in words: of each channel, and of the fields that the models don't explain."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

#: The document's own description: how to write an enforcement service.
GUIDE: Final = (Path(__file__).parent / "guide.md").read_text(encoding="utf-8")


class Channel(NamedTuple):
    """What is told of a topic."""

    title: str
    #: Who writes and who reads it, what a record means.
    description: str


CHANNELS: Final = {
    "bills": Channel(
        "Bills",
        "From billing. `issued` charges its `amount` at `issued_at`; `adjusted` gives a bill a new total, from its own"
        " `issued_at` on, never backdated; `voided` takes it back. An adjustment that comes before its bill waits for"
        " it. `bill_id` is unique in the account.",
    ),
    "payments": Channel(
        "Payments",
        "From the payments system, each as soon as it is known: one that comes late may come after its account was"
        " suspended. `topup` adds; `refund` and `reversal` (chargeback) subtract at their own `paid_at`; `gift` is"
        " credit that never pays a bill. A payment that can't be used stops its account's suspends and deletes until an"
        " operator's `resume`.",
    ),
    "usage": Channel(
        "Usage",
        "From metering. It moves no balance: bills do. It draws on packages, is told as `unbilled`, and shows what is"
        " used while suspended.",
    ),
    "packages": Channel(
        "Packages",
        "From sales: prepaid quantities of a service, which usage draws on first (9.1.4).",
    ),
    "controls": Channel(
        "Controls",
        "From operators, by `arrears control`: holds, exemptions, credit limits, allowances, policies, openings. With"
        ' `account_id` "*" (for hold, exempt, release, allowance, policy, policies, resume) a record stands for'
        " everybody, and is sent to **every** partition, in one transaction.",
    ),
    "acks": Channel(
        "Acknowledgements",
        "From enforcement and notification services: what they made of a command or a notice. See section 5 of the"
        " guide above for how to send them so that a second one does no harm.",
    ),
    "arrears.commands": Channel(
        "Commands",
        "For enforcement services: what to suspend, restore, delete. CloudEvents 1.0 in Kafka's binary mode; exactly"
        " once to a `read_committed` consumer. The guide above says how to read it.",
    ),
    "arrears.notices": Channel(
        "Notices",
        "For those who tell customers and operators what happened and what lies ahead (clause 11). CloudEvents 1.0 in"
        " Kafka's binary mode; exactly once to a `read_committed` consumer. Kinds for operators alone:"
        " `delete_contradicted`, `usage_while_suspended`, `command_unconfirmed`, `payment_after_delete`.",
    ),
    "arrears.accounts": Channel(
        "Accounts",
        "How each account stands: compacted, so that the latest view of each is always there. A view is published in"
        " the transaction of what led to it, at most one a transaction and account; changes of `unbilled` and"
        " `packages` alone at most once a minute. Whoever starts late bootstraps from it: section 6 of the guide.",
    ),
    "arrears.dead-letters": Channel(
        "Dead letters",
        "For those who send records: each that could not be used, with why. Its key is that of the record, if that can"
        " be one. Mend the cause and send the record again; a refused record occupies no id.",
    ),
}

#: One message a topic: its name in the document, and what it is.
MESSAGES: Final = {
    "bills": ("Bill", "A bill is issued, adjusted or voided."),
    "payments": ("Payment", "Money has come in, or gone back."),
    "usage": ("Usage", "Something was used of a service."),
    "packages": ("Package", "A prepaid package is purchased or cancelled."),
    "controls": ("Control", "An operator has decided something."),
    "acks": ("Ack", "A command or a notice was carried out, or could not be."),
    "arrears.commands": ("Command", "Suspend, restore or delete an account's services."),
    "arrears.notices": ("Notice", "Something that the customer or an operator is told."),
    "arrears.accounts": ("Account", "How an account stands."),
    "arrears.dead-letters": ("DeadLetter", "A record that could not be used."),
}

HEADERS: Final = {
    "ce_specversion": "CloudEvents 1.0",
    "ce_id": "the `command_id` or `notice_id`",
    "ce_source": "`/arrears/` and the app id",
    "ce_type": "the action or kind, with the version of its form",
    "ce_subject": "the account",
    "ce_time": "when it was decided: `decided_at`",
    "content-type": "of the value",
}

_OWED: Final = "what is owed: the balance below zero, credit limit or not"
_LATE_FEE: Final = "the late fee accrued in this episode (3.4); it is not in the balance"
_CURRENCY: Final = "the account's one currency (ISO 4217)"
_ARREARS_SINCE: Final = "when the balance stopped covering the bills"
_UNPAID: Final = "the oldest 100 bills that payments do not cover"
_POLICY: Final = "name and version of the policy that holds"

#: By schema, by field.
FIELDS: Final[dict[str, dict[str, str]]] = {
    "arrears.commands": {
        "command_id": "a UUIDv5 of what the command is: computed again it is the same",
        "account_id": "the account; also the key",
        "sequence": "1, 2, 3 … of the account, no gaps: ignore what is not above what you have applied",
        "action": "what to do",
        "services": "with which services",
        "effective_at": "by the rule: the mark, the end of a hold, or the instant everything was paid",
        "decided_at": "when it was decided; later than `effective_at`",
        "arrears_since": _ARREARS_SINCE,
        "owed": _OWED,
        "late_fee": _LATE_FEE,
        "currency": _CURRENCY,
        "unpaid_bills": _UNPAID,
        "unpaid_bills_count": "how many there are",
        "policy": "name and version of the policy of this episode",
        "policy_hash": "SHA-256 of that version's content",
        "clause": "of the service agreement: 1.1.2 for suspend and restore, 1.1.3 for delete",
        "reason": "why; `late_evidence`: it was paid in time, and the record came late",
        "supersedes": "the command that should not have been, or null",
        "evidence": "by input topic the next offset when it was decided: everything before was taken into account",
        "notice_id": "of a delete the `deletion_ahead` that announced it; else null",
    },
    "arrears.notices": {
        "notice_id": "a UUIDv5 of what the notice is: computed again it is the same",
        "account_id": "the account; also the key",
        "kind": "what is told",
        "at": "when it was due, or if it goes out more than a minute later, when it was decided",
        "owed": _OWED,
        "late_fee": _LATE_FEE,
        "currency": _CURRENCY,
        "arrears_since": _ARREARS_SINCE,
        "deadline": "the mark that it speaks of: of the suspend, or of the delete; null where there is none",
        "command_id": "the command that it belongs to",
        "policy": _POLICY,
        "reason": "of the command",
        "services": "of the command",
        "event_id": "of the record that it is about",
        "usage_id": "of the usage that it is about",
        "package_id": "of the package that is used up",
        "payment_id": "of the payment that came after the delete",
        "service": "what was used",
        "quantity": "how much of it",
        "unit": "in what unit",
        "amount": "of the payment",
        "started_at": "when the usage began",
        "subscriber": "the service that did not confirm",
        "detail": "what it says",
    },
    "arrears.accounts": {
        "account_id": "the account; also the key",
        "status": "`suspended` and `deleted`: that has been commanded",
        "balance": "opening + top-ups − refunds − reversals − bills; gifts never count",
        "owed": _OWED,
        "late_fee": _LATE_FEE,
        "currency": _CURRENCY,
        "credit_limit": "how far the balance may fall before the account is in arrears",
        "arrears_since": _ARREARS_SINCE,
        "suspend_at": "when a suspend can come, as things stand",
        "delete_at": "when a delete can come, as things stand",
        "sequence": "that of the last command; 0: none yet",
        "last_command_id": "the last command",
        "suspended_services": "what is suspended, or was deleted",
        "unpaid_bills": _UNPAID,
        "unpaid_bills_count": "how many there are",
        "unbilled": "cost of usage since the last bill's period",
        "packages": "those that have something left and have not ended",
        "hold": "the hold or exemption in force that ends last; null: none",
        "policy": _POLICY,
        "as_of": "when it stood so",
    },
    "arrears.dead-letters": {
        "topic": "where the record lies",
        "partition": "where the record lies; null in a replay of files",
        "offset": "where the record lies; in a replay of files the line",
        "key": "the record's key; in base64 if it is no UTF-8",
        "value": "the record's value as text, or base64 if it is no UTF-8; at most 65,536 bytes of it",
        "truncated": "whether `value` was cut",
        "sha256": "of the whole value",
        "error": "what is wrong, in a word",
        "field": "which field is wrong, if it is one",
        "message": "what is wrong, and what would be right",
        "received_at": "when Kafka got it",
    },
    "UnpaidBill": {
        "bill_id": "the bill",
        "amount": "its total",
        "outstanding": "what of it is not covered",
    },
    "HoldView": {
        "kind": "an exemption also restores",
        "at": "from when it holds",
        "until": "until when; null: until it is released",
        "freeze_clock": "whether the marks move by its time",
    },
    "PackageView": {
        "package_id": "the package",
        "service": "what it covers",
        "unit": "in what unit",
        "remaining": "what is left",
        "ends_at": "when it ends",
    },
}
