"""Frames: everything a screen shows of one position, as plain data.

A frame knows neither colours nor widgets; two frames are equal if they would look the same. It is built from a
`Source`, which is a running session or a trace file: both give the same frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from virtviz.engine.trace import Crossing, Effect, Step
    from virtviz.paths.describe import Header


class Source(Protocol):
    """Where frames come from."""

    @property
    def header(self) -> Header:
        """What the world is made of."""
        ...

    @property
    def length(self) -> int:
        """Steps there are; positions are 0..length."""
        ...

    def step(self, n: int) -> Step:
        """Give step `n`, 1..length."""
        ...

    def cell(self, position: int, name: str) -> int:
        """Give a cell's value at a position."""
        ...

    def memory(self, position: int, region: str, addr: int, size: int) -> bytes:
        """Give bytes of memory at a position."""
        ...


class ThreadFrame(Struct, frozen=True):
    """A thread at this position.

    Attributes:
        name: such as `vhost-4002`.
        kind: `vcpu`, `host` or `hardware`.
        state: `runs` (took the last step), `ready`, `waits` (for a condition), `sleeps`, or `held`.
        place, domain: where its code stands.
        woken: the last step woke it.
    """

    name: str
    kind: str
    state: str
    place: str
    domain: str
    woken: bool


class PacketFrame(Struct, frozen=True):
    """A packet that is under way, or has arrived.

    Attributes:
        number, name: as in the header.
        outgoing: the guest sends it.
        where: the queue it waits in, else the place that handles it; empty before it exists.
        waiting: it lies in a queue.
        milestone: the last one it has passed.
        came_from: where it was before the last step, if that step moved it; else empty.
        done: its way is over: `received`, `on-wire` or `dropped`; empty while it is under way.
    """

    number: int
    name: str
    outgoing: bool
    where: str
    waiting: bool
    milestone: str
    came_from: str
    done: str

    @property
    def moved(self) -> bool:
        """Whether the last step brought it where it is."""
        return bool(self.came_from)


class Cell(Struct, frozen=True):
    """A field of a ring as shown.

    Attributes:
        text: its value; a dot where nothing was ever written.
        written, read: the last step wrote it, or read it.
        live: it means something now; what is not live is left over from before.
    """

    text: str
    written: bool = False
    read: bool = False
    live: bool = True


