"""`python -m tests.bench.peers [--records N] [--repeat N] [--only WHO] [--json FILE] [--profile FILE]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from streams.faults import Unusable
from streams.local_kafka import LocalKafka, free_port
from streams.local_kafka.broker import cache_dir
from tests.bench import peers
from tests.bench.peers import others, ours, topics
from tests.bench.peers.report import Report
from tests.bench.peers.watching import Failed

if TYPE_CHECKING:
    from tests.bench.peers.others import Peer

#: Those that start at once are in the first generation of a group: nobody begins with what is another's.
_JOIN_TOGETHER: Final = {"group.initial.rebalance.delay.ms": "3000"}
_WHO: Final = ("ours-1", "ours-2", "kafka-streams", "quix")
_RECORDS_AN_ACCOUNT: Final = 10


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=peers.__doc__, allow_abbrev=False)
    parser.add_argument("--records", type=int, default=300_000, metavar="N", help="bills and payments (300000)")
    parser.add_argument("--accounts", type=int, metavar="N", help="accounts that have them (a tenth of the records)")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="how often each runs, in turn (1)")
    parser.add_argument("--only", action="append", choices=_WHO, help="run this; may be given several times")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all runs there")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="py-spy's raw stacks of one more run of ours")
    options = parser.parse_args()
    if options.records < topics.PARTITIONS * _RECORDS_AN_ACCOUNT or options.repeat < 1:
        parser.error("--records has to be 40 or more, --repeat 1 or more")
    options.accounts = options.accounts or options.records // _RECORDS_AN_ACCOUNT
    for name in ("json", "profile"):
        given = getattr(options, name)
        if given is not None and not given.absolute().parent.is_dir():
            parser.error(f"--{name}: there is no folder for {given}")
    return options


def _peers(wanted: list[str]) -> list[Peer]:
    """Those that can be had."""
    cache = cache_dir() / "bench-peers"
    cache.mkdir(parents=True, exist_ok=True)
    found: list[Peer] = []
    for name, get in (("kafka-streams", others.kafka_streams), ("quix", others.quix)):
        if name in wanted:
            _tell(f"getting {name} ready")
            try:
                found += get(cache)
            except others.Missing as error:
                _tell(str(error))
    return found


async def _measure(options: argparse.Namespace, folder: Path, report: Report) -> None:
    wanted = options.only or list(_WHO)
    found = _peers(wanted)
    port = free_port()
    broker = LocalKafka(port, folder / "kafka", properties=_JOIN_TOGETHER)
    kafka = {"bootstrap_servers": broker.address}
    groups: dict[str, str] = {}
    app_id: str | None = None
    broker.start()
    try:
        _tell(f"loading {options.records:,} records of {options.accounts:,} accounts")
        await topics.load(kafka, options.records, options.accounts)
        ends = await topics.ends(kafka)
        for turn in range(options.repeat):
            for processes in (number for number in (1, 2) if f"ours-{number}" in wanted):
                app_id = f"bench-{turn}-{processes}"
                _tell(f"ours, {processes} worker{'s' * (processes > 1)}")
                report.add(await ours.run(kafka, folder, app_id, processes, ends))
            for number, peer in enumerate(found):
                groups[peer.name] = f"peer-{turn}-{number}"
                _tell(peer.name)
                report.add(await others.run(kafka, folder, peer, groups[peer.name], ends))
        if options.profile is not None:
            _tell("ours once more, profiled")
            await ours.run(kafka, folder, "bench-profiled", 1, ends, options.profile)
        broker.stop()
        broker = LocalKafka(port, folder / "kafka")  # a worker that comes back alone waits for nobody
        broker.start()
        _tell("recovery")
        for _ in range(options.repeat):
            if app_id is not None:
                report.recoveries.append(await ours.recover(kafka, folder, app_id))
            for peer in found:
                if peer.name.startswith("Kafka Streams"):
                    report.recoveries.append(await others.recover(kafka, folder, peer, groups[peer.name]))
    finally:
        broker.stop()


def main() -> int:
    """Measure, and tell; 1 if somebody did not get to the end."""
    options = _options()
    report = Report(options.records, options.accounts, defaultdict(list))
    try:
        with tempfile.TemporaryDirectory(prefix="arrears-bench-live-") as folder:
            asyncio.run(_measure(options, Path(folder), report))
    except (Failed, Unusable) as error:
        _tell(f"failed: {error}")
        return 1
    finally:
        report.show()
        if options.json is not None:
            options.json.write_text(json.dumps(report.as_json(), indent=1) + "\n", encoding="utf-8")
    return 0


def _tell(what: str) -> None:
    print(f"bench: {what}", file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
