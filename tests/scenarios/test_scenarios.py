"""Every scenario of every file, replayed; and every sentence of the contract has one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from . import runs, sentences, timeline

if TYPE_CHECKING:
    from .timeline import Scenario


@pytest.mark.parametrize("scenario", [pytest.param(one, id=one.name) for one in timeline.scenarios()])
def test_scenario(scenario: Scenario) -> None:
    """The replay and the slow model both meet the table, and the order of the lines in the files plays no part."""
    found = [f"the replay: {line}" for line in runs.differences(scenario, runs.the_replay)]
    if not found:
        found += [f"lines reversed: {line}" for line in runs.differences(scenario, runs.the_replay, backwards=True)]
    found += [f"the slow model: {line}" for line in runs.differences(scenario, runs.the_slow_model)]
    assert not found, "\n".join([f"{scenario.file}:{scenario.line}: {scenario.title}", *found])


def test_each_scenario_has_a_name_of_its_own() -> None:
    names = Counter(scenario.name for scenario in timeline.scenarios())
    assert [name for name, count in names.items() if count > 1] == []


def test_quotes_are_the_contract_s_sentences() -> None:
    known = set(sentences.SENTENCES)
    strange = {f"{one.file}: {quote}" for one in timeline.scenarios() for quote in one.quotes if quote not in known}
    assert sorted(strange) == []


def test_each_sentence_of_the_contract_has_a_scenario() -> None:
    quoted = {quote for one in timeline.scenarios() for quote in one.quotes}
    assert [sentence for sentence in sentences.SENTENCES if sentence not in quoted] == []