class SlotFrame(Struct, frozen=True):
    """One column of a split ring's three parts: a descriptor, a slot of the available ring, a slot of the used ring.

    Attributes:
        slot: the slot's number in both rings.
        desc: the descriptor's number; the same as `slot` unless heads and slots have drifted apart.
        addr, len, flags, next: fields of the descriptor.
        avail: the available ring's entry in this slot.
        used_id, used_len: the used ring's entry in this slot.
        owner: who may touch the descriptor: `driver`, `device` (available or being worked on), `used` (given back,
            not yet taken).
        packet: number of the packet the descriptor is for, 0 if none.
        is_avail_next: the driver's next available entry goes into this slot.
        is_device_next: the device takes its next available entry from this slot.
        is_used_next: the device's next used entry goes into this slot.
        is_driver_next: the driver takes its next used entry from this slot.
    """

    slot: int
    desc: int
    addr: Cell
    len: Cell
    flags: Cell
    next: Cell
    avail: Cell
    used_id: Cell
    used_len: Cell
    owner: str
    packet: int
    is_avail_next: bool
    is_device_next: bool
    is_used_next: bool
    is_driver_next: bool

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Its fields in memory."""
        return (self.addr, self.len, self.flags, self.next, self.avail, self.used_id, self.used_len)


class RingFrame(Struct, frozen=True):
    """A window on one split virtqueue.

    Attributes:
        queue: its name.
        direction: `out` or `in`.
        size: its descriptors; `slots` shows a window of them.
        slots: the window, in order of slot number.
        desc: number of the descriptor that was worked on last; -1 before any was.
        avail_flags, avail_idx, used_event: the driver's words.
        used_flags, used_idx, avail_event: the device's words.
        event_idx: with event indices the two flags mean nothing, without them the two events.
        last_used_idx: the driver's private position.
        last_avail_idx: the device's private position.
        num_free: descriptors the driver has left.
        changed: the last step worked on this queue.
    """

    queue: str
    direction: str
    size: int
    slots: tuple[SlotFrame, ...]
    desc: int
    avail_flags: Cell
    avail_idx: Cell
    used_event: Cell
    used_flags: Cell
    used_idx: Cell
    avail_event: Cell
    event_idx: bool
    last_used_idx: Cell
    last_avail_idx: Cell
    num_free: Cell
    changed: bool

    @property
    def title(self) -> str:
        """The queue's name without its machine's."""
        return self.queue.rpartition(".")[2]


class PackedSlotFrame(Struct, frozen=True):
    """One column of a packed ring: a descriptor.

    Attributes:
        slot: its number.
        addr, len, id: fields of the descriptor.
        flags: AVAIL and USED, then the others as letters, such as `A-W`.
        owner: who may touch it: `driver`, `device` (available or being worked on), `used` (given back, not yet taken).
        packet: number of the packet the descriptor is for, 0 if none.
        is_avail_next: the driver's next available descriptor goes here.
        is_device_next: the device takes its next descriptor from here.
        is_used_next: the device's next used descriptor goes here.
        is_driver_next: the driver takes its next used descriptor from here.
        driver_event, device_event: wrap counter of an event suppression structure that names this slot; -1 if it does
            not, or if its flags do not refer to its place.
    """

    slot: int
    addr: Cell
    len: Cell
    id: Cell
    flags: Cell
    owner: str
    packet: int
    is_avail_next: bool
    is_device_next: bool
    is_used_next: bool
    is_driver_next: bool
    driver_event: int
    device_event: int

    @property
    def desc(self) -> int:
        """The descriptor's number, which is that of its slot."""
        return self.slot

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Its fields in memory."""
        return (self.addr, self.len, self.id, self.flags)


class EventFrame(Struct, frozen=True):
    """An event suppression structure of a packed queue.

    Attributes:
        place: slot and wrap counter, such as `3 w1`; it means something only with the flags DESC.
        flags: `ENABLE`, `DISABLE`, `DESC`, or a number that means nothing.
    """

    place: Cell
    flags: Cell


class PackedRingFrame(Struct, frozen=True):
    """A window on one packed virtqueue.

    Attributes:
        queue, direction, size, slots, desc, event_idx, num_free, changed: as of `RingFrame`.
        driver_event, device_event: what each side wishes to be told of.
        avail_wrap, next_avail: the driver's wrap counter, and the slot at which it goes on.
        used_wrap, last_used: the wrap counter with which the driver reads what comes back, and where.
        device_wrap, device_next: the wrap counter with which the device reads what is available, and where.
        device_used_wrap, device_used: the device's wrap counter, and where it returns the next buffer.
    """

    queue: str
    direction: str
    size: int
    slots: tuple[PackedSlotFrame, ...]
    desc: int
    event_idx: bool
    driver_event: EventFrame
    device_event: EventFrame
    avail_wrap: Cell
    next_avail: Cell
    used_wrap: Cell
    last_used: Cell
    device_wrap: Cell
    device_next: Cell
    device_used_wrap: Cell
    device_used: Cell
    num_free: Cell
    changed: bool

    @property
    def title(self) -> str:
        """The queue's name without its machine's."""
        return self.queue.rpartition(".")[2]


class E1000SlotFrame(Struct, frozen=True):
    """One descriptor of an e1000's ring.

    Attributes:
        slot: its number.
        addr, len, status: fields of the descriptor.
        word: of a transmit descriptor its commands, of a receive descriptor its errors.
        owner: `device` from head to tail, `used` if it is done and the driver has not taken it yet, else `driver`.
        packet: number of the packet it is for, 0 if none.
        is_head, is_tail: the device's registers point here.
        is_use_next: the driver fills this one next.
        is_clean_next: the driver takes this one back next.
    """

    slot: int
    addr: Cell
    len: Cell
    word: Cell
    status: Cell
    owner: str
    packet: int
    is_head: bool
    is_tail: bool
    is_use_next: bool
    is_clean_next: bool

    @property
    def desc(self) -> int:
        """The descriptor's number: that of its slot, for they are the same."""
        return self.slot

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Its fields in memory."""
        return (self.addr, self.len, self.word, self.status)


class E1000RingFrame(Struct, frozen=True):
    """A window on a descriptor ring of an e1000.

    Attributes:
        queue: its name.
        direction: `out` or `in`.
        size: its descriptors; `slots` shows a window of them.
        slots: the window, in order of slot number.
        desc: number of the descriptor that was worked on last; -1 before any was.
        head, tail: the device's registers.
        next_to_use, next_to_clean: the driver's positions.
        unused: descriptors that the driver could fill.
        changed: the last step worked on this ring.
    """

    queue: str
    direction: str
    size: int
    slots: tuple[E1000SlotFrame, ...]
    desc: int
    head: Cell
    tail: Cell
    next_to_use: Cell
    next_to_clean: Cell
    unused: int
    changed: bool

    @property
    def title(self) -> str:
        """The ring's name without its machine's."""
        return self.queue.rpartition(".")[2]


AnySlot: TypeAlias = SlotFrame | PackedSlotFrame | E1000SlotFrame
AnyRing: TypeAlias = RingFrame | PackedRingFrame | E1000RingFrame
"""Of whatever format the queue is."""


class CounterFrame(Struct, frozen=True):
    """A counter: its name and title as in `COUNTERS`, its value at this position, and what the last step added."""

    name: str
    title: str
    value: int
    delta: int


class LedgerEntry(Struct, frozen=True):
    """One crossing or effect: the step and thread it belongs to, and what it was."""

    n: int
    thread: str
    packet: int
    what: Crossing | Effect


class Frame(Struct, frozen=True):
    """Everything a screen shows of one position.

    Attributes:
        position: 0 before the first step.
        length: steps there are.
        direction: `out` or `in`: the way of the packet of the last step, or of the last one before it that had a
            packet; empty at first.
        packet: number of that packet; 0 at first.
        step: the last step; None at position 0.
        threads, packets, counters: in their fixed order.
        ring: a window on the virtqueue that was touched last, or on the one asked for; None in a world without any.
        rings: for every virtqueue its name, and the numbers of the packets that lie in it, in the order in which they
            came.
        cost: crossings and effects of the last step.
        machine: the virtual machine whose thread, or whose back-end, took a step last; the first one at first.
        where_next: the domain in which the running thread goes on after its crossing; empty if it crossed nothing.
        registers: name and value of what the machine's device shows in registers while it runs; none on PCI.
    """

    position: int
    length: int
    direction: str
    packet: int
    step: Step | None
    threads: tuple[ThreadFrame, ...]
    packets: tuple[PacketFrame, ...]
    counters: tuple[CounterFrame, ...]
    ring: AnyRing | None
    rings: tuple[tuple[str, tuple[int, ...]], ...]
    cost: tuple[LedgerEntry, ...]
    machine: str
    where_next: str
    registers: tuple[tuple[str, Cell], ...] = ()

    def counter(self, name: str) -> CounterFrame:
        """Give a counter by its name."""
        return next(c for c in self.counters if c.name == name)

    @property
    def running(self) -> ThreadFrame | None:
        """The thread that took the last step; None at position 0."""
        return next((t for t in self.threads if t.state == "runs"), None)
