"""What a new list of policies changes, in words, and whether it may be put in force (contract §3, clause 14.2).

Laws of this file:

- The content of a version never changes: a label that is known anywhere stands for one content for ever.
- A new version holds 30 days from now at the earliest, unless somebody answers for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from models.instants import DAY, FIRST_INSTANT, SECOND, format_instant
from models.policy import BUILT_IN
from streams import telling
from streams.faults import Unusable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from models.instants import Instant
    from models.policy import Policies, Policy

#: 14.2: changes are announced so long before.
NOTICE: Final = 30 * DAY


@dataclass
class Known:
    """What is known before."""

    #: Every version that was ever in force, or is to be, by its label; and where it stands.
    versions: dict[str, tuple[Policy, str]] = field(default_factory=dict)
    #: The lists in force now, and the partitions that have each; one, but for a moment after a change.
    in_force: list[tuple[Policies, list[int]]] = field(default_factory=list)
    #: A list that is in the controls, and that some partition does not hold yet: the last one sent.
    sent: Policies | None = None

    @property
    def latest(self) -> Policies | None:
        """What will hold if nothing more is sent; None if nothing is known."""
        if self.sent is not None:
            return self.sent
        return self.in_force[0][0] if self.in_force else None

    @property
    def agreed(self) -> bool:
        """Whether every partition holds, or will hold, one list."""
        return self.sent is not None or len(self.in_force) == 1


def check(policies: Policies, known: Known, now: Instant, *, without_notice: bool) -> None:
    """Raise `Unusable` if this list may not be put in force."""
    for policy in policies.versions:
        before, where = known.versions.get(policy.label, (policy, ""))
        if before != policy:
            told = "; ".join(f"{new}, not {old}" for old, new in _differing(before, policy)) or "its date"
            raise Unusable(
                f"{policy.label} is known with other content ({where}; here it {told}): the content of a version never "
                "changes, give it a new version"
            )
    if without_notice:
        return
    earliest = format_instant(-(-(now + NOTICE) // SECOND) * SECOND)
    new = new_versions(policies, known)
    for policy in new:
        if policy.effective_from < now + NOTICE:
            raise Unusable(
                f"{policy.label} is new and would hold from {format_instant(policy.effective_from)}, which is not 30 "
                f"days ahead (14.2): let it hold from {earliest} or later, or give --without-notice"
            )
    for name in (policies.first_name, *(known.latest.names if known.latest else ())):
        policy = policies.version_at(name, now + NOTICE - 1)
        if policy in new:
            raise Unusable(
                f"{policy.label} is new and the first of its name, so it would hold at once, whatever its date, which "
                f"is not 30 days ahead (14.2): leave in what holds now, until then, or give --without-notice"
            )


def new_versions(policies: Policies, known: Known) -> list[Policy]:
    """Those that nobody knows yet."""
    return [policy for policy in policies.versions if policy.label not in known.versions]


def is_change(policies: Policies, known: Known) -> bool:
    """Whether anything would be another way."""
    return not (known.agreed and known.latest == policies)


def changes(policies: Policies, known: Known) -> Iterator[str]:
    """What would be another way, line by line."""
    before = known.latest
    old = {} if before is None else {policy.label: policy for policy in before.versions}
    for policy in policies.versions:
        if policy.label in old:
            yield f"  {policy.label} stays as it is"
        else:
            yield from _added(policy, policies, old)
    kept = {policy.label for policy in policies.versions}
    for label, policy in old.items():
        if label not in kept:
            gone = policy.name not in policies.names
            instead = f"; accounts that chose {policy.name} get {policies.first_name}" if gone else ""
            yield f"- {label} is left out: episodes that run keep it, no other begins under it{instead}"
    if before is None:
        yield f"+ an account has {policies.first_name} unless a control chooses another"
    elif before.first_name != policies.first_name:
        yield f"~ an account that has chosen none has {policies.first_name} instead of {before.first_name}"


def _added(policy: Policy, policies: Policies, old: Mapping[str, Policy]) -> Iterator[str]:
    is_first = policies.version_at(policy.name, FIRST_INSTANT) == policy
    yield (
        f"+ {policy.label} holds for episodes that begin at {telling.when(policy.effective_from)} UTC or later"
        + (", and before, as the first of its name" if is_first else "")
    )
    earlier = [
        one
        for one in (*old.values(), *policies.versions)
        if one.name == policy.name and one.effective_from < policy.effective_from
    ]
    if not earlier:
        for line in telling.policy_sentences(policy):
            yield f"    {line}"
        return
    before = max(earlier, key=lambda one: one.effective_from)
    differing = _differing(before, policy)
    if not differing:
        yield f"    and does what {before.label} does"
    for was, now in differing:
        yield f"    {now}"
        yield f"      ({before.label}: {was})"


def _differing(before: Policy, after: Policy) -> list[tuple[str, str]]:
    """What the two do differently: the sentences of each."""
    sentences = zip(telling.policy_sentences(before), telling.policy_sentences(after), strict=True)
    return [(was, now) for was, now in sentences if was != now]


def gather(
    held: Mapping[int, tuple[Sequence[Policy], Policies] | None], sent: Sequence[tuple[str, Policies, bool]]
) -> Known:
    """What the partitions hold (every version ever; those in force), and what the controls carry.

    Of a control: where it stands, its policies, and whether some partition has not taken it in yet.
    """
    known = Known()
    for number, one in held.items():
        if one is None:
            continue
        versions, in_force = one
        for policy in versions:
            known.versions.setdefault(policy.label, (policy, f"partition {number} holds it"))
        for policies, numbers in known.in_force:
            if policies == in_force:
                numbers.append(number)
                break
        else:
            known.in_force.append((in_force, [number]))
    for where, policies, is_waiting in sent:
        for policy in policies.versions:
            known.versions.setdefault(policy.label, (policy, f"it stands in {where}"))
        if is_waiting:
            known.sent = policies
    if not known.versions:  # nobody has been told of anything else
        known.versions = {policy.label: (policy, "it is built in") for policy in BUILT_IN.versions}
    return known
