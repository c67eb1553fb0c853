"""A policy file as plain values: YAML read so that nothing is guessed, doubled or unbounded.

It walks the nodes of PyYAML's safe loader instead of letting it construct values: that way keys that are there twice
are seen, dates and numbers keep their text, and aliases can be bounded.
"""

from __future__ import annotations

from typing import Final

import msgspec
import yaml

from models.refusal import name_shown, printable, shown

MAX_FILE_BYTES: Final = 1024 * 1024
#: Values in a file once its aliases are written out: a few lines of aliases can stand for billions of values.
MAX_FILE_VALUES: Final = 100_000


class YamlError(ValueError):
    """A file that cannot be read, or holds what a policy file cannot hold. `path` is the place inside the file."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem


class Unquoted(msgspec.Struct, frozen=True):
    """A number or a date that YAML saw in plain text; the text is kept, so that nothing is rounded or shifted."""

    text: str
    kind: str


def read_yaml(path: str) -> object:
    """The document of the file, as mappings, lists, texts, booleans, None and `Unquoted`. Raises `YamlError`."""
    return _Tree().read(_read_text(path))


def _read_text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise YamlError("", "there is no such file: check the path") from None
    except IsADirectoryError:
        raise YamlError("", "is a directory: name the policy file in it") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise YamlError("", f"cannot be read ({reason}): check the path and its permissions") from None
    if len(content) > MAX_FILE_BYTES:
        raise YamlError("", f"is larger than {MAX_FILE_BYTES:,} bytes: is it the policy file?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise YamlError(f"line {line}", "is not UTF-8: save the file as UTF-8") from None


class _Tree:
    """One document."""

    def __init__(self) -> None:
        self._done: dict[yaml.Node, tuple[object, int]] = {}
        self._open: set[yaml.Node] = set()

    def read(self, text: str) -> object:
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            if root is None:
                raise YamlError("", "is empty: write policies:, and a list of policies below it")
            return self._value(root, "")[0]
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            raise YamlError(where, f"is no YAML ({_one_line(error.problem or error.context)}): mend it") from None
        except yaml.YAMLError as error:
            raise YamlError("", f"is no YAML ({_one_line(str(error))}): mend it") from None
        except RecursionError:
            raise YamlError("", "is nested too deep: a policy needs four levels") from None

    def _value(self, node: yaml.Node, path: str) -> tuple[object, int]:
        """What the node stands for, and how many values that is with its aliases written out."""
        if node in self._done:
            return self._done[node]
        if node in self._open:
            raise YamlError(path, "is an alias of what it stands in: write the value itself")
        self._open.add(node)
        value: object
        match node:
            case yaml.MappingNode(tag="tag:yaml.org,2002:map"):
                value, size = self._mapping(node, path)
            case yaml.SequenceNode(tag="tag:yaml.org,2002:seq"):
                items = [self._value(item, f"{path}[{index}]") for index, item in enumerate(node.value)]
                value, size = [item for item, _ in items], sum(size for _, size in items)
            case _:
                value, size = self._scalar(node, path), 0
        if size >= MAX_FILE_VALUES:
            raise YamlError(path, f"holds more than {MAX_FILE_VALUES:,} values: is it the policy file?")
        self._open.remove(node)
        self._done[node] = value, size + 1
        return self._done[node]

    def _mapping(self, node: yaml.MappingNode, path: str) -> tuple[dict[str, object], int]:
        fields: dict[str, object] = {}
        merged: list[object] = []
        total = 0
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise YamlError(path, "has a field whose name is no text: write a plain name")
            key = str(key_node.value)
            place = join(path, name_shown(key))
            value, size = self._value(value_node, place)
            total += size
            if key_node.tag == "tag:yaml.org,2002:merge":  # "<<: *base" takes over what base has
                merged += value if isinstance(value, list) else [value]
            elif key in fields:
                line = key_node.start_mark.line + 1
                raise YamlError(place, f"is there twice (again on line {line}): leave one out")
            else:
                fields[key] = value
        for base in merged:
            if not isinstance(base, dict):
                raise YamlError(join(path, "<<"), "does not name a mapping: write << with an alias of one")
            fields = base | fields
        return fields, total

    def _scalar(self, node: yaml.Node, path: str) -> str | bool | Unquoted | None:
        text = str(node.value)
        match node.tag.removeprefix("tag:yaml.org,2002:"):
            case "str":
                return text
            case "null":
                return None
            case "bool" if text.lower() in yaml.SafeLoader.bool_values:
                return yaml.SafeLoader.bool_values[text.lower()]
            case "int" | "float":
                return Unquoted(text, "a number")
            case "timestamp":
                return Unquoted(text, "a date")
            case tag:
                raise YamlError(path, f"has the YAML type {shown(tag)}: write plain texts, lists and mappings")


def join(path: str, field: str) -> str:
    """The path of a field, or of the rest of a path, seen from `path`."""
    return f"{path}.{field}" if path and field and not field.startswith("[") else path + field


def _one_line(text: str | None) -> str:
    return printable(" ".join((text or "").split()))
