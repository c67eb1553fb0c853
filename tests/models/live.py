"""A monitor driven as the live system drives it: records arrive, the clock goes on, decisions come when they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from models.codec import decode_everybody, encode_everybody
from models.everybody import Everybody
from models.instants import HOUR, format_instant, parse_instant
from models.monitor import Live, Monitor, Terms
from models.outputs import Command, DeadLetter, Notice, Source
from models.policy import BUILT_IN, Policies
from models.records import decode
from models.refusal import Refusal
from models.state_version import VERSION
from models.store import AccountStore

if TYPE_CHECKING:
    from typing import Any

    from models.contract import Topic
    from models.outputs import AccountView
    from models.records import Record

START = parse_instant("2026-01-01T00:00:00Z")
HISTORY = 45 * 24 * HOUR
LIVE = Terms("arrears", HISTORY, 3 * 24 * HOUR, Live(max_ahead=HOUR // 6))
_NOWHERE = Source("bills", 0, 0, None, None, None)


class Partition:
    """One partition of the live system: a monitor over an account store, and what it has published.

    Its journal is written in the newest version of the state, unless told otherwise.
    """

    def __init__(self, policies: Policies = BUILT_IN, terms: Terms = LIVE, version: int = VERSION) -> None:
        self.version = version
        self.monitor = Monitor(Everybody(policies, terms.history), terms, AccountStore(version))
        self.commands: list[Command] = []
        self.notices: list[Notice] = []
        self.dead_letters: list[DeadLetter] = []
        #: The journal, as it would be recovered.
        self.journal: dict[bytes, bytes] = {}

    def clock(self, hours: float) -> None:
        """Set the clock to so many hours after START."""
        self.monitor.clock = START + round(hours * HOUR)

    def apply(self, record: Record, source: Source = _NOWHERE) -> bool:
        """Take in a record."""
        return self.monitor.apply(record, lambda: source)

    def take(self, topic: Topic, **fields: Any) -> bool:
        """Take in a record of a topic; its instants may be hours after START."""
        value = msgspec.json.encode({k: _instant(k, v) for k, v in fields.items()})
        try:
            record = decode(topic, value)
        except Refusal as refusal:
            self.monitor.refuse(Source(topic, 0, 0, None, value, None), refusal)
            return False
        return self.apply(record, Source(topic, 0, 0, None, value, None))

    def decide(self, at: int) -> None:
        """Decide at an instant, then at each that follows from it at once."""
        monitor = self.monitor
        monitor.seal()
        for past in (False, True):
            published = monitor.decide(at, past=past)
            self.commands += published.commands
            self.notices += published.notices
            self.dead_letters += published.dead_letters

    def decide_after(self, hours: float) -> None:
        """Decide at so many hours after START; the inputs are read up to then."""
        at = START + round(hours * HOUR)
        self.monitor.clock = at
        self.monitor.remember_from(at)
        self.decide(at)

    def restart(self) -> None:
        """Commit, and go on with another monitor that knows the journal only."""
        self.commit()
        store = AccountStore(self.version)
        everybody = Everybody(BUILT_IN, HISTORY)
        for key, value in self.journal.items():
            if key == b"@":
                everybody = decode_everybody(value)
            else:
                store.recover(key, value)
        remembered = self.monitor._horizon, self.monitor._settled  # the shell has its watermarks
        self.monitor = Monitor(everybody, self.monitor.terms, store)
        self.monitor._horizon, self.monitor._settled = remembered

    def commit(self) -> None:
        """Write what has changed to the journal."""
        store = self.monitor.accounts
        assert isinstance(store, AccountStore)
        self.dead_letters += self.monitor.take_dead_letters()
        for key, value in store.take_changes():
            if value is None:
                self.journal.pop(key, None)
            else:
                self.journal[key] = value
        self.journal[b"@"] = encode_everybody(self.monitor.everybody, self.version)

    def account(self, account_id: str = "a1") -> AccountView:
        """The account as it stands now."""
        return next(view for view in self.monitor.views(self.monitor.clock) if view.account_id == account_id)

    def told(self, kind: str) -> list[Notice]:
        """The notices of a kind."""
        return [notice for notice in self.notices if notice.kind == kind]


def _instant(field: str, value: Any) -> Any:
    """Hours after START as an instant; other values as they are."""
    if isinstance(value, int | float) and field != "sequence":
        return format_instant(START + round(value * HOUR))
    return value
