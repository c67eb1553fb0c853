from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic
import pytest

from models import contract, outputs, records
from models.contract import (
    OUT,
    TOPICS,
    AccountView,
    Command,
    DeadLetter,
    HoldView,
    Notice,
    PackageView,
    UnpaidBill,
    incompatibilities,
    schema_text,
    schemas,
)

from .test_records import ACK, BILL, CONTROLS, SAMPLES

if TYPE_CHECKING:
    import msgspec

GOLDEN = Path(contract.__file__).with_name("schemas")
Schema = dict[str, Any]


# Golden schemas ---------------------------------------------------------------------------------------------------


def test_the_schemas_are_those_that_were_written_down() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(schemas())
    for topic, schema in schemas().items():
        golden = (GOLDEN / f"{topic}.json").read_text(encoding="utf-8")
        reasons = incompatibilities(json.loads(golden), schema, contract.direction_of(topic))
        assert not reasons, f"{topic}: this change breaks others"
        assert golden == schema_text(schema), f"{topic}: run python -m models.contract, and look at what it changes"


def test_there_is_a_schema_for_every_topic() -> None:
    assert tuple(schemas()) == (*TOPICS, *OUT)
    for topic, schema in schemas().items():
        assert schema["title"] == topic
        assert schema["$schema"].endswith("2020-12/schema")


#: The fields of §2, in its order.
FIELDS = {
    "payments": "event_id account_id payment_id kind amount currency paid_at",
    "usage": "event_id account_id usage_id service quantity unit cost currency started_at ended_at",
    "acks": "event_id command_id notice_id account_id subscriber status at detail",
    "BillIssued": "event_id account_id bill_id kind amount currency issued_at period_start period_end",
    "BillVoided": "event_id account_id bill_id kind amount currency issued_at period_start period_end",
    "PackagePurchased": "event_id account_id package_id kind service quantity unit at starts_at ends_at",
    "PackageCancelled": "event_id account_id package_id kind service quantity unit at starts_at ends_at",
    "Release": "event_id account_id kind actor reason at until",
    "Hold": "event_id account_id kind actor reason at until freeze_clock",
    "Opening": "event_id account_id kind actor reason at until balance currency status arrears_since sequence",
    "arrears.commands": "command_id account_id sequence action services effective_at decided_at arrears_since owed "
    "late_fee currency unpaid_bills unpaid_bills_count policy policy_hash clause reason supersedes evidence notice_id",
    "arrears.accounts": "account_id status balance owed late_fee currency credit_limit arrears_since suspend_at "
    "delete_at sequence last_command_id suspended_services unpaid_bills unpaid_bills_count unbilled packages hold "
    "policy as_of",
    "arrears.dead-letters": "topic partition offset key value truncated sha256 error field message received_at",
}


@pytest.mark.parametrize(("name", "fields"), FIELDS.items())
def test_the_fields_are_the_contracts_in_its_order(name: str, fields: str) -> None:
    made = schemas()
    every = made | {
        name: definition for schema in made.values() for name, definition in schema.get("$defs", {}).items()
    }
    assert " ".join(every[name]["properties"]) == fields


def test_a_notice_has_what_every_notice_has_first() -> None:
    properties = schemas()["arrears.notices"]["properties"]
    always = "notice_id account_id kind at owed late_fee currency arrears_since deadline command_id"
    assert " ".join(properties).startswith(always)
    assert " ".join(schemas()["arrears.notices"]["required"]) == always


# What is checked here and what the schemas say is one ------------------------------------------------------------


def patterns(schema: Schema) -> dict[str, list[str]]:
    """The patterns of each field of a record, of whatever kind."""
    found: dict[str, list[str]] = {}
    for definition in (schema, *schema.get("$defs", {}).values()):
        for field, content in definition.get("properties", {}).items():
            for branch in content.get("anyOf", [content]):
                found.setdefault(field, []).append(branch.get("pattern", ""))
    return found


