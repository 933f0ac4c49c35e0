"""What the two sides of a virtqueue offer, whatever its layout: the interface that data paths are written against.

`DriverRing` is what a driver does with a queue, `DeviceRing` what a device does. `SplitDriver` and `PackedDriver` are
the one, `SplitDevice` (vhost), `CheckedSplitDevice` and `PackedDevice` the other. Each method is one memory access, or
none, so that a data path can make each an op; `take`, `read_buffer` and `write_buffer` go through several at once, for
whoever does not need to stop in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from virtviz.ring.packed import PackedLayout
from virtviz.ring.split import SplitLayout
from virtviz.ring.verdicts import is_malformed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.engine.memory import Bytes, Port
    from virtviz.ring.driver import Segment
    from virtviz.ring.verdicts import DriverMalformed, Malformed


class DriverRingCells(Protocol):
    """What can be seen of a driver's own state.

    Attributes:
        num_free: descriptors that can still be added.
        broken: 1 once the device has returned something impossible.
        head: the buffer being added or just taken back.
        written: length the device reported for the buffer just taken back.
        token: what the driver had noted for it.
        tokens: what it has noted for each buffer that is out; 0 for the others.
        next: the free list, from each descriptor or id to the next.
        event_triggered: 1 from an interrupt until callbacks are enabled again.
        fields: every cell's value at the beginning.
    """

    num_free: int
    broken: int
    event_triggered: int
    head: int
    written: int
    token: int
    tokens: list[int]
    next: list[int]
    fields: ClassVar[dict[str, int | None]]


class DriverRing(Protocol):
    """The driver's side of a queue.

    Adding a buffer is `write_chain` (or `write_single`, or `write_indirect` and `write_indirect_desc`), then
    `list_head`, then `publish`; taking one back is `more_used`, then `take_used`. In a packed ring `list_head` has
    nothing to do.

    Attributes:
        name: the queue's name, such as `vm1.transmitq1`.
        memory: guest memory.
        event_idx: VIRTIO_RING_F_EVENT_IDX was negotiated.
    """

    name: str
    memory: Port
    event_idx: bool

    @property
    def cells(self) -> DriverRingCells:
        """The driver's own state."""
        ...

    def through(self, memory: Port) -> DriverRing:
        """Give the same driver's side as another CPU has it: what it keeps is one, the way to memory another."""
        ...

    @property
    def layout(self) -> Layout:
        """Where the queue lies."""
        ...

    def fits(self, descriptors: int) -> bool:
        """Say whether a buffer of that many descriptors can be added."""
        ...

    def uses_indirect(self, segments: int) -> bool:
        """Say whether a buffer of that many pieces goes into an indirect table."""
        ...

    def write_chain(self, segments: Sequence[Segment], writable: int, token: int) -> int:
        """Write a buffer's descriptors, unseen; answers what names the buffer."""
        ...

    def write_single(self, address: int, length: int, flags: int, token: int) -> None:
        """Write the descriptor of a buffer of one piece, unseen."""
        ...

    def write_indirect(self, table: int, segments: Sequence[Segment], writable: int) -> None:
        """Write an indirect table."""
        ...

    def write_indirect_desc(self, table: int, entries: int, token: int) -> int:
        """Write the descriptor that refers to an indirect table, unseen; answers what names the buffer."""
        ...

    def list_head(self) -> None:
        """Write the head where the device will look for it, if the layout has such a place."""
        ...

    def publish(self) -> None:
        """Make the buffer available."""
        ...

    def kick_needed(self) -> bool:
        """Decide whether what was published since the last time has to be told."""
        ...

    def more_used(self) -> bool:
        """Look whether something has come back."""
        ...

    def too_many_used(self) -> bool:
        """Look whether more has come back than a delayed interrupt was asked for."""
        ...

    def take_used(self) -> bool:
        """Take a buffer back; False if what the device returned is impossible."""
        ...

    def peek_token(self) -> int:
        """Give the token of the next used buffer without taking it; 0 if it is nonsense. For people only."""
        ...

    def peek_used(self) -> list[tuple[int, int]]:
        """Give token and length of all buffers that have come back and were not yet taken. For people only."""
        ...

    def broken_by(self) -> tuple[DriverMalformed, int]:
        """Say what was wrong with the id that broke the queue, and which it was."""
        ...

    def note_interrupt(self) -> None:
        """An interrupt came with work."""
        ...

    def disable_callbacks(self) -> str:
        """Ask not to be interrupted."""
        ...

    def enable_callbacks(self) -> None:
        """Ask to be interrupted at the next buffer."""
        ...

    def enable_callbacks_delayed(self) -> None:
        """Ask to be interrupted when three quarters have come back."""
        ...

    def move_used_event(self) -> bool:
        """While callbacks are on, ask again after each buffer taken back."""
        ...

    def begin_awaiting(self) -> None:
        """Begin where a driver is that has polled for the first time, found nothing, and waits for what comes."""
        ...

    def begin_silenced(self) -> None:
        """Begin where a driver is that no longer wants interrupts, once its very first has come."""
        ...


