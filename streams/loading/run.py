"""One load, from its files to its counts."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias

from models.contract import EVERYONE
from models.instants import FIRST_INSTANT, Instant, format_instant
from streams.brokers import Complaints, in_one_line, look_at, one_number
from streams.faults import Unusable
from streams.files import FILE_TOPICS
from streams.loading.lines import InputFile, in_order, open_source
from streams.loading.resume import FileState, State, StateFile
from streams.loading.sender import Delivery, Outgoing, Sender
from streams.partitioner import partition_by
from streams.reading import Reader
from streams.telling import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from models.records import Topic
    from streams.fetched import Partition
    from streams.loading.lines import Line, Source
    from streams.partitioner import PartitionerName

#: Lines that are sent together: what a reader may find out of order across topics.
_CHUNK: Final = 20_000
#: What is known to be delivered is noted so often.
_SAVE_EVERY_S: Final = 1.0
#: Bad lines are told one by one, up to so many.
_MOST_TOLD: Final = 1_000

#: In the place of a partition.
_ALL: Final = -1
_EVERYONE: Final = EVERYONE.encode()
_CONTROLS: Final = FILE_TOPICS.index("controls")


#: How far each file is with what is being delivered.
_UnderWay: TypeAlias = tuple[dict[int, int], Delivery]


class Shown(Protocol):
    """What is told of a load while it runs."""

    def say(self, line: str) -> None:
        """Tell a line."""

    def looking(self, size: int) -> None:
        """So many bytes are to be looked through."""

    def looked(self, size: int) -> None:
        """So many more have been."""

    def sending(self, lines: int | None, taken: int) -> None:
        """So many lines are to be sent (None: nobody knows), and so many have been taken before."""

    def sent(self, lines: int) -> None:
        """So many more have been taken."""


class Wanted(NamedTuple):
    """What is to be loaded, and how."""

    inputs: Sequence[tuple[Topic, str]]
    partitioner: PartitionerName
    app_id: str
    #: Where to remember how far it has come; None: beside the user's other state.
    resume: Path | None
    #: Load it all, whatever was loaded before.
    again: bool
    #: Send lines too that are no record.
    as_is: bool


@dataclass
class Loaded:
    """What came of it."""

    #: Lines sent, by topic; to everybody counts once.
    sent: Counter[str] = field(default_factory=Counter)
    #: Lines that an interrupted load had sent already, as far as was not known.
    there: Counter[str] = field(default_factory=Counter)
    #: Lines that could not be used.
    bad: Counter[str] = field(default_factory=Counter)
    #: Lines that an earlier load of the same files has taken.
    before: Counter[str] = field(default_factory=Counter)
    #: When all of it had been loaded before; None if there was something to do.
    finished_at: str | None = None
    stopped: bool = False
    #: The earliest and the latest instant of what was sent.
    first: Instant | None = None
    last: Instant | None = None
    seconds: float = 0.0


async def load(kafka: Mapping[str, Any], wanted: Wanted, shown: Shown) -> Loaded:
    """Load it. Raises `Unusable`. Ctrl-C and the like end it after what is under way."""
    with Complaints():
        cluster = await look_at(kafka, [topic for topic, _ in wanted.inputs])
        partitions = one_number(cluster, kafka)
        sources = [open_source(topic, path) for topic, path in wanted.inputs]
        files = [source for source in sources if isinstance(source, InputFile)]
        with ExitStack() as stack:
            kept: StateFile | None = None
            if len(files) == len(sources):
                pairs = [(file.topic, file.path) for file in files]
                kept = StateFile(wanted.resume) if wanted.resume else StateFile.of(cluster.id, pairs)
                stack.enter_context(kept)
            return await _Load(kafka, wanted, shown, partitions, sources, kept).run()


class _Load:
    def __init__(
        self,
        kafka: Mapping[str, Any],
        wanted: Wanted,
        shown: Shown,
        partitions: int,
        sources: Sequence[Source],
        kept: StateFile | None,
    ) -> None:
        self._kafka = kafka
        self._wanted = wanted
        self._shown = shown
        self._partitions = partitions
        self._sources = sources
        self._kept = kept
        self._names = {source.index: source.name for source in sources}
        self._topics = {source.index: source.topic for source in sources}
        self._state = State({}, {})
        self._saved_at = 0.0
        self._told = 0
        #: Records that may have been sent without its being known.
        self._there: Counter[tuple[str, int, bytes | None, bytes]] = Counter()
        self._stopping = asyncio.Event()
        self._partition = partition_by(wanted.partitioner, partitions)
        self.loaded = Loaded()

    async def run(self) -> Loaded:
        begun = time.monotonic()
        async with Reader(self._kafka) as reader:
            with in_one_line(self._kafka):
                ends = await reader.ends(
                    [(source.topic, number) for source in self._sources for number in range(self._partitions)]
                )
            if not self._find_place({partition: end.high for partition, end in ends.items()}):
                return self.loaded
            if not self._state.settled:
                await self._find_what_is_there(reader)
        hurry = self._stopping.is_set
        async with Sender(self._kafka, self._shown.say, hurry, self._transactional_id()) as sender:
            with _ends_on_signals(self._stopping):
                try:
                    await self._send(sender)
                finally:
                    self.loaded.seconds = time.monotonic() - begun
        return self.loaded

    def _transactional_id(self) -> str:
        # Another for each run: an id would be fenced off by the next load.
        return f"{self._wanted.app_id}-load-{time.time_ns():x}"

    # -- where to begin ---------------------------------------------------------------------------------------------

    def _find_place(self, high: Mapping[Partition, int]) -> bool:
        """Look the files through, and find out how far an earlier load has come; whether anything is left to do."""
        files = [source for source in self._sources if isinstance(source, InputFile)]
        earlier = None if self._kept is None or self._wanted.again else self._kept.read()
        if earlier is not None and not self._fits(earlier, high):
            earlier = None
        self._shown.looking(sum(file.end for file in files))
        for file in files:
            self._state.files[file.topic] = self._survey(file, earlier)
        self._state.ends = {
            source.topic: [high[source.topic, number] for number in range(self._partitions)] for source in self._sources
        }
        if earlier is not None:
            for topic, state in self._state.files.items():
                self.loaded.before[topic] = state.lines_before + state.taken
            if not earlier.finished:
                self._state.settled = earlier.settled
                if not earlier.settled:
                    self._state.ends = earlier.ends
            elif all(state.begin == state.end for state in self._state.files.values()):
                self.loaded.finished_at = earlier.saved_at
                return False
        return True

    def _fits(self, earlier: State, high: Mapping[Partition, int]) -> bool:
        """Whether the topics still have what was loaded; another list of files is the user's to mend."""
        given = {source.topic: source.path for source in self._sources}
        if earlier.files.keys() != given.keys():
            told = ", ".join(f"--{topic} {state.path}" for topic, state in earlier.files.items())
            raise Unusable(
                f"--resume is the file of another load ({told}): name another file, or give that load's inputs"
            )
        short = any(
            len(ends) != self._partitions or any(high[topic, number] < end for number, end in enumerate(ends))
            for topic, ends in earlier.ends.items()
        )
        if short:
            self._shown.say("the topics have been made anew since these files were loaded: they are loaded again")
        return not short

    def _survey(self, file: InputFile, earlier: State | None) -> FileState:
        known = None if earlier is None else earlier.files[file.topic]
        if known is None:
            survey = file.survey(None, self._shown.looked)
            return FileState(file.path, 0, 0, file.end, survey.digest, survey.lines)
        assert earlier is not None
        if earlier.finished:  # what has been added since, if anything
            file.begin, file.lines_before = known.end, known.lines_before + known.lines
        else:  # to the end that was seen then: what has been added since comes with the next load
            file.begin, file.lines_before = known.begin, known.lines_before
            file.end = min(known.end, file.end)
        survey = file.survey(known.end, self._shown.looked)
        if survey.earlier != known.digest:
            raise Unusable(
                f"--{file.topic}: {file.name} has changed since it was loaded (that load took "
                f"{counted(known.lines_before + known.taken, 'line')}): --again loads it all once more, which does no "
                "harm, for a record that comes twice counts once"
            )
        taken = 0 if earlier.finished else known.taken
        return FileState(file.path, file.begin, file.lines_before, file.end, survey.digest, survey.lines, taken)

    async def _find_what_is_there(self, reader: Reader) -> None:
        """What an interrupted load has sent after it last noted how far it had come."""
        positions = {
            (topic, number): end for topic, ends in self._state.ends.items() for number, end in enumerate(ends)
        }
        with in_one_line(self._kafka):
            async for partition, records in reader.until_now(positions):
                topic, number = partition
                self._there.update((topic, number, record.key, record.value or b"") for record in records)

    # -- sending ----------------------------------------------------------------------------------------------------

    async def _send(self, sender: Sender) -> None:
        taken = [
            self._state.files[source.topic].taken if source.topic in self._state.files else 0
            for source in self._sources
        ]
        lines = sum(state.lines for state in self._state.files.values()) if self._kept is not None else None
        self._shown.sending(lines, sum(taken))
        chunks = _chunks(in_order(self._sources, taken))
        under_way: _UnderWay | None = None
        self._save(settled=False)
        try:
            while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                reached, outgoing = self._sort_out(chunk)
                if len(outgoing) == 1 and outgoing[0].partition == _ALL:
                    await self._settle(sender, under_way)
                    under_way = None
                    await self._to_everybody(sender, outgoing[0], reached)
                else:
                    delivery = await sender.send(outgoing)
                    before, under_way = under_way, (reached, delivery)
                    await self._settle(sender, before)
                if self._stopping.is_set():
                    self.loaded.stopped = True
                    break
            await self._settle(sender, under_way)
        except BaseException:
            self._save(settled=False)
            raise
        self._state.finished = not self.loaded.stopped
        self._save(settled=True)

    def _sort_out(self, chunk: Sequence[Line]) -> tuple[dict[int, int], list[Outgoing]]:
        """How far each file is with these lines, and what is to be sent. `_ALL` stands for every partition."""
        reached: dict[int, int] = {}
        outgoing: list[Outgoing] = []
        partition, topics, there = self._partition, self._topics, self._there
        for _, file, taken, number, key, value, fault in chunk:
            reached[file] = taken
            if value is None:
                continue
            if fault and not self._is_sent_anyway(file, number, fault):
                continue
            topic = topics[file]
            if key == _EVERYONE and file == _CONTROLS:
                at = _ALL
            elif key is None:
                at = number % self._partitions
            else:
                at = partition(key)
            if there and self._is_there(topic, at, key, value):
                self.loaded.there[topic] += 1
                continue
            outgoing.append(tuple.__new__(Outgoing, (topic, at, key, value, (file, number))))
        if chunk and chunk[-1].at > FIRST_INSTANT:
            if self.loaded.first is None:
                self.loaded.first = next(line.at for line in chunk if line.at > FIRST_INSTANT)
            self.loaded.last = chunk[-1].at
        return reached, outgoing

    def _is_sent_anyway(self, file: int, number: int, fault: str) -> bool:
        self._tell_bad(
            file, number, f"{fault}; it is sent as it is" if self._wanted.as_is else f"{fault}; it is not sent"
        )
        return self._wanted.as_is

    def _tell_bad(self, file: int, number: int, fault: str) -> None:
        self.loaded.bad[self._topics[file]] += 1
        self._told += 1
        if self._told <= _MOST_TOLD:
            self._shown.say(f"{self._names[file]}:{number}: {fault}")
        elif self._told == _MOST_TOLD + 1:
            self._shown.say("more such lines are only counted")

    def _is_there(self, topic: str, at: int, key: bytes | None, value: bytes) -> bool:
        numbers = range(self._partitions) if at == _ALL else (at,)
        found = [(topic, number, key, value) for number in numbers]
        if not all(self._there[one] for one in found):
            return False
        self._there.subtract(found)
        return True

    async def _to_everybody(self, sender: Sender, record: Outgoing, reached: dict[int, int]) -> None:
        assert record.key is not None
        ends = await sender.to_everybody(record.topic, record.key, record.value, range(self._partitions))
        self.loaded.sent[record.topic] += 1
        self._note(reached, ends)

    async def _settle(self, sender: Sender, under_way: _UnderWay | None) -> None:
        """Wait until it is delivered, and note that."""
        if under_way is None:
            return
        reached, delivery = under_way
        ends = await sender.delivered(delivery)
        for (topic, _), count, _ in delivery.batches:
            self.loaded.sent[topic] += count
        for record in delivery.too_large:
            file, number = record.line
            self._tell_bad(file, number, f"has {len(record.value):,} bytes, more than a topic takes; it is not sent")
        self._note(reached, ends)

    def _note(self, reached: Mapping[int, int], ends: Mapping[Partition, int]) -> None:
        for file, taken in reached.items():
            state = self._state.files.get(self._topics[file])
            if state is not None:
                self._shown.sent(taken - state.taken)
                state.taken = taken
        for (topic, number), end in ends.items():
            self._state.ends[topic][number] = max(self._state.ends[topic][number], end)
        if time.monotonic() - self._saved_at >= _SAVE_EVERY_S:
            self._save(settled=False)  # what is sent next may arrive without its being noted

    def _save(self, *, settled: bool) -> None:
        if self._kept is None:
            return
        self._state.settled = settled
        self._state.saved_at = format_instant(time.time_ns() // 1_000_000_000 * 1_000_000)
        self._kept.save(self._state)
        self._saved_at = time.monotonic()


def _chunks(lines: Iterator[Line]) -> Iterator[list[Line]]:
    """Lines to send together; a control for everybody is alone. An empty one: nothing has come for a while."""
    chunk: list[Line] = []
    for line in lines:
        alone = line.key == _EVERYONE and line.file == _CONTROLS
        pause = line.number == 0
        if alone or pause or len(chunk) >= _CHUNK:
            if chunk or pause:
                yield chunk
            chunk = []
        if alone:
            yield [line]
        elif not pause:
            chunk.append(line)
    if chunk:
        yield chunk


@contextmanager
def _ends_on_signals(stopping: asyncio.Event) -> Iterator[None]:
    """The first signal lets what is under way end; the next one does what signals did before."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    ours = [number for number, handler in before.items() if handler is not signal.SIG_IGN]

    def restore() -> None:
        for number in ours:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])
        ours.clear()

    def stop() -> None:
        stopping.set()
        restore()

    for number in ours:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        restore()
