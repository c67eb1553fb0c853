"""The peers' job in Quix Streams; runs on the Python of its own venv: BROKERS GROUP OUTPUT RECORDS STATE_FOLDER.

It says `first MS` (since 1970) with the first record, and ends when all are processed and committed.
"""

from __future__ import annotations

import sys
import time
from datetime import datetime
from typing import Any

from quixstreams import Application  # type: ignore[import-not-found]

COMMIT_EVERY_S = 5.0


def say(what: str) -> None:
    print(f"{what} {time.time_ns() // 1_000_000}", flush=True)  # noqa: T201


def micros(amount: str) -> int:
    whole, _, fraction = amount.partition(".")
    return int(whole) * 1_000_000 + int(fraction.ljust(6, "0"))


def apply(event: dict[str, Any], state: Any) -> dict[str, Any] | None:
    """A record into its account; what comes out, if anything does."""
    kept = state.get("balance") or {"micros": 0, "arrears_since": None}
    before, since = kept["micros"], kept["arrears_since"]
    at = event.get("issued_at")
    after = before - micros(event["amount"]) if at is not None else before + micros(event["amount"])
    at = at or event["paid_at"]
    change = None
    if before >= 0 > after:
        since = int(datetime.fromisoformat(at).timestamp())
        change = {"account_id": event["account_id"], "kind": "arrears_started", "at": at, "owed": -after}
    elif before < 0 <= after:
        since = None
        change = {"account_id": event["account_id"], "kind": "cleared", "at": at}
    state.set("balance", {"micros": after, "arrears_since": since})
    return change


def main(brokers: str, group: str, output: str, records: int, folder: str) -> None:
    processed = 0

    def on_processed(*_: object) -> None:
        nonlocal processed
        processed += 1
        if processed == 1:
            say("first")
        if processed == records:
            app.stop()  # it commits what is open

    app = Application(
        broker_address=brokers,
        consumer_group=group,
        auto_offset_reset="earliest",
        state_dir=folder,
        processing_guarantee="exactly-once",
        commit_interval=COMMIT_EVERY_S,
        on_message_processed=on_processed,
        loglevel="WARNING",
    )
    frame = app.dataframe(app.topic("bills")).concat(app.dataframe(app.topic("payments")))
    frame = frame.apply(apply, stateful=True)
    frame = frame[frame.apply(lambda change: change is not None)]
    frame.to_topic(app.topic(output))
    app.run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
