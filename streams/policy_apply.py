"""`arrears policy apply` and `policy show`: policies to every partition, and what the partitions hold (contract §3)."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rich.text import Text

from models.contract import EVERYONE
from models.instants import format_instant
from models.policy import Policies, PolicyError, load_policies, to_json
from models.records import Control, decode
from models.refusal import Refusal
from streams import telling
from streams.asking import ask
from streams.brokers import Complaints, in_one_line, look_at, one_number
from streams.control import checked, encoded, now, tell_sent, user
from streams.faults import Unusable
from streams.files import shown_path
from streams.held import Held, read_held, same
from streams.kafka_client import kafka_client_options
from streams.policy_change import changes, check, gather, is_change
from streams.reading import Reader
from streams.sending import send_to_all
from streams.showing import show
from streams.topic_design import AppTopics
from streams.writers import write_one

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rich.console import RenderableType

    from models.everybody import PoliciesFrom
    from models.instants import Instant
    from streams.fetched import Record
    from streams.policy_change import Known
    from streams.settings import Settings

_CONTROLS: Final = "controls"


class Applied(NamedTuple):
    """What was typed."""

    file: str
    reason: str | None
    actor: str | None
    without_notice: bool


class _Sent(NamedTuple):
    """A `policies` control in the controls."""

    event_id: str
    at: Instant
    policies: Policies
    #: Where it was found: partition, offset.
    places: dict[int, int]


# Apply ----------------------------------------------------------------------------------------------------------------


def apply_policies(settings: Settings, given: Applied, *, yes: bool, as_json: bool) -> None:
    """`arrears policy apply`. Raises `Unusable`."""
    try:
        policies = load_policies(given.file)
    except PolicyError as error:
        raise Unusable(str(error)) from None
    kafka = kafka_client_options(settings)
    at = now(settings)
    known = asyncio.run(_known(kafka, settings.app_id, at))
    check(policies, known, at, without_notice=given.without_notice)
    name = shown_path(given.file)
    if not is_change(policies, known):
        if as_json:
            write_one({"record": None, "sent": []})
        else:
            show(f"Nothing to do: every partition holds what stands in {name}, or is about to.")
        return
    fields: dict[str, object] = {
        "event_id": str(uuid.uuid4()),
        "account_id": EVERYONE,
        "kind": "policies",
        "actor": user() if given.actor is None else given.actor,
        "reason": f"arrears policy apply {name}" if given.reason is None else given.reason,
        "at": format_instant(at),
        "policies": to_json(policies),
    }
    checked(fields)
    if not yes:
        told = "\n".join(changes(policies, known))
        ask(f"{name} changes the policies of every partition:\n{told}", "Put them in force?")
    elif not as_json:
        show(f"{name} changes the policies of every partition:", *changes(policies, known))
    sent = asyncio.run(send_to_all(kafka, _CONTROLS, EVERYONE.encode(), encoded(fields), settings.app_id))
    tell_sent(fields, sent, as_json=as_json)


async def _known(kafka: Mapping[str, Any], app_id: str, at: Instant) -> Known:
    held, sent = await _read(kafka, app_id)
    by_partition = {
        number: None if one.everybody is None else (one.everybody.versions, one.everybody.policies_at(at))
        for number, one in held.items()
    }
    told = [(_where(control), control.policies, _is_waiting(control, held)) for control in sent]
    return gather(by_partition, told)


def _where(control: _Sent) -> str:
    number, offset = next(iter(control.places.items()))
    return f"{_CONTROLS}, partition {number}, offset {offset}"


def _is_waiting(control: _Sent, held: Mapping[int, Held]) -> bool:
    """Whether some partition has it before it. Where no worker has ever been it waits, for it will be read."""
    return any(offset >= held[number].positions.get(_CONTROLS, 0) for number, offset in control.places.items())


async def _read(kafka: Mapping[str, Any], app_id: str) -> tuple[dict[int, Held], list[_Sent]]:
    """What the partitions hold, and every control that puts policies in force, the oldest first."""
    state = AppTopics.of(app_id).state
    with Complaints():
        partitions = one_number(await look_at(kafka, [state, _CONTROLS]), kafka)
        async with Reader(kafka) as reader:
            with in_one_line(kafka):
                held = await read_held(reader, state, partitions)
                first = await reader.earliest([(_CONTROLS, number) for number in range(partitions)])
                sent: dict[str, _Sent] = {}
                async for (_, number), records in reader.until_now(first):
                    for control, offset in _policy_controls(records):
                        assert control.policies is not None  # its kind has them
                        found = _Sent(control.event_id, control.at, Policies(control.policies), {})
                        sent.setdefault(control.event_id, found).places.setdefault(number, offset)
    return held, sorted(sent.values(), key=lambda one: (one.at, one.event_id))


def _policy_controls(records: Iterable[Record]) -> Iterator[tuple[Control, int]]:
    for record in records:
        if record.value is not None and b"policies" in record.value:
            try:
                control = decode(_CONTROLS, record.value)
            except Refusal:
                continue
            if isinstance(control, Control) and control.kind == "policies":
                yield control, record.offset


# Show -----------------------------------------------------------------------------------------------------------------


def show_policies(settings: Settings, *, as_json: bool) -> None:
    """`arrears policy show`. Raises `Unusable`."""
    kafka = kafka_client_options(settings)
    at = now(settings)
    held, sent = asyncio.run(_read(kafka, settings.app_id))
    if as_json:
        partitions = [_as_json(number, one, at) for number, one in held.items()]
        write_one({"as_of": format_instant(at), "partitions": partitions})
        return
    show(*_shown(held, sent, at))


def _as_json(number: int, held: Held, at: Instant) -> dict[str, object]:
    if held.everybody is None:
        return {"partition": number, "in_force": None, "default": None, "versions": [], "changes": []}
    in_force = held.everybody.policies_at(at)
    return {
        "partition": number,
        "in_force": to_json(in_force),
        "default": in_force.first_name,
        "versions": [{"label": one.label, "policy_hash": one.policy_hash} for one in held.everybody.versions],
        "changes": [_change(one) for one in held.everybody.in_force if one.event_id],
    }


def _change(one: PoliciesFrom) -> dict[str, object]:
    policies = [policy.label for policy in one.policies.versions]
    return {"at": format_instant(one.at), "event_id": one.event_id, "policies": policies}


def _shown(held: Mapping[int, Held], sent: Iterable[_Sent], at: Instant) -> Iterator[RenderableType]:
    groups: list[tuple[Policies | None, list[int]]] = []
    for number, one in held.items():
        policies = None if one.everybody is None else one.everybody.policies_at(at)
        for known, numbers in groups:
            if known == policies:
                numbers.append(number)
                break
        else:
            groups.append((policies, [number]))
    for policies, numbers in groups:
        whose = f"{'Partition' if len(numbers) == 1 else 'Partitions'} {same(numbers)}"
        if policies is None:
            yield Text(f"{whose}: nothing yet, no worker has been there.", style="bold")
            continue
        yield Text(f"{whose}: an account has {policies.first_name} unless a control chooses another.", style="bold")
        for policy in policies.versions:
            yield ""
            since = telling.when(policy.effective_from)
            yield Text(f"{policy.label}, for episodes that begin at {since} UTC or later", style="bold")
            for line in telling.policy_sentences(policy):
                yield Text(f"- {line}")
            yield f"- policy_hash {policy.policy_hash}"
        yield ""
    for control in sent:
        waiting = [n for n, offset in control.places.items() if offset >= held[n].positions.get(_CONTROLS, 0)]
        if waiting:
            labels = telling.listed(policy.label for policy in control.policies.versions)
            yield f"Sent at {telling.when(control.at)} UTC and not taken in yet by partition {same(waiting)}: {labels}."
