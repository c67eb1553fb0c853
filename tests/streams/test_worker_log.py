"""What a worker's libraries log: in one line each, and not the same again at once."""

from __future__ import annotations

import logging
import sys

from streams.worker import _Throttle


def logged(*messages: str) -> list[str]:
    """As the worker's handler would write them, each with an error at hand."""
    throttle, written = _Throttle(), []
    for message in messages:
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            record = logging.LogRecord("aiokafka", logging.ERROR, __file__, 1, message, (), sys.exc_info())
        if throttle.filter(record):
            written.append(logging.Formatter("%(message)s").format(record))
    return written


def test_no_traceback_and_nothing_twice() -> None:
    assert logged("gone", "gone", "back") == ["gone", "back"]


def test_a_crash_is_told_by_the_worker_in_its_own_words() -> None:
    assert logged("Crashed reason=%r") == []