class DeviceRingCells(Protocol):
    """What can be seen of a device's own state.

    Attributes:
        fields: every cell's value at the beginning.
        head: what names the buffer just read.
        readable, writable: its pieces of either kind.
        address: where they lie, readable ones first.
        seen, expected: numbers of the last thing found wrong, for its message.
        overlooked: place in `verdicts.NAMES`, from 1, of the last state that was let pass; 0 for none.
    """

    fields: ClassVar[dict[str, int | None]]
    head: int
    readable: int
    writable: int
    address: list[int]
    seen: int
    expected: int
    overlooked: int


class DeviceRing(Protocol):
    """The device's side of a queue.

    Taking a buffer is `look` (unless one is `waiting`), `begin`, then `read_desc` until it says `last`; returning some
    is `write_used`, then `publish`, then `interrupt_wanted`. Anything else these answer names what is wrong with the
    ring.
    """

    name: str
    memory: Port
    event_idx: bool

    @property
    def cells(self) -> DeviceRingCells:
        """The device's own state."""
        ...

    @property
    def layout(self) -> Layout:
        """Where the queue lies."""
        ...

    def waiting(self) -> bool:
        """Say whether a buffer is known to wait, without reading memory."""
        ...

    def look(self) -> Literal["new", "empty"] | Malformed:
        """Look for a new buffer."""
        ...

    def begin(self) -> Literal["head"] | Malformed:
        """Find the head of the next buffer."""
        ...

    def move_kick_event(self) -> bool:
        """Ask for the kick after this buffer, if the back-end does that for each."""
        ...

    def read_desc(self) -> Literal["last", "next", "indirect"] | Malformed:
        """Read the next descriptor of the buffer."""
        ...

    def put_back(self, heads: Sequence[int]) -> None:
        """Take the buffers taken last as not taken."""
        ...

    def pieces(self) -> list[tuple[int, int]]:
        """Give address and length of each piece of the buffer just read, readable ones first."""
        ...

    def write_used(self, heads: Sequence[int], written: Sequence[int]) -> None:
        """Return buffers, unseen."""
        ...

    def publish(self) -> None:
        """Show what was returned."""
        ...

    def interrupt_wanted(self) -> bool:
        """Decide whether what was published has to be told."""
        ...

    def disable_kicks(self) -> bool:
        """Stop asking for kicks."""
        ...

    def enable_kicks(self) -> bool:
        """Ask for the next kick; the caller has to look once more."""
        ...


class RoomyRing(DeviceRing, Protocol):
    """A device's side that can count what waits before taking it."""

    def room(self, wanted: int) -> Literal["enough", "short"] | Malformed:
        """Say whether the buffers that wait can take so many bytes."""
        ...


class QemuRing(RoomyRing, Protocol):
    """A device's side as QEMU's virtio-net uses it."""

    @property
    def wants_kicks(self) -> bool:
        """Whether kicks are on."""
        ...

    def through(self, memory: Port) -> QemuRing:
        """Give the same device side as another thread of QEMU has it: what it keeps is one, the way to memory another.

        Args:
            memory: guest memory, as that thread's CPU reaches it.
        """
        ...

    def find(self) -> Literal["known", "new", "empty"] | Malformed:
        """See whether a buffer is available; memory is read only if none is known to wait."""
        ...

    def take_unread(self) -> None:
        """Take the buffer begun with, without looking what it consists of (virtqueue_drop_all)."""
        ...

    def let_go(self, heads: Sequence[int]) -> None:
        """Forget buffers that were taken and are never returned (virtqueue_detach_element)."""
        ...

    def mark(self) -> int:
        """Give what is known of how far the ring is filled, for `more_since`."""
        ...

    def more_since(self, mark: int) -> bool:
        """Read memory: say whether the driver has added to the ring since."""
        ...

    def peek_address(self) -> int:
        """Give the address in the first descriptor of the buffer begun with. For people only."""
        ...

    def peek_next_address(self) -> int:
        """Give the address in the first descriptor of the next buffer, -1 if that is nonsense. For people only."""
        ...


