"""What a worker tells of itself, and where it is read."""

from __future__ import annotations

import json
import re
import socket
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from models.enforcement import STATUSES
from streams import metrics as declared
from streams.faults import Unusable
from streams.metrics import Metrics
from streams.metrics_server import MetricsServer

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMAS = Path(__file__).parents[2] / "models" / "schemas"


class Worker:
    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.metrics = Metrics(now=lambda: self.now)
        self.why_not_ready: str | None = "partition 3 is being recovered"
        self.why_not_live: str | None = None
        self.server = MetricsServer(
            self.metrics,
            "127.0.0.1",
            0,
            why_not_ready=lambda: self.why_not_ready,
            why_not_live=lambda: self.why_not_live,
        )

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"arrears_{name}", labels)

    def ask(self, page: str, method: str = "GET") -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        try:
            connection.request(method, page)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    with worker.server:
        yield worker


# What is declared -------------------------------------------------------------------------------------------------


def test_all_is_named_arrears_and_told_what_it_is(worker: Worker) -> None:
    families = list(text_string_to_metric_families(worker.ask("/metrics")[1]))
    assert len(families) > 35
    for family in families:
        assert family.name.startswith("arrears_")
        assert family.documentation.endswith(".")


def test_no_label_is_an_account_or_of_many_values(worker: Worker) -> None:
    _everything_of(worker.metrics, 0)
    labels = {
        label
        for family in text_string_to_metric_families(worker.ask("/metrics")[1])
        for sample in family.samples
        for label in sample.labels
    }
    few = {
        "action",
        "currency",
        "error",
        "guard",
        "kind",
        "outcome",
        "partition",
        "policy",
        "reason",
        "since",
        "status",
    }
    assert labels == few | {"le", "python", "state_version", "topic", "version", "within"}


@pytest.mark.parametrize(
    ("schema", "field", "known"),
    [
        ("arrears.commands", "action", declared.ACTIONS),
        ("arrears.commands", "reason", {reason for _, reason in declared.COMMANDS}),
        ("arrears.notices", "kind", declared.NOTICES),
        ("arrears.dead-letters", "error", declared.ERRORS),
        ("arrears.accounts", "status", STATUSES),
    ],
)
def test_labels_are_the_words_of_the_contract(schema: str, field: str, known: tuple[str, ...]) -> None:
    properties = json.loads((SCHEMAS / f"{schema}.json").read_text())["properties"]
    assert sorted(properties[field]["enum"]) == sorted(known)


def test_counters_stand_at_zero_before_anything_has_happened(worker: Worker) -> None:
    assert worker.value("commands_total", action="delete", reason="unpaid_past_delete_mark") == 0
    assert worker.value("records_total", topic="payments", outcome="accepted") == 0
    assert worker.value("dead_letters_total", topic="payments", error="not_json") == 0
    assert worker.value("breaker_trips_total", guard="max_deletes") == 0
    assert worker.value("decision_delay_seconds_count", action="restore") == 0


def test_a_counter_counts(worker: Worker) -> None:
    worker.metrics.records.labels("bills", "accepted").inc(512)
    assert 'arrears_records_total{outcome="accepted",topic="bills"} 512.0' in worker.ask("/metrics")[1]


@pytest.mark.parametrize("bound", ["60.0", "300.0"])
def test_the_promises_can_be_read_off_the_delays(worker: Worker, bound: str) -> None:
    worker.metrics.decision_delay.labels("restore").observe(float(bound))
    assert worker.value("decision_delay_seconds_bucket", action="restore", le=bound) == 1


# Partitions -------------------------------------------------------------------------------------------------------


def _everything_of(metrics: Metrics, number: int) -> None:
    one = metrics.partition(number)
    one.lag["bills"] = 2
    one.watermark["bills"] = 5.5
    one.accounts = {"current": 7, "suspended": 1}
    one.owed = {("suspended", "CNY"): 12.5}
    one.marks_ahead = {("delete", "24h"): 3}
    one.marks_pending = one.marks_overdue = one.held_back = one.unfenced_marks = one.unconfirmed = 4
    one.oldest_unfenced_mark = 999_990.0 - number
    one.oldest_unconfirmed = 999_000.0
    one.fence_blocked = one.recovering = one.brokers_away = True
    one.guards = {"max_deletes"}
    one.accounts_held_for_size = 1
    one.stopped = "bug"
    one.policies = ("maxcompute@2018-03-16",)


