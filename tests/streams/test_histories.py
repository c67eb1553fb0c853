"""Whatever happened: files replay to what the slow model says, in any order of lines, and are explained likewise."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.instants import parse_instant
from models.policy import BUILT_IN, load_policies
from streams.explain import explain
from streams.files import FILE_TOPICS, Inputs
from streams.outcome import PartReplay, Progress, Wanted
from streams.writers import Output, Outputs
from tests.models.histories import History, histories, lines
from tests.models.test_against_oracle import comparable, run_oracle

if TYPE_CHECKING:
    from random import Random

    from models.policy import Policies

NAMES = ("commands", "notices", "accounts", "dead_letters")


def policies_of(history: History) -> Policies:
    text = history[1]
    if text is None:
        return BUILT_IN
    with TemporaryDirectory() as folder:
        path = Path(folder) / "policies.yaml"
        path.write_text(text)
        return load_policies(str(path))


def inputs_of(history: History, dice: Random | None = None) -> Inputs:
    contents = []
    for topic in FILE_TOPICS:
        values = lines(history[0][topic])
        if dice is not None:
            dice.shuffle(values)
        contents.append((topic, b"\n".join(values)))
    return Inputs(contents)


def replayed(history: History, inputs: Inputs) -> dict[str, bytes]:
    """The outputs, as the files that they are."""
    until = None if history[2] is None else parse_instant(history[2])
    with TemporaryDirectory() as folder:
        paths = {name: Path(folder) / name for name in NAMES}
        commands, notices, accounts, letters = (Output("", str(path)) for path in paths.values())
        with commands, notices, accounts, letters:
            outputs = Outputs(commands, notices, accounts, letters)
            PartReplay(inputs, Wanted(policies_of(history), "arrears", until), Progress()).run(outputs)
        return {name: path.read_bytes() for name, path in paths.items()}


def values(output: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(histories(), st.randoms(use_true_random=False))
def test_files_replay_to_what_the_slow_model_says_in_any_order_of_lines(history: History, dice: Random) -> None:
    outputs = replayed(history, inputs_of(history))
    assert comparable({name: values(output) for name, output in outputs.items()}) == comparable(run_oracle(history))
    shuffled = replayed(history, inputs_of(history, dice))
    assert {name: shuffled[name] for name in NAMES[:3]} == {name: outputs[name] for name in NAMES[:3]}

    def without_lines(output: bytes) -> list[str]:
        return sorted(str({**letter, "offset": 0}) for letter in values(output))

    assert without_lines(shuffled["dead_letters"]) == without_lines(outputs["dead_letters"])


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(histories())
def test_each_account_is_explained_as_it_is_replayed(history: History) -> None:
    inputs, policies = inputs_of(history), policies_of(history)
    until = None if history[2] is None else parse_instant(history[2])
    outputs = {name: values(output) for name, output in replayed(history, inputs).items()}
    for account in outputs["accounts"]:
        mine = account["account_id"]
        story = explain(inputs, mine, policies, "arrears", until)
        assert story is not None
        told = json.loads(msgspec.json.encode(story.as_json()))
        assert told["account"] == account
        for kind in ("command", "notice"):  # at one instant the story goes on as it went
            events = [event[kind] for event in told["events"] if event["type"] == kind]
            assert sorted(events, key=str) == sorted(
                (value for value in outputs[f"{kind}s"] if value["account_id"] == mine), key=str
            )
        balances = ["0", *(event["balance_after"] for event in told["events"] if event["type"] == "record")]
        assert balances[-1] == account["balance"]
        refused = [
            event for event in told["events"] if event.get("result") == "refused" and event["account_id"] == mine
        ]
        letters = [letter for letter in outputs["dead_letters"] if json.loads(letter["value"])["account_id"] == mine]
        assert {(line["topic"], line["line"], line["error"]) for line in (*refused, *told["bad_lines"])} == {
            (letter["topic"], letter["offset"], letter["error"]) for letter in letters
        }
