"""Policies (§5, R10): what is read, what is refused and in which words, and which version holds when."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.instants import FIRST_INSTANT, HOUR, INSTANT_FORM, LAST_INSTANT, SECOND, format_instant, parse_instant
from models.policy import BUILT_IN, DeleteClock, Policies, Policy, PolicyError, load_policies, parse_policies, to_json

if TYPE_CHECKING:
    from pathlib import Path

# Contract §5, letter for letter.
BUILT_IN_FILE = """\
policies:
  - name: maxcompute
    version: "2018-03-16"
    effective_from: 2018-03-16T00:00:00+08:00
    suspend_after: PT24H        # ISO 8601 durations
    delete_after: PT360H
    delete_clock: arrears       # or: suspension
    min_suspended: PT72H        # left out: PT72H, or if shorter delete_after - suspend_after
    suspends: [compute, download]
    deletes: [compute, download, storage, caches, backups]
    late_fee_per_day: "0.0005"
    late_fee_required: false
    lateness: {suspend: PT0S, delete: PT1H}
    notices: {suspension_ahead: [PT4H], deletion_ahead: [PT168H, PT72H, PT24H]}   # before the mark
"""

NAMED = {"name": "maxcompute", "version": "2018-03-16", "effective_from": "2018-03-15T16:00:00Z"}


def one(**fields: Any) -> Policy:
    """The policy of a list that holds nothing else; fields not given are left out."""
    return parse_policies([NAMED | fields]).versions[0]


def refusal(value: object) -> str:
    """The line that tells why the list is unusable."""
    with pytest.raises(PolicyError) as caught:
        parse_policies(value)
    line = str(caught.value)
    assert "\n" not in line
    return line


class File:
    """A policy file that a test writes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, content: str | bytes) -> Policies:
        self.path.write_bytes(content.encode() if isinstance(content, str) else content)
        return load_policies(str(self.path))

    def refusal(self, content: str | bytes) -> str:
        """The line that tells why the file is unusable, without the file's name, which it begins with."""
        with pytest.raises(PolicyError) as caught:
            self.load(content)
        line = str(caught.value)
        assert "\n" not in line
        assert line.startswith(f"{self.path}: ")
        return line.removeprefix(f"{self.path}: ")


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "policy.yaml")


def yaml_with(line: str) -> str:
    """A file with one policy, where `line` stands after the required fields."""
    return f'policies:\n  - name: p\n    version: "1"\n    effective_from: 2018-03-16T00:00:00Z\n    {line}\n'


# The built-in policy ------------------------------------------------------------------------------------------------


def test_the_built_in_policy_is_the_file_of_the_contract(file: File) -> None:
    assert file.load(BUILT_IN_FILE) == BUILT_IN


def test_the_built_in_policy_has_the_values_of_the_service_agreement() -> None:
    (policy,) = BUILT_IN.versions
    assert policy == Policy(
        name="maxcompute",
        version="2018-03-16",
        effective_from=parse_instant("2018-03-15T16:00:00Z"),
        suspend_after=24 * HOUR,
        delete_after=360 * HOUR,
        delete_clock="arrears",
        min_suspended=72 * HOUR,
        suspends=("compute", "download"),
        deletes=("compute", "download", "storage", "caches", "backups"),
        late_fee_per_day=500_000_000,
        late_fee_required=False,
        lateness_suspend=0,
        lateness_delete=HOUR,
        suspension_ahead=(4 * HOUR,),
        deletion_ahead=(168 * HOUR, 72 * HOUR, 24 * HOUR),
    )
    assert policy.label == "maxcompute@2018-03-16"
    assert BUILT_IN.names == ("maxcompute",)


@pytest.mark.parametrize("field", ["name", "version", "effective_from"])
def test_name_version_and_date_left_out_are_the_built_in_ones(field: str) -> None:
    value = {key: text for key, text in NAMED.items() if key != field}
    (policy,) = parse_policies([value]).versions
    assert getattr(policy, field) == getattr(BUILT_IN.versions[0], field)


