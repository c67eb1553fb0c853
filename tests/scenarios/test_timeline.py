"""The tables are read strictly, and a table that is not met is told: else the scenarios would prove nothing."""

from __future__ import annotations

import pytest

from . import runs, timeline, times

QUOTE = "> R1 1.1: `arrears_since` is that instant."
HEAD = f"# A file\n\n## A scenario\n\n{QUOTE}\n\n| time | what happens | what follows |\n|---|---|---|\n"


def rows(*lines: str) -> str:
    return HEAD + "\n".join(lines)


def differences(*lines: str) -> list[str]:
    (scenario,) = timeline.read("file.md", rows(*lines))
    found = runs.differences(scenario, runs.the_replay)
    assert bool(found) == bool(runs.differences(scenario, runs.the_slow_model))
    return found


def test_a_table_that_is_met() -> None:
    assert (
        differences("| 0h | bill b1 5 | told arrears_started deadline 24h |", "| end 1h | | account: in_arrears |")
        == []
    )


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (("| 0h | bill b1 5 | nothing |", "| end 1h | | nothing |"), "this is not in the table: arrears_started"),
        (("| 0h | top-up p1 5 | told arrears_started |", "| end 1h | | nothing |"), "this did not come"),
        (
            ("| 0h | bill b1 5 | told arrears_started |", "| end 21h | | nothing |"),
            "not in the table: suspension_ahead",
        ),
        (("| 0h | bill b1 5 | told arrears_started owed 4 |", "| end 1h | | nothing |"), "owed is '5', not '4'"),
        (("| 0h | bill b1 5 | told arrears_started no deadline |", "| end 1h | | nothing |"), "not None"),
        (
            ("| 0h | bill b1 5 | told arrears_started; told arrears_started |", "| end 1h | | nothing |"),
            "this did not come",
        ),
        (("| 0h | bill b1 5 | told arrears_started |", "| end 1h | | account: current |"), "status is 'in_arrears'"),
        (("| 0h | top-up p1 5 | account: balance 4 |", "| end 1h | | nothing |"), "balance is '5', not '4'"),
        (("| 0h | top-up p1 5 | nothing |", "| end 1h | | bob account: current |"), "is not there"),
        (("| 0h | top-up p1 5 | nothing |", "| end 1h | | account: none |"), "is there"),
        (("| 0h | top-up p1 -5 | nothing |", "| end 1h | | nothing |"), "this was refused: invalid amount"),
        (("| 0h | top-up p1 5 | refused conflict |", "| end 1h | | nothing |"), "this was not refused"),
        (("| 0h | top-up p1 -5 | refused conflict |", "| end 1h | | nothing |"), "refused as invalid amount"),
        (("| 0h | top-up p1 -5 | refused invalid kind |", "| end 1h | | nothing |"), "refused as invalid amount"),
        (("| 0h | bill b1 5 | bob: told arrears_started |", "| end 1h | | nothing |"), "this did not come"),
    ],
)
def test_a_table_that_is_not_met_is_told(lines: tuple[str, ...], told: str) -> None:
    assert any(told in line for line in differences(*lines))


def test_the_order_of_notices_is_told() -> None:
    table = (
        "| 0h | bill b1 5 | told arrears_started |",
        "| 1h | hold until 400h | nothing |",
        "| 400h | | suspend; told deletion_ahead; told suspended |",
        "| end 401h | | nothing |",
    )
    (scenario,) = timeline.read("file.md", rows(*table))
    assert any("the order is" in line for line in runs.differences(scenario, runs.the_replay))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no title",
        "# A file without a scenario",
        "# A file\n\n## No quote\n\n| time | what happens | what follows |\n|---|---|---|\n| end 1h | | nothing |",
        "# A file\n\n## No table\n\n> R1 1.1: `arrears_since` is that instant.",
        rows("| 0h | bill b1 5 | told arrears_started |"),  # no end
        rows("| end 1h | | |"),
        rows("| end 1h | | nothing | more |"),
        rows("| 2h | | nothing |", "| 1h | | nothing |", "| end 3h | | nothing |"),
        rows("| 0h | bil b1 5 | nothing |", "| end 1h | | nothing |"),
        rows("| 0h | bill b1 | nothing |", "| end 1h | | nothing |"),
        rows("| 0h | bill b1 5 soon | nothing |", "| end 1h | | nothing |"),
        rows("| 0h | hold until | nothing |", "| end 1h | | nothing |"),
        rows("| 0h | policies unheard_of | nothing |", "| end 1h | | nothing |"),
        rows("| 0h | again unheard_of | nothing |", "| end 1h | | nothing |"),
        rows("| 0h | bill b1 5 | told arrears_begun |", "| end 1h | | nothing |"),
        rows("| 0h | bill b1 5 | told arrears_started owes 5 |", "| end 1h | | nothing |"),
        rows("| 0h | bill b1 5 | told arrears_started owed five |", "| end 1h | | nothing |"),
        rows("| 0h | bill b1 5 | told arrears_started owed 5 owed 5 |", "| end 1h | | nothing |"),
        rows("| 0h | bill b1 5 | terminate |", "| end 1h | | nothing |"),
        rows("| 0h | bill b1 5 | |", "| end 1h | | nothing |"),
        rows("| 0h | bill b1 5; bill b2 5 | refused invalid |", "| end 1h | | nothing |"),
        rows("| 0h | bill b1 5 | left out |", "| end 1h | | nothing |"),
        rows("| end 1h | | nothing |", "| 2h | bill b1 5 | nothing |"),
        rows("| 1 hour | | nothing |", "| end 2h | | nothing |"),
        rows("| end 1h | | account: rich |"),
        HEAD.replace("> R1", "policy: unheard_of\n> R1") + "| end 1h | | nothing |",
        HEAD.replace("> R1", "policies: quiet\n> R1") + "| end 1h | | nothing |",
    ],
)
def test_a_slip_of_the_pen_is_an_error(text: str) -> None:
    with pytest.raises(timeline.NotATimeline, match=r"^file\.md:\d+: "):
        timeline.read("file.md", text)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("0h", "2026-01-01T00:00:00Z"),
        ("24h", "2026-01-02T00:00:00Z"),
        ("15d", "2026-01-16T00:00:00Z"),
        ("360h - 1us", "2026-01-15T23:59:59.999999Z"),
        ("-1h + 30m", "2025-12-31T23:30:00Z"),
        ("1s + 500000us", "2026-01-01T00:00:01.5Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_times(text: str, instant: str) -> None:
    assert times.instant(text) == instant
    assert times.written(times.position(text)) == instant


@pytest.mark.parametrize("text", ["", "24", "24 h", "h", "1h 30m", "1h+30m", "soon", "2026-01-01T00:00:00+01:00"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="write one like"):
        times.position(text)
