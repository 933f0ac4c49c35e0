"""A trace file read back: every cell and every byte at every position, from the file alone.

The header holds the state before the first step, each step says what it overwrote and with what. Going forward writes
the new values in order, going back the old ones in reverse.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from virtviz.engine.trace import CELLS, KEPT_STEPS, NUMBER_BYTES_MAX, Access, Crossing, Effect, Step
from virtviz.errors import TraceFileError
from virtviz.export.compact import unpack
from virtviz.export.jsonl import TimedStep
from virtviz.export.lines import FORMAT, FORMAT_VERSION, FooterLine, HeaderLine, StepLine, WriteLine
from virtviz.paths.describe import Header, InitialState, PacketInfo, PlaceInfo, QueueInfo, ThreadInfo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

T = TypeVar("T")

CLOCK: Final = ".clock"
"""Suffix of the cell in which a thread keeps its simulated time; its value after a step is the step's `end_ns`."""


class _Opening(msgspec.Struct):
    """What the first line must say before the rest of it is looked at."""

    format: str = ""
    format_version: int = 0


_opening = msgspec.json.Decoder(_Opening)
_header = msgspec.json.Decoder(HeaderLine)
_step = msgspec.json.Decoder(StepLine)
_footer = msgspec.json.Decoder(FooterLine)


class Replay:
    """A recorded run; it is a `view.frame.Source`.

    Args:
        content: the bytes of a trace file.
        path: what the file is called in messages.

    Attributes:
        header: what the world is made of.
        footer: steps, packets, counters and drops, as the file says.
        initial: the state before the first step.
        position: where the state that is kept stands; asking for another position moves it.

    Raises:
        TraceFileError: it is no trace file of this version, a line is damaged, or the end is missing.
    """

    def __init__(self, content: bytes, path: str = "trace") -> None:
        self._path = path
        self._lines = content.split(b"\n")
        self._check_opening()
        line: HeaderLine = self._decode(_header, 1)
        self._check_end()
        self.footer: FooterLine = self._decode(_footer, self.length + 2)
        self.header = _read_header(line)
        try:
            cells, self._memory = unpack(line.state)
        except ValueError as error:
            raise self._error(1, f"the state before the first step cannot be rebuilt: {error}") from error
        self.initial = InitialState(cells, {name: bytes(content) for name, content in self._memory.items()})
        self._numbers = {name: number for number, name in enumerate(cells)}
        self._values = list(cells.values())
        self.position = 0
        self._clocks_before = [0]
        clocks = {thread.name + CLOCK: cells.get(thread.name + CLOCK, 0) for thread in self.header.threads}
        for n in range(1, self.length + 1):
            self._check_step(n, clocks)
        self._made = lru_cache(maxsize=KEPT_STEPS)(lambda n: _read_step(self._line(n)))

    @classmethod
    def open(cls, path: Path) -> Replay:
        """Read a trace file.

        Raises:
            TraceFileError: as for the class; or the file cannot be read.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise TraceFileError(f"{path}: cannot be read: {error.strerror}") from error
        return cls(content, str(path))

    # The source of frames

    @property
    def length(self) -> int:
        """Steps there are; positions are 0..length."""
        return len(self._lines) - 3

    def step(self, n: int) -> Step:
        """Give step `n`, 1..length."""
        return self._made(n)

    def cell(self, position: int, name: str) -> int:
        """Give a cell's value at a position.

        Raises:
            KeyError: there is no cell of that name.
        """
        number = self._numbers[name]
        self._go_to(position)
        return self._values[number]

    def memory(self, position: int, region: str, addr: int, size: int) -> bytes:
        """Give bytes of memory at a position.

        Raises:
            KeyError: there is no region of that name.
        """
        content = self._memory[region]
        self._go_to(position)
        return bytes(content[addr : addr + size])

    def state(self, position: int) -> InitialState:
        """Copy all cells, in the order of their numbers, and all memory, as of a position."""
        self._go_to(position)
        return InitialState(
            dict(zip(self._numbers, self._values, strict=True)),
            {name: bytes(content) for name, content in self._memory.items()},
        )

    def timed_steps(self) -> Iterator[TimedStep]:
        """Go through all steps; writing them again gives the same file."""
        for n in range(1, self.length + 1):
            yield TimedStep(self.step(n), self._line(n).end_ns)

    # Going to a position

    def _go_to(self, position: int) -> None:
        if not 0 <= position <= self.length:
            raise IndexError(f"position {position} is not in 0..{self.length}")
        while self.position < position:
            self.position += 1
            line = self._line(self.position)
            for write in line.writes:
                self._put(write, write.new)
            self._values[self._numbers[line.thread + CLOCK]] = line.end_ns
        while self.position > position:
            line = self._line(self.position)
            for write in reversed(line.writes):
                self._put(write, write.old)
            self._values[self._numbers[line.thread + CLOCK]] = self._clocks_before[self.position]
            self.position -= 1

    def _put(self, write: WriteLine, value: int | str) -> None:
        if write.space == CELLS:
            assert isinstance(value, int)
            self._values[self._numbers[write.field]] = value
            return
        data = value.to_bytes(write.size, "little") if isinstance(value, int) else bytes.fromhex(value)
        self._memory[write.region][write.addr : write.addr + write.size] = data

    # Reading and checking lines

    def _line(self, n: int) -> StepLine:
        return _step.decode(self._lines[n])

    def _decode(self, decoder: msgspec.json.Decoder[T], line: int) -> T:
        try:
            return decoder.decode(self._lines[line - 1])
        except msgspec.ValidationError as error:
            raise self._error(line, f"this line is not as the format says: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._error(line, f"this line is damaged: {error}") from error

    def _error(self, line: int, what: str) -> TraceFileError:
        return TraceFileError(f"{self._path}:{line}: {what}")

    def _check_opening(self) -> None:
        """Refuse what is no trace file, and say what it is instead."""
        first = self._lines[0]
        if not first:
            raise self._error(1, "there is nothing here; a trace is what `virtviz run LESSON` writes")
        if first.startswith(b'{"header":'):
            raise self._error(1, "this is a trace as one document; what can be read back is `--format jsonl`")
        try:
            opening = _opening.decode(first)
        except (msgspec.DecodeError, UnicodeDecodeError):
            opening = _Opening()
        if opening.format != FORMAT:
            raise self._error(1, f'this is no trace: the first line of one begins with {{"format":"{FORMAT}"')
        if opening.format_version != FORMAT_VERSION:
            raise self._error(
                1,
                f"this is version {opening.format_version} of the format; what can be read is version {FORMAT_VERSION}",
            )

    def _check_end(self) -> None:
        """Refuse a file that was cut short."""
        last = len(self._lines) - 1
        if self._lines[-1]:
            raise self._error(last + 1, "the file is cut short: its last line has no end")
        if last < 2 or not self._lines[-2].startswith(b'{"steps":'):
            raise self._error(last + 1, f"the file is cut short: after {last - 1} steps comes no footer")

    def _check_step(self, n: int, clocks: dict[str, int]) -> None:
        """Refuse a step that is out of order or does not fit the state; note what its thread's clock was before it."""
        line = self._decode(_step, n + 1)
        if line.n != n:
            raise self._error(
                n + 1, f"this is step {line.n}, and should be step {n}: lines are missing or out of order"
            )
        if line.thread + CLOCK not in clocks:
            raise self._error(n + 1, f"the header knows no thread {line.thread!r}")
        for write in line.writes:
            if not self._fits(write):
                raise self._error(
                    n + 1, f"{write.field or write.addr!r} of {write.region or 'the cells'} cannot be written so"
                )
            if write.space == CELLS and write.field in clocks:
                clocks[write.field] = int(write.new)
        self._clocks_before.append(clocks[line.thread + CLOCK])
        clocks[line.thread + CLOCK] = line.end_ns
        if n == self.length and self.footer.steps != n:
            raise self._error(n + 2, f"the footer counts {self.footer.steps} steps, and there are {n}")

    def _fits(self, write: WriteLine) -> bool:
        """Say whether a write is one of a cell or of bytes that exist, by values that have room there."""
        if write.space == CELLS:
            return write.field in self._numbers and isinstance(write.old, int) and isinstance(write.new, int)
        content = self._memory.get(write.region)
        if content is None or write.addr + write.size > len(content):
            return False
        if write.size <= NUMBER_BYTES_MAX:
            return all(isinstance(value, int) and value >> 8 * write.size == 0 for value in (write.old, write.new))
        return all(isinstance(value, str) and len(value) == 2 * write.size for value in (write.old, write.new))


