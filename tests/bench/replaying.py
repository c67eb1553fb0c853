"""A replay, from files to commands: what `arrears replay` does, without the start of a process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from models.policy import BUILT_IN
from streams.files import read_inputs
from streams.outcome import PartReplay, Progress, Wanted
from streams.writers import Output, Outputs
from tests.bench.measuring import Sample, Stopwatch, rate, without_collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.bench.inputs import Files
    from tests.bench.measuring import Bench


class _Stages(Progress):
    """When the last line was decoded, and when all were in order."""

    def __init__(self) -> None:
        self.decoded_at = self.sorted_at = 0.0

    def read(self, size: int) -> None:  # noqa: ARG002
        self.decoded_at = time.process_time()

    def replaying(self, count: int) -> None:  # noqa: ARG002
        self.sorted_at = time.process_time()


class _TimedOutput(Output):
    """Knows how long writing took."""

    def __init__(self, option: str, path: str) -> None:
        super().__init__(option, path)
        self.watch = Stopwatch()

    def write_all(self, values: Iterable[object]) -> None:
        if values:  # most instants have no command, and looking at the clock takes time, too
            with self.watch.running():
                super().write_all(values)

    def finish(self) -> None:
        with self.watch.running():
            super().finish()


def measure_replay(bench: Bench) -> Iterator[list[Sample]]:
    """Records a second, and where the time goes."""
    for _ in range(bench.repeat):
        yield replay_samples(bench.even, bench.folder / "commands.jsonl")


def replay_samples(files: Files, commands: Path) -> list[Sample]:
    """One replay, stage by stage."""
    stages = _Stages()
    with without_collector(), _TimedOutput("--commands", str(commands)) as output:
        started_at = time.process_time()
        inputs = read_inputs(files.paths())
        read_at = time.process_time()
        tally = PartReplay(inputs, Wanted(BUILT_IN, "arrears"), stages).run(Outputs(commands=output))
        ended_at = time.process_time()
    assert tally.read.total() == files.records
    assert tally.bad_lines == 0
    assert tally.commands
    written = output.watch.seconds
    count = files.records
    return [
        rate("from file to commands", count, ended_at - started_at),
        rate("… reading", count, read_at - started_at),
        rate("… decoding", count, stages.decoded_at - read_at),
        rate("… sorting", count, stages.sorted_at - stages.decoded_at),
        rate("… applying, deciding", count, ended_at - stages.sorted_at - written),
        rate("… writing", count, written),
        Sample("commands", tally.commands.total() / count * 1000, "per 1,000 records"),
    ]