class DpdkRing(DeviceRing, Protocol):
    """A device's side as DPDK's vhost library uses it, in bursts."""

    def has_something(self) -> bool:
        """Say whether a poll would find a buffer; nothing is journaled."""
        ...

    def available(self, most: int) -> int:
        """Read memory: answers how many buffers a burst of at most so many would be about."""
        ...

    def calls_unasked(self) -> bool:
        """Say whether the next call comes whatever the guest wishes: with event indices, the first."""
        ...

    def give_up(self) -> None:
        """Deal with a chain that cannot be followed, in a queue whose buffers are sent."""
        ...

    def never_ask_for_kicks(self) -> None:
        """Leave memory as it is once the device is new and polled."""
        ...

    def stop_asking(self, memory: Port) -> bool:
        """Say for good that no kick is wanted, by way of another thread; answers whether memory was written."""
        ...

    def base(self) -> int:
        """Give how far the ring has come, as VHOST_USER_GET_VRING_BASE answers it."""
        ...

    def peek_next_address(self) -> int:
        """Give the address in the first descriptor of the next buffer, -1 if that is nonsense. For people only."""
        ...


Layout = SplitLayout | PackedLayout
"""Where the parts of a queue lie."""


def layout_at(address: int, size: int, *, packed: bool) -> Layout:
    """Lay a queue's parts out one behind the other, from a multiple of 16 on."""
    return PackedLayout.at(address, size) if packed else SplitLayout.at(address, size)


def layout_of(size: int, desc: int, driver: int, device: int, *, packed: bool) -> Layout:
    """Make the layout of a queue from the addresses of its three areas; see `lay_out`."""
    return PackedLayout(size, desc, driver, device) if packed else SplitLayout(size, desc, driver, device)


def lay_out(
    memory: Port, size: int, desc: int, driver: int, device: int, *, packed: bool
) -> Layout | Literal["queue not allowed"]:
    """Make the layout of a queue from what a driver says of it.

    Args:
        memory: guest memory, in which all of it has to lie.
        size: descriptors.
        desc: address of the Descriptor Area: descriptor table or descriptor ring.
        driver: address of the Driver Area: available ring or the driver's event suppression structure.
        device: address of the Device Area: used ring or the device's event suppression structure.
        packed: VIRTIO_F_RING_PACKED was negotiated.
    """
    lengths = (16 * size, 4, 4) if packed else (16 * size, 6 + 2 * size, 6 + 8 * size)
    if not all(memory.holds(at, length) for at, length in zip((desc, driver, device), lengths, strict=True)):
        return "queue not allowed"
    try:
        return layout_of(size, desc, driver, device, packed=packed)
    except ValueError:
        return "queue not allowed"


def take(ring: DeviceRing) -> Literal["buffer", "empty"] | Malformed:
    """Take the next buffer, if there is one; what it consists of is then in the ring's cells and `pieces`."""
    if not ring.waiting():
        found = ring.look()
        if found != "new":
            return found
    head = ring.begin()
    if head != "head":
        return head
    ring.move_kick_event()
    while True:
        answer = ring.read_desc()
        if answer == "last":
            return "buffer"
        if is_malformed(answer):
            return answer


def readable_bytes(ring: DeviceRing) -> int:
    """Give the length of what the device may read of the buffer just taken."""
    return sum(length for _, length in ring.pieces()[: ring.cells.readable])


def writable_bytes(ring: DeviceRing) -> int:
    """Give the length of what the device may write of the buffer just taken."""
    return sum(length for _, length in ring.pieces()[ring.cells.readable :])


def read_buffer(ring: DeviceRing) -> bytes:
    """Copy what the device may read of the buffer just taken; zeros stand for what lies outside memory."""
    memory = ring.memory
    return b"".join(
        memory.read(address, length) if memory.holds(address, length) else bytes(length)
        for address, length in ring.pieces()[: ring.cells.readable]
    )


def write_buffer(ring: DeviceRing, data: Bytes, offset: int = 0) -> int:
    """Write into what the device may write of the buffer just taken; see `scatter`."""
    return scatter(ring.memory, ring.pieces()[ring.cells.readable :], data, offset)


def scatter(memory: Port, pieces: Sequence[tuple[int, int]], data: Bytes, offset: int = 0) -> int:
    """Write bytes into pieces of memory, one after the other; what lies outside memory is lost.

    Args:
        memory: guest memory.
        pieces: address and length of each.
        data: what to write.
        offset: how many bytes of the pieces to pass over first.

    Returns:
        How many bytes of the data there was room for.
    """
    done = 0
    for address, length in pieces:
        if offset >= length:
            offset -= length
            continue
        part = data[done : done + length - offset]
        if part and memory.holds(address + offset, len(part)):
            memory.write(address + offset, part)
        done += len(part)
        offset = 0
    return done


def restart(ring: DeviceRing) -> None:
    """Let a device's side begin anew, as after a reset; memory stays as it is."""
    cells = ring.cells
    for field, value in type(cells).fields.items():
        if value is not None:
            setattr(cells, field, value)