@pytest.mark.parametrize(("topic", "fields"), SAMPLES)
def test_the_patterns_fit_what_is_accepted(topic: records.Topic, fields: dict[str, Any]) -> None:
    known = patterns(schemas()[topic])
    for field, text in fields.items():
        if isinstance(text, str):
            assert any(re.search(pattern, text) for pattern in known[field]), field


@pytest.mark.parametrize(
    "text",
    ["", "-1", "1.", ".5", "1e3", "1.1234567", "1" * 16, "0", "0.0", "2018-03-16T00:00:00", "2018-03-16t00:00:00z"],
)
def test_the_patterns_refuse_what_is_refused(text: str) -> None:
    payment = schemas()["payments"]["properties"]
    amount, paid_at = payment["amount"], payment["paid_at"]
    zero = re.search(amount["not"]["pattern"], text)
    assert zero or not re.search(amount["pattern"], text)
    assert not re.search(paid_at["pattern"], text)


# Compatibility ----------------------------------------------------------------------------------------------------

OLD: Schema = {
    "type": "object",
    "required": ["id", "kind"],
    "properties": {
        "id": {"type": "string", "minLength": 1, "maxLength": 256},
        "kind": {"enum": ["a", "b"], "type": "string"},
        "amount": {"type": "string", "pattern": "^[0-9]+$"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "count": {"type": "integer", "minimum": 0},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/Part"}, "maxItems": 100},
        "offsets": {"type": "object", "additionalProperties": {"type": "integer"}},
    },
    "$defs": {
        "Part": {"type": "object", "required": ["x"], "properties": {"x": {"type": "string"}, "y": {"type": "string"}}}
    },
}


def changed(path: str, value: object) -> Schema:
    """`OLD` with `value` at the dotted path; ... takes away what is there."""
    schema = copy.deepcopy(OLD)
    *parents, last = path.split(".")
    place = schema
    for name in parents:
        place = place[name]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return schema


NULLABLE = {"anyOf": [{"type": "string", "pattern": "^[0-9]+$"}, {"type": "null"}]}
X, XY = {"type": "object"}, {"x": {"type": "string"}, "y": {"type": "string"}}
CHANGES: list[tuple[str, str, object, bool, bool]] = [
    # what is changed, and whether records in and records out may be changed so
    ("nothing", "type", "object", True, True),
    ("words only", "properties.amount.description", "money", True, True),
    ("a new optional field", "properties.more", {"type": "string"}, True, True),
    ("a field is gone", "properties.amount", ..., False, False),
    ("a field becomes required", "required", ["id", "kind", "amount"], False, True),
    ("a field becomes optional", "required", ["id"], True, False),
    ("an enum is widened", "properties.kind.enum", ["a", "b", "c"], True, False),
    ("an enum is narrowed", "properties.kind.enum", ["a"], False, True),
    ("an enum becomes any text", "properties.kind", {"type": "string"}, True, False),
    ("any text becomes an enum", "properties.note", {"enum": ["x"], "type": "string"}, False, True),
    ("a type is widened", "properties.count.type", "number", True, False),
    ("a type is narrowed", "properties.offsets.additionalProperties.type", "null", False, False),
    ("a type is another", "properties.id", {"type": "integer"}, False, False),
    ("null is taken or sent too", "properties.amount", NULLABLE, True, False),
    ("null is no longer taken or sent", "properties.note", {"type": "string"}, False, True),
    ("a pattern is another", "properties.amount.pattern", "^[0-9]$", False, False),
    ("a pattern is gone", "properties.amount.pattern", ..., True, False),
    ("a new pattern", "properties.id.pattern", "^x", False, True),
    ("a text may be shorter", "properties.id.minLength", 0, True, False),
    ("a text may be longer", "properties.id.maxLength", 300, True, False),
    ("a text must be shorter", "properties.id.maxLength", 10, False, True),
    ("any length", "properties.id.maxLength", ..., True, False),
    ("a number may be smaller", "properties.count.minimum", -1, True, False),
    ("a number must be smaller", "properties.count.maximum", 9, False, True),
    ("a list may be longer", "properties.parts.maxItems", 200, True, False),
    ("a field in a list is gone", "$defs.Part.properties.y", ..., False, False),
    ("a field in a list becomes required", "$defs.Part.required", ["x", "y"], False, True),
    ("a field in a list may be missing", "$defs.Part.required", [], True, False),
    ("a field in a list is of another type", "$defs.Part.properties.x.type", "boolean", False, False),
    ("a new field in a list", "$defs.Part.properties.z", {"type": "string"}, True, True),
    ("no other fields", "additionalProperties", False, False, True),
    ("the map is of other values", "properties.offsets.additionalProperties", {"type": "string"}, False, False),
    ("the map is of any values", "properties.offsets.additionalProperties", True, True, False),
    ("the list is of anything", "properties.parts.items", {}, False, False),
]


@pytest.mark.parametrize(
    ("path", "value", "fine_in", "fine_out"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES]
)
def test_an_incompatible_change_is_refused(path: str, value: object, fine_in: bool, fine_out: bool) -> None:
    new = changed(path, value)
    assert (not incompatibilities(OLD, new, "in")) is fine_in
    assert (not incompatibilities(OLD, new, "out")) is fine_out


def test_the_reasons_are_told_in_words() -> None:
    assert incompatibilities(OLD, changed("properties.amount", ...), "out") == ["amount: the field is gone"]
    assert incompatibilities(OLD, changed("properties.kind.enum", ["a", "c"]), "in") == ['kind: no longer takes "b"']
    assert incompatibilities(OLD, changed("properties.kind.enum", ["a", "c"]), "out") == ['kind: now sends "c"']
    assert incompatibilities(OLD, changed("properties.amount", NULLABLE), "out") == ["amount: now sends null"]
    assert incompatibilities(OLD, changed("required", ["id", "kind", "note"]), "in") == [
        "note: no longer takes a record without it"
    ]
    assert incompatibilities(OLD, changed("$defs.Part.required", []), "out") == [
        "parts[].x: now sends a record without it"
    ]


def test_a_kind_of_record_in_may_come_but_not_go() -> None:
    old = schemas()["controls"]
    without = copy.deepcopy(old)
    without["oneOf"] = [branch for branch in old["oneOf"] if not branch["$ref"].endswith("/Resume")]
    assert len(without["oneOf"]) == len(CONTROLS) - 1
    assert incompatibilities(without, old, "in") == []
    assert 'kind: no longer takes "resume"' in incompatibilities(old, without, "in")
    assert 'kind: now sends "resume"' in incompatibilities(without, old, "out")


@pytest.mark.parametrize("topic", [*TOPICS, *OUT])
def test_every_schema_of_ours_notices_a_change(topic: str) -> None:
    schema = schemas()[topic]
    direction = contract.direction_of(topic)
    assert incompatibilities(schema, schema, direction) == []
    for kind in range(len(schema.get("$defs", {})) or 1):
        less = copy.deepcopy(schema)
        target = list(less["$defs"].values())[kind] if "$defs" in less else less
        field = next(iter(target["properties"]))
        del target["properties"][field]
        target["required"].remove(field)
        assert any(f"{field}: the field is gone" in reason for reason in incompatibilities(schema, less, direction))


def test_the_writer_refuses_to_break_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(contract, "__file__", str(tmp_path / "contract.py"))
    assert contract.main([]) == 0
    written = tmp_path / "schemas" / "acks.json"
    before = written.read_text(encoding="utf-8")
    assert before == (GOLDEN / "acks.json").read_text(encoding="utf-8")

    old = json.loads(before)
    old["properties"]["priority"] = {"type": "string"}
    written.write_text(json.dumps(old), encoding="utf-8")
    assert contract.main([]) == 1
    assert "acks: priority: the field is gone" in capsys.readouterr().err
    assert json.loads(written.read_text(encoding="utf-8")) == old

    assert contract.main(["--incompatible"]) == 0
    assert written.read_text(encoding="utf-8") == before


# Records out ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "struct"),
    [
        (UnpaidBill, outputs.UnpaidBill),
        (Command, outputs.Command),
        (Notice, outputs.Notice),
        (HoldView, outputs.HoldView),
        (PackageView, outputs.PackageView),
        (AccountView, outputs.AccountView),
        (DeadLetter, outputs.DeadLetter),
    ],
)
def test_what_is_published_has_the_contracts_fields(
    model: type[pydantic.BaseModel], struct: type[msgspec.Struct]
) -> None:
    assert set(model.model_fields) == set(struct.__struct_fields__)