def _read_header(line: HeaderLine) -> Header:
    return Header(
        lesson=line.lesson,
        title=line.title,
        seed=line.seed,
        world=line.world,
        departures=tuple(line.departures),
        threads=tuple(ThreadInfo(t.name, t.kind, t.place) for t in line.threads),
        places=tuple(PlaceInfo(p.name, p.domain, p.title) for p in line.places),
        queues=tuple(
            QueueInfo(
                name=q.name,
                direction=q.direction,
                region=q.region,
                size=q.size,
                desc=q.desc,
                avail=q.avail,
                used=q.used,
                event_idx=q.event_idx,
                driver=q.driver,
                device=q.device,
                format=q.format,
            )
            for q in line.queues
        ),
        packets=tuple(PacketInfo(p.number, p.name, p.outgoing, p.length, p.what) for p in line.packets),
        rounds=line.rounds,
    )


def _read_step(line: StepLine) -> Step:
    return Step(
        n=line.n,
        t_ns=line.t_ns,
        thread=line.thread,
        context=line.context,
        place=line.place,
        domain=line.domain,
        op=line.op,
        routine=line.routine,
        outcome=line.outcome,
        title=line.title,
        row=line.row,
        function=line.function,
        source=line.source,
        spec=line.spec or "",
        text=line.text,
        packet=line.packet or 0,
        queue=line.queue or "",
        reads=tuple(Access(r.space, r.field, r.owner, r.region, r.addr, r.size, None, r.value) for r in line.reads),
        writes=tuple(Access(w.space, w.field, w.owner, w.region, w.addr, w.size, w.old, w.new) for w in line.writes),
        crossings=tuple(Crossing(c.kind, c.side, c.from_, c.to, c.cause) for c in line.crossings),
        effects=tuple(Effect(e.kind, e.side, e.how, e.target, e.target_kind, e.bytes, e.cause) for e in line.effects),
        milestone=line.milestone or "",
        into=line.into or "",
        held=tuple(line.held),
    )
