"""The figures as a person reads them, and as a program does."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from tests.bench.tables import number

if TYPE_CHECKING:
    from tests.bench.measuring import Bench, Sample


@dataclass(frozen=True)
class Figure:
    """The median of some samples of one name."""

    measure: str
    samples: list[Sample]

    @property
    def name(self) -> str:
        """What was measured."""
        return self.samples[0].name

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(sample.value for sample in self.samples)

    @property
    def unit(self) -> str:
        """Of the value."""
        return self.samples[0].unit

    def times(self, seconds: float) -> float | None:
        """How many times `seconds` it took; None if no time was measured."""
        taken = [sample.seconds for sample in self.samples if sample.seconds is not None]
        return statistics.median(taken) / seconds if taken and seconds else None


@dataclass
class Report:
    """One run."""

    bench: Bench
    figures: list[Figure] = field(default_factory=list)
    #: Seconds of one step of the yardstick, each time that it was tried.
    steps: list[float] = field(default_factory=list)
    #: Seconds a record of json+dict, likewise.
    peers: list[float] = field(default_factory=list)

    def add(self, measure: str, repetitions: list[list[Sample]]) -> None:
        """Take in what a measure has yielded."""
        self.figures += [Figure(measure, list(samples)) for samples in zip(*repetitions, strict=True)]

    @property
    def step(self) -> float:
        """Seconds of a step of the yardstick."""
        return statistics.median(self.steps)

    @property
    def peer(self) -> float:
        """Seconds a record of json+dict; 0 if it was not tried."""
        return statistics.median(self.peers) if self.peers else 0.0

    def lines(self) -> list[tuple[str, str, str, str, str, str]]:
        """Measure, name, value, unit, times a step, times json+dict."""
        found = []
        for figure in self.figures:
            of_record = figure.samples[0].of_record
            ratios = figure.times(self.step), figure.times(self.peer) if of_record else None
            told = ["" if ratio is None else number(ratio) for ratio in ratios]
            found.append((figure.measure, figure.name, number(figure.value), figure.unit, told[0], told[1]))
        return found

    def heads(self) -> list[str]:
        """What was run on what, and what the ratios are to."""
        spread = f"{min(self.steps) * 1e9:.1f} to {max(self.steps) * 1e9:.1f}"
        python = f"Python {platform.python_version()} on {os.cpu_count()} CPUs, {platform.machine()}"
        found = [
            f"{python}; processor times, medians of {self.bench.repeat}, garbage collector off",
            f"yardstick: {self.step * 1e9:.1f} ns a step ({spread}) of a plain loop that updates a dict",
        ]
        if self.peers:
            found.append(f"json+dict: {self.peer * 1e6:.2f} µs a record, {1 / self.peer:,.0f} records/s")
        return found

    def show(self) -> None:
        """A table on a terminal, else a line for each figure."""
        if not sys.stdout.isatty():
            print(*self.heads(), sep="\n")  # noqa: T201
            for measure, name, value, unit, steps, peers in self.lines():
                ratios = f" = {steps} steps" * bool(steps) + f" = {peers} x json+dict" * bool(peers)
                print(f"{measure}: {name}: {value} {unit}{ratios}")  # noqa: T201
            return
        table = Table(caption="\n".join(self.heads()), caption_justify="left")
        for column in ("measure", "what"):
            table.add_column(column)
        table.add_column("median", justify="right")
        table.add_column("")
        table.add_column("steps", justify="right")
        table.add_column("× json+dict", justify="right")
        before = ""
        for measure, *rest in self.lines():
            if before not in ("", measure):
                table.add_section()
            table.add_row("" if measure == before else measure, *rest)
            before = measure
        Console().print(table)

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "repeat": self.bench.repeat,
            "yardstick_step_s": self.steps,
            "json_and_dict_record_s": self.peers,
            "figures": [
                {
                    "measure": figure.measure,
                    "name": figure.name,
                    "median": figure.value,
                    "unit": figure.unit,
                    "samples": [sample.value for sample in figure.samples],
                    "steps": figure.times(self.step),
                    "json_and_dict": figure.times(self.peer) if figure.samples[0].of_record else None,
                }
                for figure in self.figures
            ],
        }
