"""How hypothesis searches. Choose with HYPOTHESIS_PROFILE; without it `ci` where CI is set, else `dev`.

And Ctrl-C works in tests, though a shell has turned it off for what it runs in the background; and what a program that
a test runs does to the log of aiokafka ends with the test.
"""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# The machines are small and shared: a slow example says nothing about the code. What failed is printed so that it
# can be run again anywhere: @reproduce_failure(...).
settings.register_profile("dev", deadline=None, max_examples=100, print_blob=True)
settings.register_profile(
    "ci",
    settings.get_profile("dev"),
    database=None,
    derandomize=False,
    max_examples=200,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", settings.get_profile("ci"), max_examples=5_000)

settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))

signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    log = logging.getLogger("aiokafka")
    before = log.level, log.disabled
    yield
    log.setLevel(before[0])
    log.disabled = before[1]
