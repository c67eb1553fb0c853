"""What there is to measure, by the name that `--only` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.bench.large import measure_bills, measure_unbilled_usage, measure_usage
from tests.bench.replaying import measure_replay
from tests.bench.skew import measure_live_skew, measure_skew
from tests.bench.steps import measure_apply, measure_decode
from tests.bench.stored import measure_bare_stored, measure_few_stored, measure_moved_stored, measure_stored

if TYPE_CHECKING:
    from tests.bench.measuring import Measure

#: What a run in a hurry takes: decoding, applying, deciding, a replay, and the live way.
QUICK: Final = ("replay", "decode", "apply", "stored-few")

MEASURES: Final[dict[str, Measure]] = {
    "replay": measure_replay,
    "decode": measure_decode,
    "apply": measure_apply,
    "stored": measure_stored,
    "stored-bare": measure_bare_stored,
    "stored-few": measure_few_stored,
    "stored-moved": measure_moved_stored,
    "usage": measure_usage,
    "usage-unbilled": measure_unbilled_usage,
    "bills": measure_bills,
    "skew": measure_skew,
    "skew-live": measure_live_skew,
}