INSTANT = "2018-03-16T12:00:00.5Z"
UUID = "7c0f6f1c-4a3f-5a0d-9c6e-2b1f0a9d8e77"
COMMAND: dict[str, Any] = {
    "command_id": UUID,
    "account_id": "a1",
    "sequence": 1,
    "action": "suspend",
    "services": ["compute", "download"],
    "effective_at": INSTANT,
    "decided_at": INSTANT,
    "arrears_since": INSTANT,
    "owed": "12345678901234567890.5",
    "late_fee": "0",
    "currency": "CNY",
    "unpaid_bills": [{"bill_id": "b1", "amount": "2", "outstanding": "1.5"}],
    "unpaid_bills_count": 1,
    "policy": "maxcompute@2018-03-16",
    "policy_hash": "0" * 64,
    "clause": "1.1.2",
    "reason": "unpaid_past_suspend_mark",
    "supersedes": None,
    "evidence": None,
    "notice_id": None,
}


def test_a_command_reads_and_writes_the_same() -> None:
    command = Command.model_validate_json(json.dumps(COMMAND))
    assert command.owed == 12_345_678_901_234_567_890_500_000
    assert json.loads(command.model_dump_json()) == COMMAND
    Command.model_validate(COMMAND | {"evidence": {"bills": 7}})


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("owed", "1.50"),
        ("owed", "-1"),
        ("owed", "01"),
        ("owed", 1),
        ("effective_at", "2018-03-16T12:00:00.50Z"),
        ("effective_at", "2018-03-16T12:00:00+08:00"),
        ("command_id", UUID.replace("-5", "-4")),
        ("sequence", 0),
        ("sequence", "1"),
        ("action", "warn"),
        ("clause", "1.1"),
        ("policy_hash", "A" * 64),
        ("evidence", {"bills": -1}),
    ],
)
def test_a_command_that_is_not_as_announced_is_noticed(field: str, wrong: object) -> None:
    with pytest.raises(pydantic.ValidationError, match=field):
        Command.model_validate(COMMAND | {field: wrong})


