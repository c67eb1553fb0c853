"""Everybody in turn on one broker: the inputs worked off, and then the state recovered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from streams.local_kafka import LocalKafka, free_port
from streams.local_kafka.broker import cache_dir
from tests.bench.peers import others, ours, topics
from tests.bench.telling import tell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.bench.peers.others import Peer
    from tests.bench.peers.report import Report

#: Those that start at once are in the first generation of a group: nobody begins with what is another's.
JOIN_TOGETHER: Final = {"group.initial.rebalance.delay.ms": "3000"}


class _Ours(NamedTuple):
    processes: int
    policy: str | None


#: Ours, by what `--only` calls it: processes, and the job (the full rule, or the same outputs as the peers).
OURS: Final = {
    "ours-1": _Ours(1, None),
    "ours-2": _Ours(2, None),
    "same-1": _Ours(1, ours.SAME_OUTPUTS),
    "same-2": _Ours(2, ours.SAME_OUTPUTS),
}
_GET: Final = {"kafka-streams": others.kafka_streams, "quix": others.quix}
#: All there are, in the order in which they run.
WHO: Final = (*OURS, *_GET)


class Plan(NamedTuple):
    """What is to be run."""

    records: int
    accounts: int
    #: How often each runs.
    repeat: int = 1
    who: Sequence[str] = WHO
    #: Where py-spy writes the stacks of one more run of ours.
    profile: Path | None = None


def peers(who: Sequence[str]) -> list[Peer]:
    """Those of the peers that can be had; for the others a word."""
    cache = cache_dir() / "bench-peers"
    cache.mkdir(parents=True, exist_ok=True)
    found: list[Peer] = []
    for name in (name for name in _GET if name in who):
        tell(f"getting {name} ready")
        try:
            found += _GET[name](cache)
        except others.Missing as error:
            tell(str(error))
    return found


async def measure(plan: Plan, folder: Path, report: Report) -> None:
    """Run them; the report takes in each run as it ends. Raises Failed, Unusable."""
    found = peers(plan.who)
    port = free_port()
    broker = LocalKafka(port, folder / "kafka", properties=JOIN_TOGETHER)
    kafka = {"bootstrap_servers": broker.address}
    groups: dict[str, str] = {}
    broker.start()
    try:
        tell(f"loading {plan.records:,} records of {plan.accounts:,} accounts")
        await topics.load(kafka, plan.records, plan.accounts)
        ends = await topics.ends(kafka)
        app_id: str | None = None
        for turn in range(plan.repeat):
            for name in (name for name in OURS if name in plan.who):
                processes, policy = OURS[name]
                app_id = f"bench-{turn}-{name}"
                tell(f"ours, {processes} worker{'s' * (processes > 1)}{', same outputs' * (policy is not None)}")
                run = await ours.run(kafka, folder, app_id, processes, ends, policy=policy)
                report.add(run if policy is None else run._replace(name=f"{run.name}, same outputs"))
            for number, peer in enumerate(found):
                groups[peer.name] = f"peer-{turn}-{number}"
                tell(peer.name)
                report.add(await others.run(kafka, folder, peer, groups[peer.name], ends))
        if plan.profile is not None:
            tell("ours once more, profiled")
            await ours.run(kafka, folder, "bench-profiled", 1, ends, profile=plan.profile)
        broker.stop()
        broker = LocalKafka(port, folder / "kafka")  # a worker that comes back alone waits for nobody
        broker.start()
        await _recover(kafka, folder, plan.repeat, app_id, {peer: groups[peer.name] for peer in found}, report)
    finally:
        broker.stop()


async def _recover(
    kafka: Mapping[str, str],
    folder: Path,
    repeat: int,
    app_id: str | None,
    groups: Mapping[Peer, str],
    report: Report,
) -> None:
    tell("recovery")
    for _ in range(repeat):
        if app_id is not None:
            report.recoveries.append(await ours.recover(kafka, folder, app_id))
        for peer, group in groups.items():
            if peer.name.startswith(others.KAFKA_STREAMS):
                report.recoveries.append(await others.recover(kafka, folder, peer, group))
