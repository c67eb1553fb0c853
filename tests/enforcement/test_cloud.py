"""The example service by itself: what it does with commands that come twice, out of order, late, or too late."""

from __future__ import annotations

import ast
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.enforcement.cloud import SERVICES, Cloud, Position, StartedLate

if TYPE_CHECKING:
    from collections.abc import Iterator

_OFFSETS = count(1)
_STOPS = ["compute", "download"]


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    opened = Cloud(tmp_path / "cloud.sqlite", "gateway")
    yield opened
    opened.close()


def somewhere(topic: str = "arrears.commands") -> Position:
    return Position(topic, 0, next(_OFFSETS))


def command(sequence: int, action: str, **fields: Any) -> dict[str, Any]:
    services = list(SERVICES) if action == "delete" else _STOPS
    made = {"command_id": f"c{sequence}", "account_id": "a", "sequence": sequence, "action": action}
    return made | {"services": services, "notice_id": "n" if action == "delete" else None} | fields


def view(sequence: int, status: str, **fields: Any) -> dict[str, Any]:
    stopped = {"suspended": _STOPS, "deleted": list(SERVICES)}.get(status, [])
    made = {"account_id": "a", "sequence": sequence, "status": status, "suspended_services": stopped}
    return made | {"last_command_id": f"c{sequence}"} | fields


def notice(kind: str = "deletion_ahead", **fields: Any) -> dict[str, Any]:
    return {"notice_id": "n", "kind": kind, "account_id": "a", "command_id": None} | fields


def doomed(cloud: Cloud) -> None:
    """Up to the delete, which is the next to be applied."""
    cloud.apply(command(1, "suspend"), somewhere())
    cloud.keep_notices([notice()], somewhere("arrears.notices"))
    cloud.keep_views([view(2, "deleted")], somewhere("arrears.accounts"))


def acts(cloud: Cloud) -> list[tuple[int, str]]:
    return [(sequence, act) for _, sequence, act, _ in cloud.history()]


def states(cloud: Cloud) -> str:
    """The first letter of each service's state."""
    return "".join(state[0] for state in cloud.services("a").values())


def test_what_comes_twice_is_done_once(cloud: Cloud) -> None:
    for _ in range(2):
        cloud.apply(command(1, "suspend"), somewhere())
    assert states(cloud) == "ssrrr"
    cloud.apply(command(2, "restore"), somewhere())
    cloud.apply(command(1, "suspend"), somewhere())
    assert states(cloud) == "rrrrr"
    assert acts(cloud) == [(1, "suspend"), (2, "restore")]
    assert len(cloud.unsent_acks()) == 2


def test_a_gap_is_noticed_and_closed_by_the_view(cloud: Cloud) -> None:
    with pytest.raises(StartedLate):
        cloud.apply(command(3, "suspend"), somewhere())
    assert (cloud.applied("a"), acts(cloud), cloud.unsent_acks()) == (0, [], [])
    cloud.settle(view(4, "suspended"))
    cloud.apply(command(3, "restore"), somewhere())
    assert (cloud.applied("a"), states(cloud), acts(cloud)) == (4, "ssrrr", [(4, "settled")])
    cloud.settle(view(3, "current"))  # an older one
    assert states(cloud) == "ssrrr"


def test_a_delete_that_nothing_speaks_against(cloud: Cloud) -> None:
    doomed(cloud)
    cloud.apply(command(2, "delete"), somewhere())
    assert (states(cloud), acts(cloud)[-1]) == ("ddddd", (2, "delete"))
    # Reopened, it starts anew; no command says so.
    cloud.keep_views([view(2, "in_arrears")], somewhere("arrears.accounts"))
    assert states(cloud) == "rrrrr"


def test_a_delete_that_something_speaks_against(cloud: Cloud) -> None:
    doomed(cloud)
    for problem in ("reopened", "contradicted", "the customer was not told", "its view is not there", "overtaken"):
        cloud.keep_views([view(2, "deleted")], somewhere())
        cloud.keep_notices([notice(), notice("delete_contradicted", notice_id="m", command_id="other")], somewhere())
        one, overtaken = command(2, "delete"), False
        match problem:
            case "reopened":
                cloud.keep_views([view(2, "current")], somewhere())
            case "contradicted":
                cloud.keep_notices([notice("delete_contradicted", notice_id="m", command_id="c2")], somewhere())
            case "the customer was not told":
                one["notice_id"] = "another"
            case "its view is not there":
                cloud.keep_views([view(1, "suspended")], somewhere())
            case _:
                overtaken = True
        cloud.apply(one, somewhere(), is_overtaken=overtaken)
        assert acts(cloud)[-1] == (2, f"not done: {problem}")
        assert "d" not in states(cloud)
        (failed,) = [value for _, _, value in cloud.unsent_acks() if '"failed"' in value]
        assert '"command_id": "c2"' in failed
        cloud._database.execute("UPDATE applied SET sequence = 1")  # and once more


def test_an_act_is_whole_or_not_there(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cloud, "_acknowledge", killed)
    with pytest.raises(KeyboardInterrupt):
        cloud.apply(command(1, "suspend"), Position("arrears.commands", 0, 7))
    assert (cloud.applied("a"), states(cloud), acts(cloud)) == (0, "rrrrr", [])
    assert cloud.position("arrears.commands", 0) is None


def test_an_ack_is_the_same_to_the_letter_until_kafka_has_it(cloud: Cloud) -> None:
    cloud.apply(command(1, "suspend"), somewhere())
    (first,) = cloud.unsent_acks()
    cloud.apply(command(1, "suspend"), somewhere())
    assert cloud.unsent_acks() == [first]
    cloud.sent([first[0]])
    assert cloud.unsent_acks() == []


def test_it_was_written_without_a_look_inside() -> None:
    """Whoever writes such a service has the README and deploy/asyncapi.yaml, and not our code."""
    for module in Path(__file__).parent.glob("[!t]*.py"):
        for node in ast.walk(ast.parse(module.read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.partition(".")[0] in {"models", "streams", "deploy", "faust"}]
            assert not [name for name in names if name.startswith("tests.") and "enforcement" not in name]
