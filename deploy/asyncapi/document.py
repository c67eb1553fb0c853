"""Builds the AsyncAPI document: models, topic designs, words and examples, put together."""

from __future__ import annotations

import copy
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, get_args

import yaml

from deploy.asyncapi.story import APP_ID, PARTITIONS, examples
from deploy.asyncapi.words import CHANNELS, FIELDS, GUIDE, HEADERS, MESSAGES
from models.contract import MAX_ID_BYTES, CommandAction, NoticeKind, direction_of, schemas
from streams.topic_design import TOPICS, Role, settings_to_create

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deploy.asyncapi.story import Example
    from streams.topic_design import TopicDesign

Node = dict[str, Any]

_BINDING: Final = "0.5.0"
#: What a cluster that nobody has to mend at night has.
_REPLICATION: Final = 3
#: Settings whose form the binding knows; it takes any other as text.
_WHOLE: Final = ("retention.ms", "retention.bytes", "delete.retention.ms", "max.message.bytes")

_EVENTS: Final = {
    f"{APP_ID}.commands": [f"arrears.command.{action}.v1" for action in get_args(CommandAction)],
    f"{APP_ID}.notices": [f"arrears.notice.{kind}.v1" for kind in get_args(NoticeKind)],
}


def document() -> Node:
    """The whole."""
    designs = {design.called(APP_ID): design for design in TOPICS if design.role is not Role.STATE}
    found = examples()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Arrears monitor",
            "version": version("arrears-monitor"),
            "description": GUIDE,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": "127.0.0.1:9092",
                "protocol": "kafka",
                "description": "A broker on this machine: `arrears kafka start`, then `arrears topics create`.",
            }
        },
        "channels": {topic: _channel(topic, designs[topic]) for topic in CHANNELS},
        "operations": {_operation_name(topic): _operation(topic) for topic in CHANNELS},
        "components": {
            "messages": {name: _message(topic, found[topic]) for topic, (name, _) in MESSAGES.items()},
            "schemas": _schemas(),
        },
    }


def text() -> str:
    """The document as its file holds it."""
    made = yaml.dump(document(), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    return f"# Made by `python -m deploy.asyncapi`: change what it is made of, and run that again.\n{made}"


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks; nothing as a reference to something above."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


# Channels, operations -----------------------------------------------------------------------------------------------


def _channel(topic: str, design: TopicDesign) -> Node:
    told, name = CHANNELS[topic], MESSAGES[topic][0]
    return {
        "address": topic,
        "title": told.title,
        "description": told.description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "bindings": {
            "kafka": {
                "topic": topic,
                "partitions": PARTITIONS,
                "replicas": _REPLICATION,
                "topicConfiguration": _configuration(settings_to_create(design, _REPLICATION)),
                "bindingVersion": _BINDING,
            }
        },
    }


def _configuration(settings: Mapping[str, str]) -> Node:
    made: Node = dict(settings)
    made["cleanup.policy"] = made["cleanup.policy"].split(",")
    return made | {name: int(made[name]) for name in _WHOLE if name in made}


def _operation_name(topic: str) -> str:
    words = topic.removeprefix(f"{APP_ID}.").split("-")
    verb = "receive" if direction_of(topic) == "in" else "send"
    return verb + "".join(word.capitalize() for word in words)


def _operation(topic: str) -> Node:
    """What the monitor does with it: whoever writes to the monitor or reads from it does the other."""
    name, summary = MESSAGES[topic]
    channel = f"#/channels/{topic}"
    operation: Node = {
        "action": "receive" if direction_of(topic) == "in" else "send",
        "channel": {"$ref": channel},
        "summary": summary,
        "messages": [{"$ref": f"{channel}/messages/{name}"}],
    }
    if direction_of(topic) == "in":
        group = {"type": "string", "const": APP_ID, "description": "the app id"}
        operation["bindings"] = {"kafka": {"groupId": group, "bindingVersion": _BINDING}}
    return operation


# Messages -----------------------------------------------------------------------------------------------------------


def _message(topic: str, found: list[Example]) -> Node:
    name, summary = MESSAGES[topic]
    key = {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_ID_BYTES,
        "description": f"the `account_id`, in UTF-8; at most {MAX_ID_BYTES} bytes",
    }
    message: Node = {
        "name": name,
        "title": CHANNELS[topic].title,
        "summary": summary,
        "contentType": "application/json",
    }
    if topic in _EVENTS:
        message["headers"] = _headers(_EVENTS[topic])
    message["payload"] = {"$ref": f"#/components/schemas/{topic}"}
    message["bindings"] = {"kafka": {"key": key, "bindingVersion": _BINDING}}
    message["examples"] = [_example(example) for example in found]
    return message


def _headers(types: list[str]) -> Node:
    forms: dict[str, Node] = {name: {"type": "string"} for name in HEADERS}
    forms["ce_specversion"]["const"] = "1.0"
    forms["ce_type"]["enum"] = types
    forms["ce_time"]["format"] = "date-time"
    forms["content-type"]["const"] = "application/json"
    return {
        "type": "object",
        "description": "CloudEvents 1.0, Kafka protocol binding, binary mode: texts in UTF-8",
        "required": list(forms),
        "properties": {name: form | {"description": HEADERS[name]} for name, form in forms.items()},
    }


def _example(example: Example) -> Node:
    made: Node = {"name": example.name}
    if example.headers:
        made["headers"] = example.headers
    return made | {"payload": example.payload}


# Schemas ------------------------------------------------------------------------------------------------------------


def _schemas() -> Node:
    """Those of the topics, and what they are made of, each once."""
    made: Node = {}
    for topic, schema in schemas().items():
        whole = copy.deepcopy(schema)
        del whole["$schema"]
        parts = whole.pop("$defs", {})
        made[topic] = whole
        for name, part in parts.items():
            assert made.get(name, part) == part, f"two schemas are called {name}"
            made[name] = part
    return {name: _explained(_rewritten(schema), FIELDS.get(name, {})) for name, schema in made.items()}


def _rewritten(node: Any) -> Any:  # noqa: ANN401  # JSON
    """As AsyncAPI has it: other places for what is referred to, and a discriminator that is a text."""
    match node:
        case {"$ref": str(reference)}:
            return {"$ref": reference.replace("#/$defs/", "#/components/schemas/")}
        case {"discriminator": {"propertyName": str(name)}, **rest}:
            return {"discriminator": name} | _rewritten(rest)
        case dict():
            return {key: _rewritten(value) for key, value in node.items()}
        case list():
            return [_rewritten(item) for item in node]
        case _:
            return node


def _explained(schema: Node, words: Mapping[str, str]) -> Node:
    properties: Node = schema.get("properties", {})
    assert words.keys() <= properties.keys(), f"no such fields: {words.keys() - properties.keys()}"
    for field, told in words.items():
        form = properties[field]
        if "description" in form:  # what the field means, then how it is written
            told = f"{told} ({form['description']})"  # noqa: PLW2901
        properties[field] = {"description": told} | {key: value for key, value in form.items() if key != "description"}
    return schema
