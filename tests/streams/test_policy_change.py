"""Whether a list of policies may be put in force, and what it changes, in words (contract §3, clause 14.2)."""

from __future__ import annotations

from typing import Any

import pytest

from models.instants import DAY, format_instant, parse_instant
from models.policy import BUILT_IN, Policies, parse_policies
from streams.faults import Unusable
from streams.held import same
from streams.policy_change import Known, changes, check, gather, is_change

NOW = parse_instant("2026-02-01T00:00:00Z")
IN_30_DAYS = format_instant(NOW + 30 * DAY)
A_MOMENT_SOONER = format_instant(NOW + 30 * DAY - 1)

OLD: dict[str, Any] = {"name": "p", "version": "1", "effective_from": "2020-01-01T00:00:00Z"}
NEW = OLD | {"version": "2", "effective_from": IN_30_DAYS, "suspend_after": "PT72H"}
OTHER = OLD | {"name": "q"}


def policies(*versions: dict[str, Any]) -> Policies:
    return parse_policies(list(versions))


def known(*versions: dict[str, Any]) -> Known:
    held = policies(*versions)
    return gather(dict.fromkeys(range(4), (held.versions, held)), [])


def refused(new: Policies, before: Known, *, without_notice: bool = False) -> str:
    with pytest.raises(Unusable) as error:
        check(new, before, NOW, without_notice=without_notice)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_new_version_needs_thirty_days() -> None:
    check(policies(OLD, NEW), known(OLD), NOW, without_notice=False)
    sooner = policies(OLD, NEW | {"effective_from": A_MOMENT_SOONER})
    told = refused(sooner, known(OLD))
    assert told.startswith(f"p@2 is new and would hold from {A_MOMENT_SOONER}, which is not 30 days ahead (14.2)")
    assert f"let it hold from {IN_30_DAYS} or later, or give --without-notice" in told
    check(sooner, known(OLD), NOW, without_notice=True)


def test_a_version_keeps_its_content_for_ever() -> None:
    changed = policies(OLD | {"suspend_after": "PT30H"})
    for without_notice in (False, True):
        told = refused(changed, known(OLD), without_notice=without_notice)
        assert told.startswith("p@1 is known with other content (partition 0 holds it; here it suspends")
        assert told.endswith("the content of a version never changes, give it a new version")
    assert "its date" in refused(policies(OLD | {"effective_from": "2020-01-02T00:00:00Z"}), known(OLD))


def test_a_version_that_was_in_force_long_ago_keeps_its_content_too() -> None:
    before = gather({0: (policies(OLD, OTHER).versions, policies(OTHER))}, [])
    assert "known with other content" in refused(policies(OTHER, OLD | {"late_fee_required": True}), before)


def test_a_version_that_was_sent_and_not_read_yet_keeps_its_content() -> None:
    held = policies(OLD)
    before = gather({0: (held.versions, held)}, [("controls, partition 0, offset 7", policies(OLD, NEW), True)])
    told = refused(policies(OLD, NEW | {"suspend_after": "PT80H"}), before)
    assert "p@2 is known with other content (it stands in controls, partition 0, offset 7;" in told
    assert not is_change(policies(OLD, NEW), before)
    assert is_change(held, before)


def test_the_first_of_a_name_holds_at_once_whatever_its_date() -> None:
    # §5: before the first, the first.
    assert "p@2 is new and the first of its name, so it would hold at once" in refused(policies(NEW), known(OLD))
    fallback = refused(policies(NEW | {"name": "r"}, OLD), known(OLD))
    assert "r@2 is new and the first of its name" in fallback
    check(policies(NEW), known(OLD), NOW, without_notice=True)
    # Nobody has it unless a control chooses it.
    check(policies(OLD, NEW | {"name": "r"}), known(OLD), NOW, without_notice=False)


def test_where_nobody_has_been_the_built_in_policy_is_known() -> None:
    before = gather({0: None, 1: None}, [])
    check(BUILT_IN, before, NOW, without_notice=False)
    assert "p@1 is new" in refused(policies(OLD), before)
    assert is_change(BUILT_IN, before)


def test_partitions_that_differ_are_a_change_whatever_is_sent() -> None:
    one, two = policies(OLD), policies(OLD, OTHER)
    before = gather({0: (one.versions, one), 1: (two.versions, two), 2: None}, [])
    assert is_change(one, before)
    assert is_change(two, before)
    assert not is_change(one, known(OLD))


def test_what_changes_is_told() -> None:
    told = list(changes(policies(OTHER, OLD, NEW), known(OLD)))
    assert told[0].startswith("+ q@1 holds for episodes that begin at 2020-01-01 00:00:00 UTC or later, and before")
    assert "  p@1 stays as it is" in told
    at = told.index("+ p@2 holds for episodes that begin at 2026-03-03 00:00:00 UTC or later")
    assert told[at + 1] == "    suspends compute and download 3 days after arrears began (1.1.2); warns 4 hours before"
    assert told[at + 2].startswith("      (p@1: suspends compute and download 24 hours after")
    assert told[at + 3 :] == ["~ an account that has chosen none has q instead of p"]


def test_what_is_left_out_is_told() -> None:
    assert list(changes(policies(OLD), known(OLD, OTHER))) == [
        "  p@1 stays as it is",
        "- q@1 is left out: episodes that run keep it, no other begins under it; accounts that chose q get p",
    ]
    assert list(changes(policies(NEW), known(OLD, NEW)))[1] == (
        "- p@1 is left out: episodes that run keep it, no other begins under it"
    )


def test_the_same_under_another_version_is_told() -> None:
    again = OLD | {"version": "2", "effective_from": IN_30_DAYS}
    assert "    and does what p@1 does" in list(changes(policies(OLD, again), known(OLD)))


@pytest.mark.parametrize(("numbers", "told"), [([3], "3"), ([0, 1, 2, 5, 7, 8], "0-2, 5, 7-8"), ([], "")])
def test_partitions_in_few_words(numbers: list[int], told: str) -> None:
    assert same(numbers) == told