def test_a_field_left_out_has_the_built_in_value() -> None:
    assert one() == BUILT_IN.versions[0]
    assert one(lateness={}, notices={}) == BUILT_IN.versions[0]
    assert one(lateness={"suspend": "PT5M"}).lateness_delete == HOUR
    assert one(notices={"suspension_ahead": []}).deletion_ahead == (168 * HOUR, 72 * HOUR, 24 * HOUR)


@pytest.mark.parametrize(
    ("suspend_after", "delete_after", "delete_clock", "min_suspended"),
    [
        ("PT24H", "PT360H", "arrears", 72 * HOUR),
        ("PT24H", "PT96H", "arrears", 72 * HOUR),
        ("PT24H", "PT95H", "arrears", 71 * HOUR),
        ("PT4S", "PT10S", "arrears", 6 * SECOND),
        ("PT24H", "PT73H", "suspension", 72 * HOUR),
        ("PT24H", "PT71H", "suspension", 71 * HOUR),
        ("PT24H", "PT6S", "suspension", 6 * SECOND),
    ],
)
def test_min_suspended_left_out_gives_way_to_a_sooner_delete_mark(
    suspend_after: str, delete_after: str, delete_clock: str, min_suspended: int
) -> None:
    policy = one(
        suspend_after=suspend_after,
        delete_after=delete_after,
        delete_clock=delete_clock,
        notices={"suspension_ahead": [], "deletion_ahead": []},
    )
    assert policy.min_suspended == min_suspended


# Which version holds ------------------------------------------------------------------------------------------------


def test_an_episode_has_the_newest_version_not_after_its_start() -> None:
    at = {"1": "2018-01-01T00:00:00Z", "2": "2019-01-01T00:00:00Z", "3": "2020-01-01T00:00:00Z"}
    policies = parse_policies(
        [NAMED | {"version": version, "effective_from": at[version]} for version in ("2", "3", "1")]
        + [NAMED | {"name": "trial", "version": "9", "effective_from": "2030-01-01T00:00:00Z"}]
    )

    def version(name: str, instant: str) -> str:
        return policies.version_at(name, parse_instant(instant)).label

    assert version("maxcompute", "2017-01-01T00:00:00Z") == "maxcompute@1"  # before the first, the first
    assert version("maxcompute", "2018-12-31T23:59:59.999999Z") == "maxcompute@1"
    assert version("maxcompute", "2019-01-01T00:00:00Z") == "maxcompute@2"
    assert version("maxcompute", "2019-01-01T08:00:00+08:00") == "maxcompute@2"
    assert version("maxcompute", "2019-12-31T23:59:59.999999Z") == "maxcompute@2"
    assert version("maxcompute", "9999-12-31T23:59:59Z") == "maxcompute@3"
    assert version("trial", "2018-01-01T00:00:00Z") == "trial@9"
    assert version("dropped", "2019-01-01T00:00:00Z") == "maxcompute@2"  # falls back to the first name
    assert policies.first_name == "maxcompute"
    assert policies.names == ("maxcompute", "trial")


# What is read -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "instant", ["2018-03-16T00:00:00+08:00", '"2018-03-16T00:00:00+08:00"', "2018-03-15T16:00:00.000Z"]
)
def test_an_instant_means_the_same_with_and_without_quotes(file: File, instant: str) -> None:
    policies = file.load(f'policies: [{{name: p, version: "1", effective_from: {instant}}}]')
    assert policies.versions[0].effective_from == BUILT_IN.versions[0].effective_from


def test_an_instant_without_quotes_keeps_its_microseconds(file: File) -> None:
    policies = file.load('policies: [{name: p, version: "1", effective_from: 2018-03-16T00:00:00.000001Z}]')
    assert format_instant(policies.versions[0].effective_from) == "2018-03-16T00:00:00.000001Z"


def test_warnings_are_kept_longest_first_and_each_once() -> None:
    assert one(notices={"deletion_ahead": ["PT24H", "P7D", "PT72H", "PT1440M"]}).deletion_ahead == (
        168 * HOUR,
        72 * HOUR,
        24 * HOUR,
    )


def test_the_order_of_services_is_kept() -> None:
    assert one(suspends=["download", "compute"]).suspends == ("download", "compute")