def test_an_account_may_be_in_the_black_with_usage_to_come() -> None:
    view = dict.fromkeys(AccountView.model_fields) | {
        "account_id": "a1",
        "status": "current",
        "balance": "-0.5",
        "owed": "0.5",
        "late_fee": "0",
        "credit_limit": "100",
        "sequence": 0,
        "suspended_services": [],
        "unpaid_bills": [],
        "unpaid_bills_count": 0,
        "unbilled": "-0.000000000001",
        "packages": [
            {"package_id": "k", "service": "compute", "unit": "h", "remaining": "0.000000000001", "ends_at": INSTANT}
        ],
        "hold": {"kind": "hold", "at": INSTANT, "until": None, "freeze_clock": False},
        "policy": "maxcompute@2018-03-16",
        "as_of": INSTANT,
    }
    assert json.loads(AccountView.model_validate(view).model_dump_json()) == view
    for field, wrong in (("balance", "-0"), ("unbilled", "1e3"), ("as_of", None), ("status", "exempt")):
        with pytest.raises(pydantic.ValidationError, match=field):
            AccountView.model_validate(view | {field: wrong})


def test_records_in_are_written_as_they_may_be_read() -> None:
    for topic, fields in SAMPLES:
        model = contract.read(topic, fields)
        again = contract.read(topic, json.loads(model.model_dump_json()))
        assert again == model
    assert json.loads(contract.read("bills", BILL).model_dump_json(exclude_none=True)) == BILL | {"amount": "128.4"}
    assert json.loads(contract.read("acks", ACK).model_dump_json(exclude_none=True)) == ACK
