"""Random histories of a few accounts, made to meet the marks exactly, a microsecond before and a microsecond after."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
TICK = timedelta(microseconds=1)

#: Instants lie at sums of these hours: the default policy's durations, and what is between them.
HOURS = (0, 1, 4, 20, 24, 48, 72, 96, 168, 192, 288, 336, 360, 432, 1080)
JITTERS = (timedelta(), timedelta(), timedelta(), -TICK, TICK, 7 * timedelta(minutes=1))
AMOUNTS = ("10", "10", "20", "30", "5.5", "0.000001", "1000")

POLICY_FILES = (
    None,
    """policies:
  - {name: plain, version: "1", effective_from: "2020-01-01T00:00:00Z", late_fee_required: true}
  - {name: quick, version: "1", effective_from: "2020-01-01T00:00:00Z", suspend_after: PT24H, delete_after: PT96H,
     min_suspended: PT24H, notices: {suspension_ahead: [PT20H, PT4H], deletion_ahead: [PT72H, PT20H]}}
""",
    """policies:
  - {name: clock, version: "1", effective_from: "2020-01-01T00:00:00Z", delete_clock: suspension, suspend_after: PT24H,
     delete_after: PT168H, min_suspended: PT96H, late_fee_per_day: "0.024",
     notices: {suspension_ahead: [], deletion_ahead: [PT96H]}}
  - {name: clock, version: "2", effective_from: "2026-01-09T00:00:00Z", suspend_after: PT48H, delete_after: PT192H,
     notices: {suspension_ahead: [PT24H], deletion_ahead: []}}
  - {name: fees, version: "1", effective_from: "2020-01-01T00:00:00Z", late_fee_required: true,
     late_fee_per_day: "0.5", delete_clock: suspension, notices: {deletion_ahead: [PT24H]}}
""",
)
POLICY_NAMES = ((), ("plain", "quick"), ("clock", "fees"))
POLICY_LISTS: tuple[list[dict[str, Any]], ...] = (
    [{"name": "quick", "version": "9", "effective_from": "2026-01-03T00:00:00Z", "suspend_after": "PT20H"}],
    [
        {
            "name": "fees",
            "version": "7",
            "effective_from": "2020-01-01T00:00:00Z",
            "late_fee_required": True,
            "notices": {"suspension_ahead": [], "deletion_ahead": []},
        }
    ],
)

_FOR_EVERYBODY = frozenset(("hold", "exempt", "release", "allowance", "policy", "policies", "resume"))

History = tuple[dict[str, list[dict[str, Any]]], str | None, str | None]


def _text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


@st.composite
def instants(draw: st.DrawFn) -> datetime:
    """An instant at, just before or just after a sum of the policy's durations."""
    hours = sum(draw(st.lists(st.sampled_from(HOURS), min_size=1, max_size=2)))
    return START + hours * HOUR + draw(st.sampled_from(JITTERS))


@st.composite
def histories(draw: st.DrawFn, *, accounts: int = 2, most: int = 14) -> History:
    """(records by topic, policy file or None, until or None)."""
    which = draw(st.integers(0, len(POLICY_FILES) - 1))
    names = POLICY_NAMES[which] or ("maxcompute",)
    topics: dict[str, list[dict[str, Any]]] = {
        topic: [] for topic in ("bills", "payments", "usage", "packages", "controls")
    }
    with_controls = draw(st.sampled_from((0, 1, 4)))
    with_usage = draw(st.sampled_from((0, 0, 2)))
    kinds = ["bills"] * 4 + ["payments"] * 4 + ["controls"] * with_controls + ["usage", "packages"] * with_usage
    crowded = draw(st.integers(0, 4)) == 0  # few ids, so that conflicts come
    for _ in range(draw(st.integers(1, most))):
        topic = draw(st.sampled_from(kinds))
        record = draw(_RECORDS[topic](names))
        record["account_id"] = record.get("account_id") or f"a{draw(st.integers(1, accounts))}"
        if topic == "controls" and record["kind"] in _FOR_EVERYBODY and draw(st.integers(0, 5)) == 0:
            record["account_id"] = "*"
        number = len(topics[topic])
        record["event_id"] = f"e{draw(st.integers(0, 6)) if crowded else number:03}"
        topics[topic].append(record)
        if draw(st.integers(0, 15)) == 0:
            topics[topic].append(dict(record))
    until = draw(st.one_of(st.none(), instants().map(lambda at: _text(at + 600 * HOUR)), instants().map(_text)))
    return topics, POLICY_FILES[which], until


