"""The trace: what each step did, in a form for readers.

A `Step` says everything about one step that a screen, a file or a lesson's condition may want to know. A machine keeps
three bytes for a step; `Trace` builds the rest on demand, from the op table and from what the journal noted.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from virtviz.engine.journal import CELL, KIND, LOAD, SLICE, STORE
from virtviz.engine.ops import pick

if TYPE_CHECKING:
    from collections.abc import Callable

    from virtviz.engine.effects import EffectKind
    from virtviz.engine.memory import Region
    from virtviz.engine.places import CrossingKind, Domain, Side
    from virtviz.engine.program import Arc, Op
    from virtviz.engine.recording import RecordingMachine
    from virtviz.engine.threads import Registers

MEM: Final = "mem"
CELLS: Final = "cell"
CONTEXTS: Final = ("process", "softirq", "hardirq")
"""Names of the levels a CPU can be at, by `Registers.level`."""
KEPT_STEPS: Final = 4096
"""Steps kept once they have been built; stepping back and forth in a lesson builds none twice."""
NUMBER_BYTES_MAX: Final = 8
"""Longer stretches of memory are given as hexadecimal digits, not as a number."""

Value = int | str | None
"""A number, or bytes as hexadecimal digits, or None if it was not noted."""


class Access(Struct, frozen=True):
    """A cell or a stretch of memory that a step read or wrote.

    Attributes:
        space: `mem` or `cell`.
        field: a cell's full name; in memory, the field's name within its owner, such as `avail.idx`, empty if it has
            none.
        owner: in memory, the queue or pool the field belongs to, such as `vm1.transmitq1`; for cells empty.
        region: in memory, the region's name, such as `vm1.ram`; for cells empty.
        addr: in memory, the address in its region; a cell's number.
        size: bytes in memory; 8 for a cell.
        old: the value before a write; None for a read.
        new: the value written, or the value read. Numbers are little-endian. None for the content of a record that was
            read.
    """

    space: str
    field: str
    owner: str
    region: str
    addr: int
    size: int
    old: Value
    new: Value


class Crossing(Struct, frozen=True):
    """A border crossed by a step, on the way to the next one.

    Attributes:
        kind: what kind of border.
        side: whose crossing it is.
        source, target: the domains on both sides of it.
        cause: why.
    """

    kind: CrossingKind
    side: Side
    source: Domain
    target: Domain
    cause: str


class Effect(Struct, frozen=True):
    """What a primitive did beside the step's own operation.

    Attributes:
        kind: the effect.
        side: where it happened.
        how: in which of several ways; empty where there is one.
        target: the thread it reached; empty if none.
        target_kind: that thread's kind (a `ThreadKind`); empty if none.
        bytes: how many a copy or a DMA transfer moved; 0 for others.
        cause: why.
    """

    kind: EffectKind
    side: Side
    how: str
    target: str
    target_kind: str
    bytes: int
    cause: str


class Step(Struct, frozen=True):
    """One step.

    Attributes:
        n: its number, from 1; the state after it is that of position `n`.
        t_ns: the simulated time at which it began, by its thread's clock, in nanoseconds.
        thread: the thread that took it.
        context: what its CPU was doing: `process`, `softirq` or `hardirq`.
        place: whose code it was.
        domain: that place's domain.
        op: the op's name within its routine; what lessons call it.
        routine: the routine's name.
        outcome: how it ended.
        title: a few words.
        row: the row of the model's table of steps, such as `G-TX.10`.
        function: the function of the real system.
        source: where that function is.
        spec: section of the virtio specification, empty if it is not the specification that asks for this.
        text: a sentence or two.
        packet: number of the packet it was about, 0 for none.
        queue: the virtqueue it worked on, empty for none.
        reads, writes: what it read and wrote, in order.
        crossings, effects: what it crossed and what else it did.
        milestone: the point of its packet's way that it is; empty for none.
        into: the queue in which its packet waits from here on; empty if it goes on.
        held: names of the threads that were not allowed to move after it.
    """

    n: int
    t_ns: int
    thread: str
    context: str
    place: str
    domain: Domain
    op: str
    routine: str
    outcome: str
    title: str
    row: str
    function: str
    source: str
    spec: str
    text: str
    packet: int
    queue: str
    reads: tuple[Access, ...]
    writes: tuple[Access, ...]
    crossings: tuple[Crossing, ...]
    effects: tuple[Effect, ...]
    milestone: str
    into: str
    held: tuple[str, ...] = ()


class Trace:
    """The steps of a recording machine.

    Args:
        machine: it is set to the position of whatever step is asked for.
        held_after: names the threads that were held after a step, given its number.
    """

    def __init__(self, machine: RecordingMachine, held_after: Callable[[int], tuple[str, ...]] = lambda _: ()) -> None:
        self.machine = machine
        self._held_after = held_after
        self._kept: OrderedDict[int, Step] = OrderedDict()

    def __len__(self) -> int:
        return self.machine.length

    def step(self, n: int) -> Step:
        """Give step `n`, 1..len; the machine then stands at position `n`."""
        made = self._kept.get(n)
        self.machine.seek(n, with_step=made is None)
        if made is None:
            made = self._kept[n] = self._build(n)
            if len(self._kept) > KEPT_STEPS:
                self._kept.popitem(last=False)
        return made

    def forget_after(self, position: int) -> None:
        """Forget the steps after a position, because something else happens there now."""
        for n in [n for n in self._kept if n > position]:
            del self._kept[n]

    def _build(self, n: int) -> Step:
        machine = self.machine
        arc = machine.arc_at(n - 1)
        op, outcome = arc.op, arc.outcome
        spec, routine = op.spec, op.routine
        thread = machine.threads[machine.timeline.threads[n - 1]]
        me = thread.me
        reads, writes, level = self._accesses(n, f"{thread.name}.level", me.level)
        words = {"queue": routine.queue, **routine.words(me)}
        row = pick(spec.row, outcome)
        function, source = routine.functions.get(spec.function, (spec.function, spec.source))
        return Step(
            n=n,
            t_ns=me.clock - machine.duration(arc, me),
            thread=thread.name,
            context=CONTEXTS[level],
            place=op.place.name,
            domain=op.place.domain,
            op=op.name,
            routine=routine.name,
            outcome=outcome,
            title=pick(spec.title, outcome),
            row=routine.rows.get(row, row),
            function=function,
            source=str(source),
            spec=f"virtio 1.4 {spec.spec}" if spec.spec else "",
            text=pick(spec.text, outcome).format(**words),
            packet=me.packet,
            queue=routine.queue,
            reads=reads,
            writes=writes,
            crossings=_crossings(arc, machine, n),
            effects=_effects(arc, me),
            milestone=pick(spec.milestone, outcome),
            into=pick(spec.into, outcome).format(**words),
            held=self._held_after(n),
        )

    def _accesses(self, n: int, level_cell: str, level: int) -> tuple[tuple[Access, ...], tuple[Access, ...], int]:
        """Read the journal of the step just taken: reads, writes, and the highest level its thread was at."""
        state, timeline = self.machine.state, self.machine.timeline
        words = timeline.entries_of(n - 1)
        blob_end = self.machine.blob_end
        newer: dict[tuple[Region, int, int] | int, Value] = {}
        reads: list[Access] = []
        writes: list[Access] = []
        # Last first: what a later write of the same step overwrote is what an earlier one wrote.
        for i in range(len(words) - 4, -1, -2):
            word, value = words[i], words[i + 1]
            kind, where = word & KIND, word >> 3
            if kind == CELL:
                new = newer.get(where, int(state.value(where)))
                newer[where] = value
                name = state.names[where]
                if name == level_cell:
                    level = max(level, value)
                if new != value:
                    writes.append(Access(CELLS, name, "", "", where, 8, value, new))
                continue
            address = where << 1 if kind in (STORE, LOAD) else where
            size = 2 if kind in (STORE, LOAD) else value
            region = state.region_at(address)
            address -= region.base
            owner, field = region.field_at(address, size)
            if kind in (STORE, SLICE):
                if kind == STORE:
                    old: Value = value
                else:
                    old = _shown(timeline.journal.blobs[blob_end - size : blob_end])
                    blob_end -= size
                key = (region, address, size)
                new_value = newer.get(key)
                if new_value is None:
                    new_value = _shown(region.bytes[address : address + size])
                newer[key] = old
                writes.append(Access(MEM, field, owner, region.name, address, size, old, new_value))
            else:
                reads.append(
                    Access(MEM, field, owner, region.name, address, size, None, value if kind == LOAD else None)
                )
        return tuple(reversed(reads)), tuple(reversed(writes)), level


def _shown(data: bytes | bytearray) -> Value:
    return int.from_bytes(data, "little") if len(data) <= NUMBER_BYTES_MAX else data.hex()


def _crossings(arc: Arc, machine: RecordingMachine, n: int) -> tuple[Crossing, ...]:
    if arc.crossing is None or arc.side is None:
        return ()
    thread = machine.threads[machine.timeline.threads[n - 1]]
    target = machine.program.ops[thread.pc].place.domain
    spec = arc.op.spec
    cause = spec.cause or pick(spec.title, arc.outcome)
    return (Crossing(arc.crossing, arc.side, arc.op.place.domain, target, cause),)


def _effects(arc: Arc, me: Registers) -> tuple[Effect, ...]:
    if arc.effect is None:
        return ()
    op: Op = arc.op
    return (
        Effect(
            kind=arc.effect,
            side=op.place.side,
            how=arc.how or "",
            target=arc.target.name if arc.target else "",
            target_kind=arc.target.kind if arc.target else "",
            bytes=arc.size(me) if arc.size is not None else 0,
            cause=op.spec.cause or pick(op.spec.title, arc.outcome),
        ),
    )
