"""Policies: which durations, services and fees hold for an arrears episode, by name, version and date (§5, R10).

A policy is a value that cannot be built unusable: whatever §5 refuses raises `PolicyError`, one line that says where,
what is wrong and what to do. Policies come from a YAML file (`load_policies`) or from the JSON list of a `policies`
control (`parse_policies`); both pass the same checks. A field left out has the value of the built-in policy.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import unicodedata
from bisect import bisect_right
from functools import cached_property
from types import NoneType
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import msgspec

from models.instants import HOUR, Duration, Instant, format_duration, format_instant, parse_duration, parse_instant
from models.money import Fine, format_fine, parse_fine
from models.policy_yaml import Unquoted, YamlError, join, read_yaml
from models.refusal import name_shown, printable, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

DeleteClock = Literal["arrears", "suspension"]

MAX_NAME_BYTES: Final = 128


class PolicyError(ValueError):
    """An unusable policy. `str()` is one line: file (if any), path inside it, what is wrong and what to do."""

    def __init__(self, path: str, problem: str, *, file: str | None = None) -> None:
        super().__init__(": ".join(part for part in (file, path, problem) if part))
        self.path = path
        self.problem = problem
        self.file = file

    def under(self, prefix: str) -> PolicyError:
        """The same error, seen from one level further out."""
        return PolicyError(join(prefix, self.path), self.problem, file=self.file)

    def in_file(self, file: str) -> PolicyError:
        """The same error, with the file it stands in."""
        return PolicyError(self.path, self.problem, file=printable(file))


class Policy(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One version of a policy. Durations are in µs of elapsed time; the lists of warnings are longest first.

    Raises `PolicyError` (its path relative to the policy) if the values contradict each other (§5).
    """

    name: str
    version: str
    effective_from: Instant
    #: From `arrears_since` to the suspend mark.
    suspend_after: Duration
    #: From `arrears_since` (or, by `delete_clock`, from the suspend mark) to the delete mark.
    delete_after: Duration
    #: 1.1.3 counts "in arrears for 15 full days" and also says "from the suspension".
    delete_clock: DeleteClock
    #: The least time between the suspend command and the delete mark.
    min_suspended: Duration
    suspends: tuple[str, ...]
    deletes: tuple[str, ...]
    #: 3.4: the share of what is owed that accrues a day, in units of 10^-12 ("0.0005" is 500_000_000).
    late_fee_per_day: Fine
    late_fee_required: bool
    lateness_suspend: Duration
    lateness_delete: Duration
    #: How long before its mark a warning falls due; longest first, each once, in whatever order they were given.
    suspension_ahead: tuple[Duration, ...]
    deletion_ahead: tuple[Duration, ...]

    def __post_init__(self) -> None:
        """Refuse what contradicts itself, then put the warnings in order."""
        _check_label_part(self.name, "name")
        _check_label_part(self.version, "version")
        _check_services(self.suspends, "suspends")
        _check_services(self.deletes, "deletes")
        self._check_marks()
        self._check_warnings()
        msgspec.structs.force_setattr(self, "suspension_ahead", _longest_first(self.suspension_ahead))
        msgspec.structs.force_setattr(self, "deletion_ahead", _longest_first(self.deletion_ahead))

    def _check_marks(self) -> None:
        between = longest_suspension(self.suspend_after, self.delete_after, self.delete_clock)
        if self.delete_clock == "arrears" and between <= 0:
            message = f"{format_duration(self.delete_after)} is not above suspend_after "
            message += f"({format_duration(self.suspend_after)}): let the delete come later than the suspend"
            raise PolicyError("delete_after", message)
        if self.min_suspended > between:
            limit = "delete_after" if self.delete_clock == "suspension" else "delete_after - suspend_after"
            message = f"{format_duration(self.min_suspended)} is above {limit} ({format_duration(between)}): "
            raise PolicyError("min_suspended", message + "write that or less")

    def _check_warnings(self) -> None:
        for field, ahead, limit_name, limit in (
            ("suspension_ahead", self.suspension_ahead, "suspend_after", self.suspend_after),
            ("deletion_ahead", self.deletion_ahead, "delete_after", self.delete_after),
        ):
            for index, duration in enumerate(ahead):
                if duration >= limit:
                    message = f"{format_duration(duration)} is not below {limit_name} ({format_duration(limit)}): "
                    message += "give the warning later, or write [] for none"
                    raise PolicyError(f"notices.{field}[{index}]", message)
        if self.deletion_ahead and min(self.deletion_ahead) > self.min_suspended:
            shortest = min(self.deletion_ahead)
            message = f"{format_duration(shortest)}, the shortest, is above min_suspended "
            message += f"({format_duration(self.min_suspended)}): add a shorter one, raise min_suspended, "
            path = f"notices.deletion_ahead[{self.deletion_ahead.index(shortest)}]"
            raise PolicyError(path, message + "or write [] for no warning")

    @cached_property
    def label(self) -> str:
        """Name and version in one word: "maxcompute@2018-03-16"."""
        return f"{self.name}@{self.version}"

    @cached_property
    def policy_hash(self) -> str:
        """SHA-256 (lower-case hex) of the content: equal content, however it was spelled, has an equal hash."""
        canonical = json.dumps(_policy_to_json(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


class Policies(msgspec.Struct, frozen=True, dict=True):
    """The policies in force: at least one version, in the order of the file; the first name is everybody's default.

    Raises `PolicyError` (its path relative to the list) if there is none, or if two versions of a name share their
    version or their date.
    """

    versions: tuple[Policy, ...]

    def __post_init__(self) -> None:
        """Refuse an empty list, and two versions of a name that could not be told apart."""
        if not self.versions:
            raise PolicyError("", "is empty: write at least one policy")
        seen: dict[tuple[str, str, str | Instant], int] = {}
        for index, policy in enumerate(self.versions):
            for field, value in (("version", policy.version), ("effective_from", policy.effective_from)):
                earlier = seen.setdefault((policy.name, field, value), index)
                if earlier != index:
                    found = format_instant(value) if isinstance(value, int) else shown(value)
                    message = f"{found} is that of another version of {shown(policy.name)} (number {earlier + 1} of "
                    message += f"the list): give each version of a name its own {field}"
                    raise PolicyError(f"[{index}].{field}", message)

    @property
    def first_name(self) -> str:
        """The policy of every account that has no `policy` control."""
        return self.versions[0].name

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every name, in the order of first appearance."""
        return tuple(dict.fromkeys(policy.name for policy in self.versions))

    def version_at(self, name: str, at: Instant) -> Policy:
        """The version of `name` that holds for an episode that begins at `at`.

        The newest whose `effective_from` is not after `at`; before the first, the first (§5). A name that is not
        there (new policies dropped it) falls back to the first name (§1).
        """
        starts, versions = self._by_date.get(name) or self._by_date[self.first_name]
        return versions[max(0, bisect_right(starts, at) - 1)]

    @cached_property
    def _by_date(self) -> dict[str, tuple[list[Instant], list[Policy]]]:
        oldest_first = sorted(self.versions, key=lambda policy: policy.effective_from)
        table: dict[str, tuple[list[Instant], list[Policy]]] = {name: ([], []) for name in self.names}
        for policy in oldest_first:
            starts, versions = table[policy.name]
            starts.append(policy.effective_from)
            versions.append(policy)
        return table


def longest_suspension(suspend_after: Duration, delete_after: Duration, delete_clock: DeleteClock) -> Duration:
    """From the suspend mark to the delete mark, in µs; not above zero if the delete would not come after it."""
    return delete_after if delete_clock == "suspension" else delete_after - suspend_after


# Checking -----------------------------------------------------------------------------------------------------------


def _check_label_part(text: str, path: str) -> None:
    _check_text(text, path)
    size = len(text.encode())
    if size > MAX_NAME_BYTES:
        raise PolicyError(path, f"is {size} bytes long: write at most {MAX_NAME_BYTES}")
    if "@" in text:
        raise PolicyError(path, f"{shown(text)} holds an @, which parts name and version: leave it out")


def _check_services(services: tuple[str, ...], path: str) -> None:
    if not services:
        raise PolicyError(path, "is empty: name at least one service")
    seen: set[str] = set()
    for index, service in enumerate(services):
        _check_text(service, f"{path}[{index}]")
        if service in seen:
            raise PolicyError(f"{path}[{index}]", f"{shown(service)} is there twice: leave one out")
        seen.add(service)


def _check_text(text: str, path: str) -> None:
    if not text.strip():
        raise PolicyError(path, "is empty: write a text")
    # Controls, line ends and lone surrogates: they would break lines of logs, or could not be written at all.
    if any(unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} for char in text):
        raise PolicyError(path, f"{shown(text)} holds a control character: leave it out")


def _longest_first(durations: tuple[Duration, ...]) -> tuple[Duration, ...]:
    return tuple(sorted(set(durations), reverse=True))


# The built-in policy ------------------------------------------------------------------------------------------------

#: The MaxCompute service agreement in force from 2018-03-16; each of its values is that of a field left out.
_MAXCOMPUTE: Final = Policy(
    name="maxcompute",
    version="2018-03-16",
    effective_from=parse_instant("2018-03-16T00:00:00+08:00"),
    suspend_after=24 * HOUR,  # 1.1.1, 1.1.2
    delete_after=360 * HOUR,  # 1.1.3: "in arrears for 15 full days"
    delete_clock="arrears",
    min_suspended=72 * HOUR,
    suspends=("compute", "download"),
    deletes=("compute", "download", "storage", "caches", "backups"),  # 6.4, 6.5
    late_fee_per_day=parse_fine("0.0005"),  # 3.4
    late_fee_required=False,
    lateness_suspend=0,
    lateness_delete=HOUR,
    suspension_ahead=(4 * HOUR,),
    deletion_ahead=(168 * HOUR, 72 * HOUR, 24 * HOUR),
)

BUILT_IN: Final = Policies((_MAXCOMPUTE,))


# Reading ------------------------------------------------------------------------------------------------------------


def load_policies(path: str) -> Policies:
    """The policies of a YAML file (§5). Raises `PolicyError`, also if the file cannot be read."""
    try:
        document = _Fields(read_yaml(path), "", ("policies",))
        return document.required("policies", lambda value, where: parse_policies(value, where=where))
    except YamlError as error:
        raise PolicyError(error.path, error.problem).in_file(path) from None
    except PolicyError as error:
        raise error.in_file(path) from None


def parse_policies(value: object, *, where: str = "policies") -> Policies:
    """The policies of a list of mappings, as a `policies` control carries it. Raises `PolicyError`.

    `where` is the path that the errors begin with.
    """
    if not isinstance(value, list | tuple):
        raise PolicyError(where, f"is {_kind(value)}, not a list: write a list of policies")
    versions: list[Policy] = []
    for index, item in enumerate(value):
        try:
            versions.append(_policy(item))
        except PolicyError as error:
            raise error.under(f"{where}[{index}]") from None
    try:
        return Policies(tuple(versions))
    except PolicyError as error:
        raise error.under(where) from None


def _policy(value: object) -> Policy:
    """One policy. The errors' paths begin inside it."""
    default = _MAXCOMPUTE
    fields = _Fields(value, "", _POLICY_FIELDS)
    lateness = fields.mapping("lateness", ("suspend", "delete"))
    notices = fields.mapping("notices", ("suspension_ahead", "deletion_ahead"))
    suspend_after = fields.get("suspend_after", _duration, default.suspend_after)
    delete_after = fields.get("delete_after", _duration, default.delete_after)
    delete_clock = fields.get("delete_clock", _delete_clock, default.delete_clock)
    # §5: left out, it gives way to a delete mark that comes sooner. (Below zero the delete mark itself is refused.)
    longest = max(0, longest_suspension(suspend_after, delete_after, delete_clock))
    try:
        return Policy(
            name=fields.get("name", _text, default.name),
            version=fields.get("version", _text, default.version),
            effective_from=fields.get("effective_from", _instant, default.effective_from),
            suspend_after=suspend_after,
            delete_after=delete_after,
            delete_clock=delete_clock,
            min_suspended=fields.get("min_suspended", _duration, min(default.min_suspended, longest)),
            suspends=fields.get("suspends", _texts, default.suspends),
            deletes=fields.get("deletes", _texts, default.deletes),
            late_fee_per_day=fields.get("late_fee_per_day", _share, default.late_fee_per_day),
            late_fee_required=fields.get("late_fee_required", _flag, default.late_fee_required),
            lateness_suspend=lateness.get("suspend", _duration, default.lateness_suspend),
            lateness_delete=lateness.get("delete", _duration, default.lateness_delete),
            suspension_ahead=notices.get("suspension_ahead", _durations, default.suspension_ahead),
            deletion_ahead=notices.get("deletion_ahead", _durations, default.deletion_ahead),
        )
    except PolicyError as error:
        if error.path.partition("[")[0] in fields.left_out | notices.left_out:
            told = f"{error.problem} (it is left out, so it has the built-in value)"
            raise PolicyError(error.path, told) from None
        raise


class _Fields:
    """A mapping read field by field; a field that is not known is refused at once."""

    def __init__(self, value: object, path: str, known: tuple[str, ...]) -> None:
        if not isinstance(value, dict):
            raise PolicyError(path, f"is {_kind(value)}, not a mapping: write fields ({', '.join(known)})")
        for key in value:
            if key not in known:
                close = difflib.get_close_matches(str(key), known, n=1)
                advice = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
                raise PolicyError(join(path, name_shown(str(key))), f"is an unknown field: {advice}")
        self._values: dict[str, object] = value
        self._path = path
        #: The paths of what was asked for and left out.
        self.left_out: set[str] = set()

    def required(self, field: str, parse: Callable[[object, str], T]) -> T:
        if field not in self._values:
            raise PolicyError(join(self._path, field), "is missing: it has to be written")
        return parse(self._values[field], join(self._path, field))

    def get(self, field: str, parse: Callable[[object, str], T], default: T) -> T:
        if field in self._values:
            return self.required(field, parse)
        self.left_out.add(join(self._path, field))
        return default

    def mapping(self, field: str, known: tuple[str, ...]) -> _Fields:
        return _Fields(self._values.get(field, {}), join(self._path, field), known)


_POLICY_FIELDS: Final = (
    "name",
    "version",
    "effective_from",
    "suspend_after",
    "delete_after",
    "delete_clock",
    "min_suspended",
    "suspends",
    "deletes",
    "late_fee_per_day",
    "late_fee_required",
    "lateness",
    "notices",
)


def _text(value: object, path: str) -> str:
    if not isinstance(value, str):
        advice = "write text" if value is None or isinstance(value, list | dict) else _quote_it(value)
        raise PolicyError(path, f"is {_kind(value)}, not text: {advice}")
    return value


def _texts(value: object, path: str) -> tuple[str, ...]:
    return tuple(_text(item, f"{path}[{index}]") for index, item in _items(value, path))


def _instant(value: object, path: str) -> Instant:
    # A timestamp without quotes is as good as one with them: its text is kept, and means the same.
    text = value.text if isinstance(value, Unquoted) else _text(value, path)
    return _parsed(parse_instant, text, path)


def _duration(value: object, path: str) -> Duration:
    if not isinstance(value, str):
        raise PolicyError(path, f"is {_kind(value)}, not a duration: write one such as PT24H")
    return _parsed(parse_duration, value, path)


def _durations(value: object, path: str) -> tuple[Duration, ...]:
    return tuple(_duration(item, f"{path}[{index}]") for index, item in _items(value, path))


def _share(value: object, path: str) -> Fine:
    return _parsed(parse_fine, _text(value, path), path)


def _parsed(parse: Callable[[str], int], text: str, path: str) -> int:
    try:
        return parse(text)
    except ValueError as error:
        raise PolicyError(path, str(error)) from None


def _flag(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise PolicyError(path, f"is {_kind(value)}, not true or false: write one of these, without quotes")
    return value


def _delete_clock(value: object, path: str) -> DeleteClock:
    match value:
        case "arrears" | "suspension":
            return value
        case _:
            found = shown(value) if isinstance(value, str) else _kind(value)
            raise PolicyError(path, f"is {found}: write arrears or suspension")


def _items(value: object, path: str) -> Iterable[tuple[int, object]]:
    if not isinstance(value, list | tuple):
        raise PolicyError(path, f"is {_kind(value)}, not a list: write one in brackets, such as [a, b]")
    return enumerate(value)


# Writing ------------------------------------------------------------------------------------------------------------


def to_json(policies: Policies) -> list[dict[str, object]]:
    """What a `policies` control carries; `parse_policies` makes the same policies of it. Every field is there."""
    return [_policy_to_json(policy) for policy in policies.versions]


def _policy_to_json(policy: Policy) -> dict[str, object]:
    return {
        "name": policy.name,
        "version": policy.version,
        "effective_from": format_instant(policy.effective_from),
        "suspend_after": format_duration(policy.suspend_after),
        "delete_after": format_duration(policy.delete_after),
        "delete_clock": policy.delete_clock,
        "min_suspended": format_duration(policy.min_suspended),
        "suspends": list(policy.suspends),
        "deletes": list(policy.deletes),
        "late_fee_per_day": format_fine(policy.late_fee_per_day),
        "late_fee_required": policy.late_fee_required,
        "lateness": {
            "suspend": format_duration(policy.lateness_suspend),
            "delete": format_duration(policy.lateness_delete),
        },
        "notices": {
            "suspension_ahead": [format_duration(duration) for duration in policy.suspension_ahead],
            "deletion_ahead": [format_duration(duration) for duration in policy.deletion_ahead],
        },
    }


# Words --------------------------------------------------------------------------------------------------------------


def _kind(value: object) -> str:
    if isinstance(value, Unquoted):
        return value.kind
    words = (word for types, word in _KINDS if isinstance(value, types))
    return next(words, f"a {type(value).__name__}")


# In this order: a bool is an int too.
_KINDS: Final = (
    (NoneType, "empty"),
    (bool, "a true or false"),
    (int | float, "a number"),
    (str, "a text"),
    (list | tuple, "a list"),
    (dict, "a mapping"),
)


def _quote_it(value: object) -> str:
    return f"quote it, {shown(value.text)}" if isinstance(value, Unquoted) else "quote it"