@pytest.mark.parametrize(("share", "units"), [("0", 0), ("1", 10**12), ("0.000000000001", 1), ("0.10", 10**11)])
def test_the_late_fee_is_an_exact_share(share: str, units: int) -> None:
    assert one(late_fee_per_day=share).late_fee_per_day == units


def test_versions_may_share_fields_by_anchor_and_merge_key(file: File) -> None:
    policies = file.load("""\
policies:
  - &base
    name: p
    version: "1"
    effective_from: 2018-03-16T00:00:00Z
    suspend_after: PT12H
    notices: &notices {suspension_ahead: [PT1H]}
  - <<: *base
    version: "2"
    effective_from: 2019-03-16T00:00:00Z
    notices: *notices
""")
    first, second = policies.versions
    assert second == msgspec.structs.replace(first, version="2", effective_from=parse_instant("2019-03-16T00:00:00Z"))
    assert second.suspension_ahead == (HOUR,)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(file: File) -> None:
    assert file.load(b"\xef\xbb\xbf" + BUILT_IN_FILE.replace("\n", "\r\n").encode()) == BUILT_IN


# Refused: what §5 names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"suspend_after": "PT360H"},
            (
                "policies[0].delete_after: PT360H is not above suspend_after (PT360H): let the delete come later than"
                " the suspend (it is left out, so it has the built-in value)"
            ),
        ),
        (
            {"suspend_after": "PT9H", "delete_after": "PT8H"},
            (
                "policies[0].delete_after: PT8H is not above suspend_after (PT9H): let the delete come later than the"
                " suspend"
            ),
        ),
        (
            {"notices": {"suspension_ahead": ["PT1H", "PT24H"]}},
            (
                "policies[0].notices.suspension_ahead[1]: PT24H is not below suspend_after (PT24H): give the warning"
                " later, or write [] for none"
            ),
        ),
        (
            {"suspend_after": "PT3H"},
            (
                "policies[0].notices.suspension_ahead[0]: PT4H is not below suspend_after (PT3H): give the warning"
                " later, or write [] for none (it is left out, so it has the built-in value)"
            ),
        ),
        (
            {"notices": {"deletion_ahead": ["PT24H", "PT72H", "PT360H"]}},
            (
                "policies[0].notices.deletion_ahead[2]: PT360H is not below delete_after (PT360H): give the warning"
                " later, or write [] for none"
            ),
        ),
        (
            {"notices": {"deletion_ahead": ["PT168H", "PT72H1S"]}},
            (
                "policies[0].notices.deletion_ahead[1]: PT72H1S, the shortest, is above min_suspended (PT72H): add a"
                " shorter one, raise min_suspended, or write [] for no warning"
            ),
        ),
        (
            {"min_suspended": "PT336H0.000001S"},
            (
                "policies[0].min_suspended: PT336H0.000001S is above delete_after - suspend_after (PT336H): write that"
                " or less"
            ),
        ),
        (
            {"delete_clock": "suspension", "min_suspended": "PT361H"},
            "policies[0].min_suspended: PT361H is above delete_after (PT360H): write that or less",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused(fields: dict[str, Any], line: str) -> None:
    assert refusal([NAMED | fields]) == line


def test_at_the_edge_of_each_rule_a_policy_is_usable() -> None:
    one(min_suspended="PT336H")
    one(min_suspended="PT360H", delete_clock="suspension")
    one(notices={"deletion_ahead": ["PT72H"]})
    one(notices={"suspension_ahead": ["PT23H59M59.999999S"], "deletion_ahead": ["PT359H59M59.999999S", "PT0S"]})
    none: dict[str, list[str]] = {"suspension_ahead": [], "deletion_ahead": []}
    one(suspend_after="PT0S", delete_after="PT0.000001S", notices=none)
    one(suspend_after="PT24H", delete_after="PT24H", delete_clock="suspension", notices=none)


def test_two_versions_with_one_date_or_one_text_are_refused() -> None:
    same_date = NAMED | {"version": "other", "effective_from": "2018-03-16T00:00:00+08:00"}
    assert refusal([NAMED, same_date]) == (
        'policies[1].effective_from: 2018-03-15T16:00:00Z is that of another version of "maxcompute" (number 1 of the'
        " list): give each version of a name its own effective_from"
    )
    same_text = NAMED | {"effective_from": "2020-01-01T00:00:00Z"}
    assert refusal([NAMED, same_text]) == (
        'policies[1].version: "2018-03-16" is that of another version of "maxcompute" (number 1 of the list): give'
        " each version of a name its own version"
    )
    parse_policies([NAMED, NAMED | {"name": "other"}])  # another name may share both


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (
            [NAMED | {"suspend_afetr": "PT1H"}],
            "policies[0].suspend_afetr: is an unknown field: did you mean suspend_after?",
        ),
        ([NAMED | {"lateness": {"pause": "PT1H"}}], "policies[0].lateness.pause: is an unknown field: known are"),
        ([NAMED | {"notices": {"deleted": []}}], "policies[0].notices.deleted: is an unknown field:"),
        ([NAMED | {"a b\n": 1}], r"policies[0].a b\n: is an unknown field:"),
        ([NAMED | {1: 1}], "policies[0].1: is an unknown field:"),
    ],
)
def test_unknown_fields_are_refused_at_every_level(value: object, line: str) -> None:
    assert refusal(value).startswith(line)


