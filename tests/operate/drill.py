"""`make drill`: what goes wrong at night, on this machine: which alert comes after how long, and what one sees.

Four drills, one after the other, with the alerts as they are deployed. Each begins when all is quiet, and ends when it
is so again. `python -m tests.operate.drill NAME …` stages those that are named.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.operate.prometheus import Missing, Usual, wait
from tests.operate.stage import Stage, ending_well

if TYPE_CHECKING:
    from collections.abc import Callable

#: What is expected here within a minute happens in life within hours.
SETTINGS: Final = {"ARREARS_PAYMENTS_SILENCE": "PT30S", "ARREARS_MAX_DELETES": "150"}
_CROWD: Final = 1_000

_FIRES_WITHIN_S: Final = 300.0
_QUIET_WITHIN_S: Final = 180.0
#: What the panels show when nothing is wrong is looked at so often, over so long.
_LOOKS: Final = 6
_BETWEEN_LOOKS_S: Final = 4.0
#: Until some accounts have been deleted, and what the panels show is the usual.
_BEFORE_S: Final = 30.0
#: Long enough for alerts that come together.
_LINGER_S: Final = 3.0


class Drill(NamedTuple):
    """Something that goes wrong: how, the alert that has to come of it, how it is mended."""

    name: str
    told: str
    alert: str
    begin: Callable[[Stage], None]
    mend: Callable[[Stage], None]


def _kill(stage: Stage) -> None:
    stage.kill("worker-2")


def _stop_payments(stage: Stage) -> None:
    stage.feed.pays = False


def _pay_again(stage: Stage) -> None:
    stage.feed.pays = True


def _crowd(stage: Stage) -> None:
    stage.feed.crowd = _CROWD


def _start_broker(stage: Stage) -> None:
    stage.kafka.start()


DRILLS: Final = (
    Drill("worker", "a worker is killed", "ArrearsWorkerDown", _kill, lambda stage: stage.start("worker-2")),
    Drill("payments", "the payments stop", "ArrearsPaymentsSilent", _stop_payments, _pay_again),
    Drill(
        "broker",
        "the broker is killed",
        "ArrearsBrokersAway",
        lambda stage: stage.kafka.kill(),
        _start_broker,
    ),
    Drill(
        "deletes",
        f"{_CROWD} accounts are to be deleted at once",
        "ArrearsMassDelete",
        _crowd,
        lambda stage: stage.resume(),
    ),
)


class Outcome(NamedTuple):
    """What came of a drill; None: the alert did not come, or did not go, in time."""

    drill: Drill
    fired_after_s: float | None
    mended_after_s: float | None
    also: dict[str, float]
    panels: list[str]


def stage_drill(stage: Stage, drill: Drill) -> Outcome:
    """Let it go wrong, wait for the alert, mend it, wait until all is quiet."""
    print(f"\n{drill.told} …", flush=True)
    quiet = []
    for _ in range(_LOOKS):
        quiet.append(stage.watch.dashboards())
        time.sleep(_BETWEEN_LOOKS_S)
    usual = Usual(quiet, _LOOKS * _BETWEEN_LOOKS_S)
    began = time.monotonic()
    drill.begin(stage)
    fired, seen = _wait_for(stage, drill.alert)
    panels = usual.left(stage.watch.dashboards(), time.monotonic() - began)
    drill.mend(stage)
    mended = _wait_until_quiet(stage, drill.alert)
    outcome = Outcome(drill, fired, mended, {name: at for name, at in seen.items() if name != drill.alert}, panels)
    _tell(outcome)
    return outcome


def _wait_for(stage: Stage, alert: str) -> tuple[float | None, dict[str, float]]:
    """When it came, and the others that did meanwhile, in seconds."""
    began, seen = time.monotonic(), dict[str, float]()

    def has_come() -> bool:
        for name in stage.watch.firing():
            seen.setdefault(name, time.monotonic() - began)
        return alert in seen

    try:
        wait(has_come, _FIRES_WITHIN_S)
    except TimeoutError:
        return None, seen
    time.sleep(_LINGER_S)
    has_come()
    return seen[alert], seen


def _wait_until_quiet(stage: Stage, alert: str) -> float | None:
    try:
        return wait(lambda: not _pages(stage) and alert not in stage.watch.firing(), _QUIET_WITHIN_S)
    except TimeoutError:
        return None


def _pages(stage: Stage) -> list[str]:
    """Promises are of an hour, and burn on; tickets too look back."""
    return [
        name
        for name, alerts in stage.watch.firing().items()
        if any(alert["severity"] == "page" for alert in alerts) and not name.endswith("Fast")
    ]


def _tell(outcome: Outcome) -> None:
    drill = outcome.drill
    came = "did NOT come" if outcome.fired_after_s is None else f"came after {outcome.fired_after_s:.0f} s"
    went = (
        "was NOT over"
        if outcome.mended_after_s is None
        else f"all quiet {outcome.mended_after_s:.0f} s after it was mended"
    )
    print(f"  {drill.alert} {came}; {went}")
    for name, after in sorted(outcome.also.items(), key=lambda one: one[1]):
        print(f"  also {name}, after {after:.0f} s")
    print(f"  panels that moved: {', '.join(outcome.panels) or 'none'}", flush=True)


def main(names: list[str]) -> int:
    """Stage them; 1 if an alert did not come, or nothing was to be seen."""
    chosen = [drill for drill in DRILLS if not names or drill.name in names]
    if unknown := set(names) - {drill.name for drill in DRILLS}:
        print(f"no such drill: {', '.join(sorted(unknown))}; there is {', '.join(drill.name for drill in DRILLS)}")
        return 2
    print(
        "starting a broker, two workers, Prometheus and Alertmanager; each drill takes one to four minutes", flush=True
    )
    with Stage(settings=SETTINGS) as stage:
        time.sleep(_BEFORE_S)
        outcomes = [stage_drill(stage, drill) for drill in chosen]
        good = [
            one for one in outcomes if one.fired_after_s is not None and one.mended_after_s is not None and one.panels
        ]
        if len(good) < len(outcomes):
            for name in stage.workers:
                print(f"\n{name} said:\n{stage.log(name)[-3000:]}")
    print(f"\n{len(good)} of {len(outcomes)} drills went as they should")
    return 0 if len(good) == len(outcomes) else 1


if __name__ == "__main__":
    ending_well()
    try:
        sys.exit(main(sys.argv[1:]))
    except Missing as error:
        sys.exit(f"make drill: {error}")
