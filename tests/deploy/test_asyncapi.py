"""deploy/asyncapi.yaml is what the models make of it; each example fits its schema, and none is missing.

That it is AsyncAPI is the parser's to say: `make validate`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from jsonschema import Draft7Validator, ValidationError

from deploy.asyncapi import story
from deploy.asyncapi.__main__ import FILE
from deploy.asyncapi.document import document, text
from models import contract
from models.contract import OUT, TOPICS
from streams.partitioner import partition_by
from streams.topic_design import TOPICS as DESIGNS
from streams.topic_design import AppTopics, Role, settings_to_create

DOCUMENT: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
MESSAGES: dict[str, Any] = DOCUMENT["components"]["messages"]


def message_of(topic: str) -> dict[str, Any]:
    (message,) = DOCUMENT["channels"][topic]["messages"]
    found: dict[str, Any] = MESSAGES[message]
    return found


EXAMPLES = [
    pytest.param(topic, example, id=f"{topic}: {example['name']}")
    for topic in DOCUMENT["channels"]
    for example in message_of(topic)["examples"]
]


def check(schema: dict[str, Any], value: object) -> None:
    """Raises ValidationError."""
    Draft7Validator({"components": DOCUMENT["components"], "allOf": [schema]}).validate(value)


def test_the_file_is_what_the_code_makes() -> None:
    assert FILE.read_text(encoding="utf-8") == text(), "run python -m deploy.asyncapi, and look at what it changes"
    assert document() == DOCUMENT


def test_it_has_every_topic_that_others_write_or_read() -> None:
    assert tuple(DOCUMENT["channels"]) == (*TOPICS, *OUT)
    assert set(AppTopics.of(story.APP_ID)) - set(DOCUMENT["channels"]) == {"arrears.state"}
    for topic in DOCUMENT["channels"]:
        (operation,) = (one for one in DOCUMENT["operations"].values() if one["channel"]["$ref"].endswith(f"/{topic}"))
        assert operation["action"] == {"in": "receive", "out": "send"}[contract.direction_of(topic)]


def test_topics_are_told_as_they_are_created() -> None:
    for design in DESIGNS:
        if design.role is Role.STATE:
            continue
        told = DOCUMENT["channels"][design.called(story.APP_ID)]["bindings"]["kafka"]["topicConfiguration"]
        told = {key: ",".join(value) if isinstance(value, list) else str(value) for key, value in told.items()}
        assert told == settings_to_create(design, 3)


@pytest.mark.parametrize(("topic", "example"), EXAMPLES)
def test_an_example_fits_its_schema_and_its_model(topic: str, example: dict[str, Any]) -> None:
    message, payload = message_of(topic), example["payload"]
    check(message["payload"], payload)
    check(message["bindings"]["kafka"]["key"], payload.get("account_id", payload.get("key")))
    if "headers" in message:
        check(message["headers"], example["headers"])
        assert example["headers"]["ce_id"] == payload.get("command_id" if "action" in payload else "notice_id")
    if topic in TOPICS:
        contract.read(topic, payload)
    else:
        OUT[topic].model_validate_json(json.dumps(payload))  # type: ignore[index]  # likewise


@pytest.mark.parametrize(("topic", "example"), EXAMPLES)
def test_an_example_that_lacks_what_is_required_would_be_noticed(topic: str, example: dict[str, Any]) -> None:
    first = next(iter(example["payload"]))
    lacking = {key: value for key, value in example["payload"].items() if key != first}
    with pytest.raises(ValidationError):
        check(message_of(topic)["payload"], lacking)


def test_there_is_an_example_of_each_kind() -> None:
    kinds = {
        "bills": contract.BillKind,
        "payments": contract.PaymentKind,
        "packages": contract.PackageKind,
        "controls": contract.ControlKind,
        "acks": contract.AckStatus,
        "arrears.notices": contract.NoticeKind,
        "arrears.accounts": contract.AccountStatus,
    }
    for topic, kind in kinds.items():
        assert {one["name"] for one in message_of(topic)["examples"]} == set(get_args(kind)), topic
    payloads = [one["payload"] for one in message_of("arrears.commands")["examples"]]
    assert {one["action"] for one in payloads} == set(get_args(contract.CommandAction))
    assert {one["reason"] for one in payloads} == set(get_args(contract.CommandReason))


def test_every_field_that_is_sent_is_explained() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for name in (*OUT, "UnpaidBill", "HoldView", "PackageView"):
        unexplained = [field for field, form in schemas[name]["properties"].items() if "description" not in form]
        assert unexplained == [], name


def test_the_accounts_of_the_examples_share_a_partition() -> None:
    partition_of = partition_by("murmur2", story.PARTITIONS)
    assert {partition_of(account.encode()) for account in story.ACCOUNTS} == {story.PARTITION}


def test_what_checks_it_is_locked_and_names_no_registry() -> None:
    folder = Path(story.__file__).parent
    locked = json.loads((folder / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    wanted = json.loads((folder / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert locked[""]["dependencies"] == wanted
    packages = {name: package for name, package in locked.items() if name}
    assert all(package.get("integrity", "").startswith("sha512-") for package in packages.values())
    assert not [name for name, package in packages.items() if "resolved" in package]
