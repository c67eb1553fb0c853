"""The policy file of §5 and the `policies` of a control: parsed, and refused with ValueError when unusable."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import yaml

from .values import DAY, parse_duration, parse_instant

BUILT_IN = """
policies:
  - name: maxcompute
    version: "2018-03-16"
    effective_from: 2018-03-16T00:00:00+08:00
    suspend_after: PT24H
    delete_after: PT360H
    delete_clock: arrears
    suspends: [compute, download]
    deletes: [compute, download, storage, caches, backups]
    late_fee_per_day: "0.0005"
    late_fee_required: false
    lateness: {suspend: PT0S, delete: PT1H}
    notices: {suspension_ahead: [PT4H], deletion_ahead: [PT168H, PT72H, PT24H]}
"""
PT72H = 3 * DAY


@dataclass(frozen=True)
class Policy:
    name: str
    version: str
    effective_from: int
    suspend_after: int
    delete_after: int
    delete_clock: str
    min_suspended: int
    suspends: tuple[str, ...]
    deletes: tuple[str, ...]
    late_fee_per_day: Fraction
    late_fee_required: bool
    suspension_ahead: tuple[int, ...]
    deletion_ahead: tuple[int, ...]
    lateness_suspend: int  # §3: a replay knows none
    lateness_delete: int

    @property
    def label(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True)
class Policies:
    versions: tuple[Policy, ...]

    @property
    def first_name(self) -> str:
        return self.versions[0].name

    @property
    def names(self) -> set[str]:
        return {version.name for version in self.versions}

    def version_at(self, name: str, start: int) -> Policy:
        """§5: the newest whose `effective_from` is not after `start`; before the first, the first."""
        own = sorted((v for v in self.versions if v.name == name), key=lambda v: v.effective_from)
        return ([v for v in own if v.effective_from <= start] or own[:1])[-1]

    @property
    def longest_delete_after(self) -> int:
        return max(version.delete_after for version in self.versions)


@cache
def parse_file(text: str) -> Policies:
    """The YAML of a policy file. Every scalar is read as the text it is."""
    document = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506  # makes nothing but texts, lists and mappings
    if not isinstance(document, dict) or set(document) != {"policies"}:
        raise ValueError("a policy file has `policies:` and nothing else")
    return parse_list(document["policies"], yaml_texts=True)


def parse_list(value: Any, *, yaml_texts: bool = False) -> Policies:
    """The list under `policies:`. `yaml_texts`: a yes or no comes as the text "true" or "false"."""
    if not isinstance(value, list) or not value:
        raise ValueError("`policies` is a list of at least one policy")
    versions = tuple(parse_policy(item, yaml_texts=yaml_texts) for item in value)
    if len({(v.name, v.effective_from) for v in versions}) != len(versions):
        raise ValueError("two versions of a name with one date")
    return Policies(versions)


@cache
def built_in_fields() -> dict[str, Any]:
    """What a field left out has as its value."""
    return mapping(yaml.load(BUILT_IN, Loader=yaml.BaseLoader)["policies"][0])  # noqa: S506  # as above


def parse_policy(value: Any, *, yaml_texts: bool) -> Policy:
    given = mapping(value)
    built_in = built_in_fields()
    if not set(given) <= {*built_in, "min_suspended"}:
        raise ValueError("unknown fields in a policy")
    lateness, notices = mapping(given.get("lateness", {})), mapping(given.get("notices", {}))
    if not set(lateness) <= {"suspend", "delete"} or not set(notices) <= {"suspension_ahead", "deletion_ahead"}:
        raise ValueError("unknown fields in a policy")
    merged = {**built_in, **given}
    merged["lateness"] = {**built_in["lateness"], **lateness}
    merged["notices"] = {**built_in["notices"], **notices}
    lateness_suspend, lateness_delete = (duration(merged["lateness"][name]) for name in ("suspend", "delete"))
    suspend_after, delete_after = duration(merged["suspend_after"]), duration(merged["delete_after"])
    clock = one_of(merged["delete_clock"], "arrears", "suspension")
    longest_suspension = delete_after - suspend_after if clock == "arrears" else delete_after
    required = merged["late_fee_required"]
    if yaml_texts or "late_fee_required" not in given:
        required = one_of(required, "true", "false") == "true"
    if not isinstance(required, bool):
        raise ValueError("late_fee_required is true or false")  # noqa: TRY004  # as below
    fee = text(merged["late_fee_per_day"])
    if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,12})?", fee):
        raise ValueError("late_fee_per_day is a decimal number")
    policy = Policy(
        name=text(merged["name"]),
        version=text(merged["version"]),
        effective_from=parse_instant(text(merged["effective_from"])),
        suspend_after=suspend_after,
        delete_after=delete_after,
        delete_clock=clock,
        min_suspended=duration(merged["min_suspended"])
        if "min_suspended" in merged
        else min(PT72H, longest_suspension),
        suspends=texts(merged["suspends"]),
        deletes=texts(merged["deletes"]),
        late_fee_per_day=Fraction(fee),
        late_fee_required=required,
        suspension_ahead=durations(merged["notices"]["suspension_ahead"]),
        deletion_ahead=durations(merged["notices"]["deletion_ahead"]),
        lateness_suspend=lateness_suspend,
        lateness_delete=lateness_delete,
    )
    refuse_unusable(policy, longest_suspension)
    return policy


def refuse_unusable(policy: Policy, longest_suspension: int) -> None:
    """§5, "Unusable"."""
    if policy.delete_clock == "arrears" and policy.delete_after <= policy.suspend_after:
        raise ValueError("delete_after is not above suspend_after")
    if any(ahead >= policy.suspend_after for ahead in policy.suspension_ahead):
        raise ValueError("a suspension_ahead is not below suspend_after")
    if any(ahead >= policy.delete_after for ahead in policy.deletion_ahead):
        raise ValueError("a deletion_ahead is not below delete_after")
    if policy.deletion_ahead and min(policy.deletion_ahead) > policy.min_suspended:
        raise ValueError("the shortest deletion_ahead is above min_suspended")
    if policy.min_suspended > longest_suspension:
        raise ValueError("min_suspended is longer than a suspension can be")


def mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not a mapping")  # noqa: TRY004  # every unusable policy is a ValueError
    if getattr(value, "repeats", False):
        raise ValueError("a key twice")
    return value


def text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("not a text")
    return value


def texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("not a list")  # noqa: TRY004  # as above
    return tuple(text(item) for item in value)


def one_of(value: Any, *choices: str) -> str:
    if value not in choices:
        raise ValueError(f"not one of {', '.join(choices)}")
    return text(value)


def duration(value: Any) -> int:
    return parse_duration(text(value))


def durations(value: Any) -> tuple[int, ...]:
    return tuple(sorted({parse_duration(item) for item in texts(value)}, reverse=True))
