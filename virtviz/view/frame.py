"""Frames: everything a screen shows of one position, as plain data.

A frame knows neither colours nor widgets; two frames are equal if they would look the same. It is built from a `Source`, which is a
running session or a trace file: both give the same frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

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


@dataclass(frozen=True, slots=True)
class ThreadFrame:
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


@dataclass(frozen=True, slots=True)
class PacketFrame:
    """A packet that is under way, or has arrived.

    Attributes:
        number, name: as in the header.
        outgoing: the guest sends it.
        where: the queue it waits in, else the place that handles it; empty before it exists.
        waiting: it lies in a queue.
        milestone: the last one it has passed.
        moved: the last step brought it here.
        done: its way is over (received, on the wire, or dropped).
    """

    number: int
    name: str
    outgoing: bool
    where: str
    waiting: bool
    milestone: str
    moved: bool
    done: bool


@dataclass(frozen=True, slots=True)
class Cell:
    """A field of a ring as shown: its text, whether the last step wrote it, and whether the last step read it."""

    text: str
    written: bool = False
    read: bool = False


@dataclass(frozen=True, slots=True)
class SlotFrame:
    """One slot of a split ring's three parts, side by side.

    Attributes:
        slot: its number.
        addr, len, flags, next: fields of the descriptor of that number.
        avail: the available ring's entry in this slot.
        used_id, used_len: the used ring's entry in this slot.
        owner: who may touch the descriptor: `driver`, `device` (available or being worked on), `used` (given back, not yet taken).
        packet: number of the packet the descriptor is for, 0 if none.
        is_avail_next: the driver's next available entry goes into this slot.
        is_device_next: the device takes its next available entry from this slot.
        is_used_next: the device's next used entry goes into this slot.
        is_driver_next: the driver takes its next used entry from this slot.
    """

    slot: int
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


@dataclass(frozen=True, slots=True)
class RingFrame:
    """A window on one split virtqueue.

    Attributes:
        queue: its name.
        direction: `out` or `in`.
        size: its descriptors; `slots` shows a window of them.
        slots: the window, in order of slot number.
        avail_flags, avail_idx, used_event: the driver's words.
        used_flags, used_idx, avail_event: the device's words.
        event_idx: with event indices the two flags mean nothing, without them the two events.
        last_used_idx: the driver's private position.
        last_avail_idx: the device's private position.
        num_free: descriptors the driver has left.
        changed: the last step touched this queue.
    """

    queue: str
    direction: str
    size: int
    slots: tuple[SlotFrame, ...]
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


@dataclass(frozen=True, slots=True)
class CounterFrame:
    """A counter: its name and title as in `COUNTERS`, its value at this position, and what the last step added."""

    name: str
    title: str
    value: int
    delta: int


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One crossing or effect: the step and thread it belongs to, and what it was."""

    n: int
    thread: str
    packet: int
    what: Crossing | Effect


@dataclass(frozen=True, slots=True)
class Frame:
    """Everything a screen shows of one position.

    Attributes:
        position: 0 before the first step.
        length: steps there are.
        direction: `out` or `in`: the way of the packet of the last step, or of the last one before it that had a packet; empty at first.
        step: the last step; None at position 0.
        threads, packets, counters: in their fixed order.
        ring: a window on the virtqueue that was touched last, or on the one asked for.
        cost: crossings and effects of the last step.
        where_next: the place that the running thread goes on with after its crossing; empty if it crossed nothing.
    """

    position: int
    length: int
    direction: str
    step: Step | None
    threads: tuple[ThreadFrame, ...]
    packets: tuple[PacketFrame, ...]
    counters: tuple[CounterFrame, ...]
    ring: RingFrame
    cost: tuple[LedgerEntry, ...]
    where_next: str