def test_unknown_fields_beside_the_list_are_refused(file: File) -> None:
    assert file.refusal(BUILT_IN_FILE + "policy: maxcompute\n") == (
        "policy: is an unknown field: did you mean policies?"
    )


# Refused: what is no policy at all --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ([], "policies: is empty: write at least one policy"),
        ({}, "policies: is a mapping, not a list: write a list of policies"),
        (None, "policies: is empty, not a list: write a list of policies"),
        ("maxcompute", "policies: is a text, not a list: write a list of policies"),
        ([None], "policies[0]: is empty, not a mapping: write fields (name, version,"),
        ([[]], "policies[0]: is a list, not a mapping:"),
        ([NAMED | {"lateness": None}], "policies[0].lateness: is empty, not a mapping: write fields (suspend, delete)"),
        ([NAMED | {"notices": ["PT4H"]}], "policies[0].notices: is a list, not a mapping:"),
    ],
)
def test_what_is_no_list_of_mappings_is_refused(value: object, line: str) -> None:
    assert refusal(value).startswith(line)


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("name", "", "policies[0].name: is empty: write a text"),
        ("name", " \u3000", "policies[0].name: is empty: write a text"),
        ("name", None, "policies[0].name: is empty, not text: write text"),
        ("name", 7, "policies[0].name: is a number, not text: quote it"),
        ("name", True, "policies[0].name: is a true or false, not text: quote it"),
        ("name", "a@b", 'policies[0].name: "a@b" holds an @, which parts name and version: leave it out'),
        ("name", "é" * 65, "policies[0].name: is 130 bytes long: write at most 128"),
        ("name", "a\nb", r'policies[0].name: "a\nb" holds a control character: leave it out'),
        ("name", "a\ud800", r'policies[0].name: "a\ud800" holds a control character: leave it out'),
        ("version", "1@2", 'policies[0].version: "1@2" holds an @'),
        ("version", "v" * 129, "policies[0].version: is 129 bytes long"),
        ("version", 1.5, "policies[0].version: is a number, not text: quote it"),
        ("effective_from", "2018-03-16", "policies[0].effective_from: must be an instant like"),
        ("effective_from", "2018-03-16T00:00:00", "policies[0].effective_from: must be an instant like"),
        ("effective_from", 0, "policies[0].effective_from: is a number, not text"),
        ("suspend_after", "24h", "policies[0].suspend_after: must be a duration like"),
        ("suspend_after", "P1M", "policies[0].suspend_after: must be a duration like"),
        ("suspend_after", "-PT1H", "policies[0].suspend_after: must be a duration like"),
        ("suspend_after", 24, "policies[0].suspend_after: is a number, not a duration: write one such as PT24H"),
        ("delete_after", None, "policies[0].delete_after: is empty, not a duration: write one such as PT24H"),
        ("delete_clock", "bills", 'policies[0].delete_clock: is "bills": write arrears or suspension'),
        ("delete_clock", False, "policies[0].delete_clock: is a true or false: write arrears or suspension"),
        ("suspends", [], "policies[0].suspends: is empty: name at least one service"),
        ("suspends", "compute", "policies[0].suspends: is a text, not a list: write one in brackets, such as [a, b]"),
        ("suspends", ["compute", "compute"], 'policies[0].suspends[1]: "compute" is there twice: leave one out'),
        ("suspends", ["compute", ""], "policies[0].suspends[1]: is empty: write a text"),
        ("deletes", [], "policies[0].deletes: is empty: name at least one service"),
        ("deletes", ["storage", 5], "policies[0].deletes[1]: is a number, not text: quote it"),
        ("late_fee_per_day", 0.0005, "policies[0].late_fee_per_day: is a number, not text: quote it"),
        ("late_fee_per_day", "5e-4", "policies[0].late_fee_per_day: must be a text like"),
        ("late_fee_per_day", "-0.1", "policies[0].late_fee_per_day: must be a text like"),
        ("late_fee_per_day", "0.0000000000001", "policies[0].late_fee_per_day: must be a text like"),
        ("late_fee_required", "no", "policies[0].late_fee_required: is a text, not true or false: write one"),
        ("lateness", {"delete": 60}, "policies[0].lateness.delete: is a number, not a duration"),
        ("notices", {"deletion_ahead": "PT4H"}, "policies[0].notices.deletion_ahead: is a text, not a list"),
        (
            "notices",
            {"deletion_ahead": ["PT9H", "x"]},
            "policies[0].notices.deletion_ahead[1]: must be a duration like",
        ),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(field: str, value: object, line: str) -> None:
    assert refusal([NAMED | {field: value}]).startswith(line)


