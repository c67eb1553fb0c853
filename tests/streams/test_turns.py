"""Turns: one table works at a time, and nobody whose work takes none has to wait for it."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from streams import turns
from streams.turns import Turns


async def work(mine: Turns, name: str, pieces: int, done: list[str]) -> None:
    """So many pieces, in as many turns as that takes."""
    while pieces:
        async with mine.turn() as turn:
            while True:
                done.append(name)
                pieces -= 1
                if not pieces or not await turn.goes_on():
                    break


@pytest.mark.parametrize(
    ("turn_s", "order"),
    [
        pytest.param(0, "abcabcabc", id="a turn is over: the next, in the order in which they asked"),
        pytest.param(60, "aaabbbccc", id="a turn lasts: its table goes on"),
    ],
)
def test_tables_take_turns(turn_s: float, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_TURN_S", turn_s)
    done: list[str] = []

    async def all_of_them() -> None:
        mine = Turns()
        await asyncio.gather(*(work(mine, name, 3, done) for name in "abc"))

    asyncio.run(all_of_them())
    assert done == list(order)


def test_however_many_work_others_are_let_in_after_every_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_TURN_S", 60)
    done: list[str] = []

    async def answers() -> None:
        while len(done) < 1000:
            done.append(".")
            await asyncio.sleep(0)

    async def all_of_them() -> None:
        mine = Turns()
        answering = asyncio.ensure_future(answers())
        await asyncio.gather(*(work(mine, name, 5, done) for name in "abcdefgh"))
        answering.cancel()

    asyncio.run(all_of_them())
    worked = [number for number, who in enumerate(done) if who != "."]
    assert len(worked) == 40
    assert all(after > before + 1 for before, after in pairwise(worked))


def test_a_turn_that_fails_ends() -> None:
    async def failing() -> None:
        mine = Turns()
        with pytest.raises(ZeroDivisionError):
            async with mine.turn():
                raise ZeroDivisionError
        async with asyncio.timeout(5), mine.turn():
            pass

    asyncio.run(failing())
