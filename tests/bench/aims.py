"""What the project wants to be able to do, each aim beside where a run tells how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.kept import Run


class Aim(NamedTuple):
    """`find` looks in a run for what was measured; it returns None if that was not."""

    what: str
    bound: float
    unit: str
    find: Callable[[Run], float | None]
    #: Else at least.
    at_most: bool = True

    def told(self) -> str:
        """The aim in words."""
        return f"at {'most' if self.at_most else 'least'} {self.bound:,g} {self.unit}"

    def is_met_by(self, value: float) -> bool:
        """Whether this is good enough."""
        return value <= self.bound if self.at_most else value >= self.bound


def _live(key: str) -> Callable[[Run], float | None]:
    def find(run: Run) -> float | None:
        return next((figure["value"] for figure in run.get("live", []) if figure["key"] == key), None)

    return find


def _domain(run: Run, measure: str, begins: str) -> float | None:
    figures: list[dict[str, Any]] = run.get("domain", {}).get("figures", [])
    found = (one["median"] for one in figures if one["measure"] == measure and one["name"].startswith(begins))
    return next(found, None)


def _against(peer: str, ours: str) -> Callable[[Run], float | None]:
    """How many times as fast as a peer at its best setting."""

    def find(run: Run) -> float | None:
        ratios: dict[str, dict[str, float]] = run.get("peers", {}).get("ratios", {})
        found = [mine[ours] for name, mine in ratios.items() if name.startswith(peer) and ours in mine]
        return min(found, default=None)

    return find


def _memory(run: Run) -> float | None:
    return _domain(run, "stored-moved", "memory of an account")


def _cost_of_size(run: Run) -> float | None:
    many, few = (_domain(run, measure, "all of it") for measure in ("stored", "stored-few"))
    return None if many is None or few is None else many / few


AIMS: Final = (
    Aim("one process, full rule, beside Kafka Streams", 1.5, "×", _against("Kafka Streams", "ours, 1 process"), False),
    Aim(
        "two processes, full rule, beside Kafka Streams", 3, "×", _against("Kafka Streams", "ours, 2 processes"), False
    ),
    Aim("one process, full rule, beside Quix Streams", 4, "×", _against("Quix", "ours, 1 process"), False),
    Aim("two processes, full rule, beside Quix Streams", 8, "×", _against("Quix", "ours, 2 processes"), False),
    Aim("recovery of 1 million accounts", 4, "s", _live("recovery")),
    Aim("… beside Kafka Streams", 1, "×", _live("recovery-ratio"), False),
    Aim("memory of an account with 20 movements", 700, "bytes", _memory),
    Aim("record to command, p99, 5,000 records/s, committed every 100 ms", 120, "ms", _live("latency-100-p99")),
    Aim("… every 20 ms", 40, "ms", _live("latency-20-p99")),
    Aim("mark to command, p99, 1 million accounts waiting", 1_000, "ms", _live("mark-p99")),
    Aim("100,000 marks in one second, drained", 50_000, "commands/s", _live("drain"), False),
    Aim("cost of a record at 1 million accounts against 10,000", 1.2, "×", _cost_of_size),
    Aim("idle worker, 32 partitions, 1 million accounts", 5, "% of a core", _live("idle")),
    Aim("replay from files", 200_000, "records/s", _live("replay-files"), False),
    Aim("replay from topics", 250_000, "records/s", _live("replay-topics"), False),
    Aim("usage of one account against that of many", 0.7, "×", _live("one-ratio"), False),
    Aim("half of the traffic on 1 % of the accounts against even load", 0.7, "×", _live("skewed-ratio"), False),
)