def test_a_policy_that_code_builds_passes_the_same_checks() -> None:
    with pytest.raises(PolicyError, match=r"^delete_after: PT1H is not above suspend_after"):
        msgspec.structs.replace(BUILT_IN.versions[0], delete_after=HOUR)
    with pytest.raises(PolicyError, match=r"^suspends: is empty"):
        msgspec.structs.replace(BUILT_IN.versions[0], suspends=())
    with pytest.raises(PolicyError, match=r"^is empty"):
        Policies(())


# Refused: files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", "is empty: write policies:, and a list of policies below it"),
        ("# nothing\n", "is empty: write policies:, and a list of policies below it"),
        ("- name: p\n", "is a list, not a mapping: write fields (policies)"),
        ("just text", "is a text, not a mapping"),
        ("{}", "policies: is missing: it has to be written"),
        ("policies:\n", "policies: is empty, not a list: write a list of policies"),
        ("policies: []\n", "policies: is empty: write at least one policy"),
        ("policies: [\n", "line 2, column 1: is no YAML ("),
        ("policies:\n\t- name: p\n", "line 2, column 1: is no YAML ("),
        ("policies: []\n---\npolicies: []\n", "line 2, column 1: is no YAML ("),
        ("policies: *base\n", "line 1, column 11: is no YAML (found undefined alias 'base'): mend it"),
        ("policies: \x00\n", "is no YAML ("),
        (b"# \xe9\npolicies: []\n", "line 1: is not UTF-8: save the file as UTF-8"),
        (BUILT_IN_FILE.encode("utf-16"), "line 1: is not UTF-8: save the file as UTF-8"),
        ("policies: []\npolicies: []\n", "policies: is there twice (again on line 2): leave one out"),
        (yaml_with("name: q"), "policies[0].name: is there twice (again on line 5): leave one out"),
        (
            yaml_with("lateness: {delete: PT1H, delete: PT2H}"),
            "policies[0].lateness.delete: is there twice (again on line 5): leave one out",
        ),
        (yaml_with("[a]: b"), "policies[0]: has a field whose name is no text: write a plain name"),
        (yaml_with("<<: PT1H"), "policies[0].<<: does not name a mapping"),
        (yaml_with("suspends: !!binary YQ=="), 'policies[0].suspends: has the YAML type "binary": write plain texts'),
        (yaml_with("suspends: !!set {a, b}"), 'policies[0].suspends: has the YAML type "set"'),
        (
            yaml_with("suspends: !!python/object:os.system {}"),
            'policies[0].suspends: has the YAML type "python/object:os.system"',
        ),
        (yaml_with("late_fee_required: !!bool maybe"), 'policies[0].late_fee_required: has the YAML type "bool"'),
        (yaml_with("suspends: &a [*a]"), "policies[0].suspends[0]: is an alias of what it stands in: write the value"),
        ("[" * 2000, "is nested too deep: a policy needs four levels"),
        ("# " + "x" * 1024 * 1024, "is larger than 1,048,576 bytes: is it the policy file?"),
    ],
)
def test_a_file_that_is_no_policy_file_is_refused(file: File, content: str | bytes, line: str) -> None:
    assert file.refusal(content).startswith(line)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("late_fee_per_day: 0.0005", '.late_fee_per_day: is a number, not text: quote it, "0.0005"'),
        ("suspends: [7]", '.suspends[0]: is a number, not text: quote it, "7"'),
        ("suspends: [on, off]", ".suspends[0]: is a true or false, not text: quote it"),
        ("suspends: [2018-03-16]", '.suspends[0]: is a date, not text: quote it, "2018-03-16"'),
        ("suspend_after: 24", ".suspend_after: is a number, not a duration: write one such as PT24H"),
        ("min_suspended:", ".min_suspended: is empty, not a duration: write one such as PT24H"),
    ],
)
def test_what_yaml_takes_for_something_else_has_to_be_quoted(file: File, line: str, told: str) -> None:
    assert file.refusal(yaml_with(line)) == f"policies[0]{told}"