@st.composite
def _bills(draw: st.DrawFn, _names: tuple[str, ...]) -> dict[str, Any]:
    kind = draw(st.sampled_from(("issued", "issued", "issued", "adjusted", "voided")))
    record = {
        "bill_id": f"b{draw(st.integers(0, 3) if kind != 'issued' or draw(st.booleans()) else st.integers(10, 1000))}",
        "kind": kind,
        "amount": draw(st.sampled_from((*AMOUNTS, "0"))) if kind != "voided" else "0",
        "currency": _currency(draw),
        "issued_at": _text(draw(instants())),
    }
    if kind == "issued" and draw(st.booleans()):
        record["period_end"] = _text(draw(instants()))
    return record


def _currency(draw: st.DrawFn) -> str:
    return "USD" if draw(st.integers(0, 150)) == 149 else "CNY"


@st.composite
def _payments(draw: st.DrawFn, _names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "payment_id": f"p{draw(st.one_of(st.integers(0, 3), st.integers(10, 1000)))}",
        "kind": draw(st.sampled_from(("topup", "topup", "topup", "topup", "refund", "reversal", "gift"))),
        "amount": draw(st.sampled_from(AMOUNTS)),
        "currency": _currency(draw),
        "paid_at": _text(draw(instants())),
    }


@st.composite
def _usage(draw: st.DrawFn, _names: tuple[str, ...]) -> dict[str, Any]:
    ended_at = draw(instants())
    record = {
        "usage_id": "u",
        "service": draw(st.sampled_from(("compute", "download", "storage"))),
        "quantity": draw(st.sampled_from(("1", "2.5", "0", "0.000000000001"))),
        "unit": draw(st.sampled_from(("hour", "GB"))),
        "started_at": _text(ended_at - draw(st.sampled_from((0, 1, 24))) * HOUR),
        "ended_at": _text(ended_at),
    }
    if draw(st.booleans()):
        record["cost"] = draw(st.sampled_from(("1", "-0.5", "0.000000000001")))
        record["currency"] = _currency(draw)
    return record


@st.composite
def _packages(draw: st.DrawFn, _names: tuple[str, ...]) -> dict[str, Any]:
    starts_at = draw(instants())
    return {
        "package_id": f"k{draw(st.integers(0, 3))}",
        "kind": draw(st.sampled_from(("purchased", "purchased", "purchased", "cancelled"))),
        "service": draw(st.sampled_from(("compute", "download"))),
        "quantity": draw(st.sampled_from(("1", "2", "3.5"))),
        "unit": draw(st.sampled_from(("hour", "GB"))),
        "at": _text(draw(instants())),
        "starts_at": _text(starts_at),
        "ends_at": _text(starts_at + draw(st.sampled_from(HOURS)) * HOUR),
    }


@st.composite
def _controls(draw: st.DrawFn, names: tuple[str, ...]) -> dict[str, Any]:
    at = draw(instants())
    kind = draw(
        st.sampled_from(
            (
                "hold",
                "hold",
                "exempt",
                "release",
                "credit_limit",
                "allowance",
                "allowance",
                "policy",
                "policies",
                "opening",
                "reopen",
                "resume",
            )
        )
    )
    record: dict[str, Any] = {"kind": kind, "actor": "op", "reason": "because", "at": _text(at)}
    match kind:
        case "hold" | "exempt":
            if draw(st.integers(0, 3)):
                record["until"] = _text(at + draw(st.sampled_from(HOURS)) * HOUR)
            record["freeze_clock"] = draw(st.booleans())
        case "credit_limit":
            record["amount"] = draw(st.sampled_from(("0", "10", "20", "5.5")))
        case "allowance":
            record["duration"] = f"PT{draw(st.sampled_from(HOURS))}H"
        case "policy":
            record["policy"] = draw(st.sampled_from((*names, *names, "unheard-of")))
        case "policies":
            record["policies"] = draw(st.sampled_from(POLICY_LISTS))
        case "opening":
            record["status"] = draw(st.sampled_from(("current", "in_arrears", "suspended", "deleted")))
            record["balance"] = draw(st.sampled_from(("-10", "-20", "0", "10")))
            record["currency"] = "CNY"
            record["sequence"] = draw(st.integers(0, 3))
            if record["status"] in ("in_arrears", "suspended"):
                record["arrears_since"] = _text(at - draw(st.sampled_from(HOURS)) * HOUR)
        case _:
            pass
    return record


_RECORDS = {"bills": _bills, "payments": _payments, "usage": _usage, "packages": _packages, "controls": _controls}


def lines(records: list[dict[str, Any]]) -> list[bytes]:
    """The records as the values of a topic."""
    return [json.dumps(record).encode() for record in records]
