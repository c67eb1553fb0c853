"""`make observe`: each query of each dashboard with its live value; fails if one is empty or refused.

Broker, two workers, Prometheus and Alertmanager run on this machine for a minute or two, with records flowing in.
"""

from __future__ import annotations

import math
import sys
import time

from tests.operate.prometheus import Missing, Watch, wait
from tests.operate.stage import Stage, ending_well

#: Accounts are suspended, restored and deleted by then.
_WITHIN_S = 120.0
#: So that what is counted now and then is counted with something to count.
_AT_LEAST_S = 60.0


def main() -> int:
    """Show it all; 1 if a panel has nothing to show."""
    print("starting a broker, two workers, Prometheus and Alertmanager; records flow in for about a minute …")
    with Stage() as stage:
        time.sleep(_AT_LEAST_S)
        try:
            wait(lambda: not any(answer.is_empty for answer in stage.watch.dashboards()), _WITHIN_S)
        except TimeoutError:
            print("not every panel has come to show something; what the workers say:")
            for name in stage.workers:
                print(stage.log(name)[-2000:])
        return show(stage.watch)


def show(watch: Watch) -> int:
    """Print every query with its values."""
    empty, heading = [], ("", "")
    for answer in watch.dashboards():
        if heading != (answer.dashboard, answer.panel):
            if heading[0] != answer.dashboard:
                print(f"\n{answer.dashboard}\n{'=' * len(answer.dashboard)}")
            heading = (answer.dashboard, answer.panel)
            print(f"\n{answer.panel}")
        print(f"  {' '.join(answer.expr.split())}")
        for line, value in sorted(answer.values.items()):
            if math.isfinite(value):
                print(f"    {line:<45} {value:>16,.6g}")
        if answer.is_empty:
            empty.append(answer)
            print("    NOTHING")
    asked = len(watch.dashboards())
    print(f"\n{asked - len(empty)} queries have values, {len(empty)} have none")
    return 1 if empty else 0


if __name__ == "__main__":
    ending_well()
    try:
        sys.exit(main())
    except Missing as error:
        sys.exit(f"make observe: {error}")