@pytest.mark.parametrize("version", ["2018-03-16", "2018", "1.0", "2018-02-30", "2018-03-16T00:00:00Z"])
def test_a_version_without_quotes_is_refused(file: File, version: str) -> None:
    content = f"policies: [{{name: p, version: {version}, effective_from: 2018-03-16T00:00:00Z}}]"
    assert file.refusal(content).endswith(f'not text: quote it, "{version}"')


@pytest.mark.parametrize(
    "instant",
    [
        "2018-03-16",
        "2018-03-16T00:00:00",
        "2018-03-16 00:00:00+08:00",
        "2018-02-30T00:00:00Z",
        "0001-01-01T00:00:00+08:00",
        "2018-03-16T00:00:00.0000001Z",
        "20180316",
    ],
)
def test_a_date_without_offset_or_out_of_range_is_refused(file: File, instant: str) -> None:
    line = file.refusal(f'policies: [{{name: p, version: "1", effective_from: {instant}}}]')
    assert line == f'policies[0].effective_from: {INSTANT_FORM}; got "{instant}"'


@pytest.mark.parametrize("key", ["&n{n} [{aliases}]", "&n{n} {{<<: [{aliases}]}}"])
def test_a_bomb_of_aliases_is_refused(file: File, key: str) -> None:
    lines = ["a0: &n0 {x: y}"]
    lines += [f"a{n}: " + key.format(n=n, aliases=",".join([f"*n{n - 1}"] * 10)) for n in range(1, 30)]
    assert "holds more than 100,000 values" in file.refusal("\n".join(lines))


def test_a_missing_file_a_directory_and_an_impossible_path_are_refused(tmp_path: Path) -> None:
    missing = tmp_path / "nothing.yaml"
    for path, told in [
        (str(missing), f"{missing}: there is no such file: check the path"),
        (str(tmp_path), f"{tmp_path}: is a directory: name the policy file in it"),
        ("a\x00b", r"a\x00b: cannot be read (embedded null byte): check the path and its permissions"),
        (str(tmp_path / ("x" * 300)), "cannot be read (File name too long)"),
    ]:
        with pytest.raises(PolicyError) as caught:
            load_policies(path)
        assert told in str(caught.value)


# Out and in again ---------------------------------------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="@"), min_size=1, max_size=16)
LISTS_OF_SERVICES = st.lists(NAMES, min_size=1, max_size=4, unique=True).map(tuple)


