"""1 % of the accounts with half of the traffic, against all accounts alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.bench.inputs import write_files
from tests.bench.live import LivePartition
from tests.bench.measuring import without_collector
from tests.bench.replaying import replay_samples
from tests.bench.steps import batches, records_of
from tests.bench.stored import live_samples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.measuring import Bench, Sample

#: The live way takes longer: a part of the records and as small a part of the accounts will do.
_PART: Final = 4


def measure_skew(bench: Bench) -> Iterator[list[Sample]]:
    """Replays of both."""
    for _ in range(bench.repeat):
        found = []
        for files, how in ((bench.even, "even"), (bench.skewed, "skewed")):
            whole = replay_samples(files, bench.folder / "commands.jsonl")[0]
            found.append(whole._replace(name=f"from file to commands, {how} load"))
        yield found


def measure_live_skew(bench: Bench) -> Iterator[list[Sample]]:
    """Commits of 1,000 records of both."""
    records, accounts = bench.sizes.records // _PART, bench.sizes.accounts // _PART
    loads = []
    for skewed, how in ((False, "even"), (True, "skewed")):
        files = write_files(bench.folder / f"live-{how}", records, accounts, skewed=skewed)
        loads.append((records_of(files), how))
    for _ in range(bench.repeat):
        found: list[Sample] = []
        for load, how in loads:
            partition = LivePartition()
            with without_collector():
                for batch in batches(load):
                    partition.take(batch)
            samples = live_samples(partition, f"live, {how} load")
            found += (
                sample._replace(name=f"{sample.name}{'' if not number else f', {how}'}")
                for number, sample in enumerate(samples)
            )
        yield found
