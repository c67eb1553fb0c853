"""A worker that starts with nothing but what is in Kafka: until it works; and Kafka Streams, on the same records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.instants import DAY, HOUR
from tests.bench.peers import others, ours, topics
from tests.bench.peers.running import peers
from tests.bench.scenes.figures import Figure
from tests.bench.scenes.stage import APP, ahead, bills, stage
from tests.bench.telling import tell

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.sizes import Sizes


async def measure(folder: Path, sizes: Sizes) -> list[Figure]:
    """One bill of each account, worked off, and then recovered."""
    count = sizes.recovered
    async with stage(folder, topics.PARTITIONS) as here:
        await here.send(bills(count, ahead(0) - 20 * HOUR, DAY // 2, "owes"))
        ends = await topics.ends(here.kafka)
        await ours.run(here.kafka, folder, APP, 1, ends)
        found = await ours.recover(here.kafka, folder, APP)
        figures = [Figure("recovery", f"recovery of {found.accounts:,} accounts", found.seconds, "s")]
        # Of its settings the one that has the shorter way to go: what is recovered is the same.
        for peer in peers(["kafka-streams"])[:1]:
            tell(f"… {peer.name}")
            await others.run(here.kafka, folder, peer, "peer", ends)
            theirs = await others.recover(here.kafka, folder, peer, "peer")
            figures.append(Figure("recovery-peer", f"… {theirs.name}", theirs.seconds, "s"))
            figures.append(Figure("recovery-ratio", "… times as fast as it", theirs.seconds / found.seconds, "×"))
    return figures