@st.composite
def policy_values(draw: st.DrawFn) -> Policy:
    """Any usable policy, down to the microsecond."""
    clock: DeleteClock = draw(st.sampled_from(["arrears", "suspension"]))
    suspend_after = draw(st.integers(0, 10**14))
    between = draw(st.integers(1, 10**14))
    delete_after = between if clock == "suspension" else suspend_after + between
    min_suspended = draw(st.integers(0, between))
    suspension_ahead = st.lists(st.integers(0, max(0, suspend_after - 1)), max_size=3 if suspend_after else 0)
    deletion_ahead = st.lists(st.integers(0, min(min_suspended, delete_after - 1)), max_size=3)
    return Policy(
        name=draw(NAMES),
        version=draw(NAMES),
        effective_from=draw(st.integers(FIRST_INSTANT, LAST_INSTANT)),
        suspend_after=suspend_after,
        delete_after=delete_after,
        delete_clock=clock,
        min_suspended=min_suspended,
        suspends=draw(LISTS_OF_SERVICES),
        deletes=draw(LISTS_OF_SERVICES),
        late_fee_per_day=draw(st.integers(0, 10**12)),
        late_fee_required=draw(st.booleans()),
        lateness_suspend=draw(st.integers(0, 10**12)),
        lateness_delete=draw(st.integers(0, 10**12)),
        suspension_ahead=tuple(draw(suspension_ahead)),
        deletion_ahead=tuple(draw(deletion_ahead)),
    )


POLICIES = st.lists(
    policy_values(),
    min_size=1,
    max_size=4,
    unique_by=(lambda policy: (policy.name, policy.version), lambda policy: (policy.name, policy.effective_from)),
).map(lambda versions: Policies(tuple(versions)))


@given(POLICIES)
def test_what_a_policies_control_carries_makes_the_same_policies(policies: Policies) -> None:
    again = parse_policies(json.loads(json.dumps(to_json(policies))))
    assert again == policies
    assert [policy.policy_hash for policy in again.versions] == [policy.policy_hash for policy in policies.versions]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("PT4H"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from([*to_json(BUILT_IN)[0], "other"]), JSON_VALUES)
def test_any_value_in_any_field_is_read_or_refused_in_one_line(field: str, value: object) -> None:
    try:
        parse_policies([NAMED | {field: value}])
    except PolicyError as error:
        line = str(error)
        assert line.startswith("policies[0].")
        assert len(line.splitlines()) == 1
        line.encode()


# The hash -----------------------------------------------------------------------------------------------------------


def test_equal_content_has_an_equal_hash_however_it_is_spelled(file: File) -> None:
    respelled = file.load("""\
policies:
  - version: '2018-03-16'
    name: "maxcompute"
    effective_from: "2018-03-15T17:00:00.000+01:00"
    suspend_after: P1D
    delete_after: P15D
    late_fee_per_day: "0.000500"
    late_fee_required: off
    deletes:
      - compute
      - download
      - storage
      - caches
      - backups
    notices: {deletion_ahead: [P1D, P3D, P1W]}
""")
    assert respelled == BUILT_IN
    assert respelled.versions[0].policy_hash == BUILT_IN.versions[0].policy_hash


def test_the_hash_of_the_built_in_policy_stays_what_it_is() -> None:
    # Commands that were sent carry it: a change here would make every one of them look like another policy's.
    assert BUILT_IN.versions[0].policy_hash == "88825822e6e4972b2ff8b2b5980943eb7747792ba071ccb675f0aad760fcb1a1"


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"version": "2"},
        {"effective_from": "2018-03-15T16:00:00.000001Z"},
        {"suspend_after": "PT23H"},
        {"delete_after": "PT361H"},
        {"delete_clock": "suspension"},
        {"min_suspended": "PT71H"},
        {"suspends": ["download", "compute"]},
        {"deletes": ["storage"]},
        {"late_fee_per_day": "0.000500000001"},
        {"late_fee_required": True},
        {"lateness": {"suspend": "PT1S"}},
        {"lateness": {"delete": "PT1S"}},
        {"notices": {"suspension_ahead": []}},
        {"notices": {"deletion_ahead": ["PT24H"]}},
    ],
)
def test_other_content_has_another_hash(change: dict[str, Any]) -> None:
    assert one(**change).policy_hash != BUILT_IN.versions[0].policy_hash