def test_partitions_are_summed(worker: Worker) -> None:
    for number in (0, 5):
        _everything_of(worker.metrics, number)
    summed = {
        "partitions_owned": 2,
        "marks_pending": 8,
        "marks_overdue": 8,
        "commands_held_back": 8,
        "unfenced_marks": 8,
        "unconfirmed_commands": 8,
        "fence_blocked": 2,
        "brokers_away": 2,
        "recovery_running": 2,
        "accounts_held_for_size": 2,
        "oldest_unfenced_mark_seconds": 15,
        "oldest_unconfirmed_seconds": 1000,
    }
    assert {name: worker.value(name) for name in summed} == summed
    assert worker.value("accounts", status="current") == 14
    assert worker.value("owed", status="suspended", currency="CNY") == 25
    assert worker.value("marks_ahead", action="delete", within="24h") == 6
    assert worker.value("guard", guard="max_deletes") == 2
    assert worker.value("guard", guard="max_suspends") == 0
    assert worker.value("partitions_stopped", reason="bug") == 2
    assert worker.value("policy_info", policy="maxcompute@2018-03-16") == 1


def test_lag_and_watermark_are_told_by_partition(worker: Worker) -> None:
    _everything_of(worker.metrics, 5)
    assert worker.value("lag_records", topic="bills", partition="5") == 2
    assert worker.value("watermark_timestamp_seconds", topic="bills", partition="5") == 5.5


def test_of_a_partition_that_is_lost_nothing_is_told_any_more(worker: Worker) -> None:
    before = worker.ask("/metrics")[1]
    _everything_of(worker.metrics, 3)
    assert worker.ask("/metrics")[1] != before
    worker.metrics.forget(3)
    worker.metrics.forget(3)
    assert _of_arrears_alone(worker.ask("/metrics")[1]) == _of_arrears_alone(before)


def _of_arrears_alone(text: str) -> list[str]:
    return [line for line in text.splitlines() if "arrears_process_" not in line]


def test_an_age_grows_although_nobody_sets_it(worker: Worker) -> None:
    worker.metrics.partition(0).oldest_unfenced_mark = worker.now - 10
    worker.now += 50
    assert worker.value("oldest_unfenced_mark_seconds") == 60
    worker.metrics.partition(0).oldest_unfenced_mark = None
    assert worker.value("oldest_unfenced_mark_seconds") == 0


def test_a_guard_that_nobody_knows_yet_is_told_all_the_same(worker: Worker) -> None:
    worker.metrics.partition(0).guards = ["a_new_one"]
    assert worker.value("guard", guard="a_new_one") == 1


def test_two_workers_in_a_process_do_not_mix(worker: Worker) -> None:
    other = Metrics()
    other.rebalances.inc()
    assert worker.value("rebalances_total") == 0


# The server -------------------------------------------------------------------------------------------------------


def test_ready_says_why_not(worker: Worker) -> None:
    assert worker.ask("/ready") == (503, "partition 3 is being recovered\n")
    assert worker.value("ready") == 0
    worker.why_not_ready = None
    assert worker.ask("/ready") == (200, "ready\n")
    assert worker.value("ready") == 1


def test_live_says_why_not(worker: Worker) -> None:
    assert worker.ask("/live") == (200, "live\n")
    worker.why_not_live = "the event loop has not answered for 60 s"
    assert worker.ask("/live") == (503, "the event loop has not answered for 60 s\n")


def test_there_are_three_pages_to_be_read(worker: Worker) -> None:
    assert worker.ask("/") == (404, "There is /metrics, /live, /ready.\n")
    assert worker.ask("/metrics", "POST")[0] == 405
    assert worker.ask("/ready", "HEAD") == (503, "")


def test_someone_who_says_nothing_keeps_nobody_waiting(worker: Worker) -> None:
    with socket.create_connection(("127.0.0.1", worker.server.port)):
        assert worker.ask("/live")[0] == 200


def test_a_port_that_is_taken_is_told(worker: Worker) -> None:
    other = MetricsServer(Metrics(), "127.0.0.1", worker.server.port, why_not_ready=lambda: None)
    told = f"ARREARS_METRICS_PORT: cannot listen on 127.0.0.1 port {worker.server.port} "
    with pytest.raises(Unusable, match=f"^{re.escape(told)}.*another port, or 0 for a free one$"):
        other.start()


@pytest.mark.parametrize("host", ["no such host", "192.0.2.1"])
def test_an_address_of_another_machine_is_told(host: str) -> None:
    with pytest.raises(Unusable, match=r"^ARREARS_METRICS_(HOST|PORT): .*: (take|choose) .*$"):
        MetricsServer(Metrics(), host, 0, why_not_ready=lambda: None).start()


def test_after_a_stop_the_port_is_free(worker: Worker) -> None:
    port = worker.server.port
    worker.server.stop()
    with socket.create_server(("127.0.0.1", port)):
        pass
