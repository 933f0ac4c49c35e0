"""The guest's virtio-net driver: its queues, the kick, and bringing the interface up.

Blocks G-TX (rows 4 to 13), G-TXC and G-RX. What is done to the ring itself is `ring/`; the order in which it is done is
Linux's, and stands in `virtio_xmit.py` and `virtio_add.py` (sending), `virtio_done.py` (getting sent packets back),
`virtio_receive.py` and `virtio_refill.py` (receiving).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.ops import RETURN, Routine, call, op
from virtviz.spec.citation import VIRTIO_NET, VIRTIO_PCI, VIRTIO_RING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.guest_cpu import GuestCpu
    from virtviz.paths.guest_stack import Socket, TxQueue
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.queues import Fifo
    from virtviz.ring.split_driver import SplitDriver

NAPI_WEIGHT = 64
"""Packets a poll handles at most before others have a turn."""


@cells
class TxCells(Cells):
    """What the transmit side keeps: NAPI scheduled, asked for meanwhile, bytes freed this round, packets dropped."""

    scheduled: int = 0
    missed: int = 0
    freed: int = 0
    dropped: int = 0


class Transmitq:
    """A transmit queue of the driver.

    Attributes:
        ring: the driver's side of the virtqueue.
        pool: where socket buffers lie.
        threshold: free descriptors below which the queue is stopped.
        napi: its NAPI number.
        gives_up: without transmit NAPI a packet no longer counts for its socket once it is in the ring.
    """

    def __init__(
        self,
        state: State,
        name: str,
        ring: SplitDriver,
        pool: PacketPool,
        tx: TxQueue,
        socket: Socket,
        cpu: GuestCpu,
        threshold: int,
        napi: int,
        *,
        gives_up: bool,
    ) -> None:
        self.name = name
        self.ring = ring
        self.pool = pool
        self.tx = tx
        self.socket = socket
        self.cpu = cpu
        self.threshold = threshold
        self.napi = napi
        self.gives_up = gives_up
        self.cells = state.add(TxCells, f"{name}.tx")

    def schedule(self) -> bool:
        """Schedule the queue's NAPI instance; if it is scheduled already, note that somebody asked; answer False."""
        mine = self.cells
        if mine.scheduled:
            if not mine.missed:
                mine.missed = 1
            return False
        mine.scheduled = 1
        self.cpu.schedule_poll(self.napi)
        return True

    def complete(self) -> str:
        """Take the NAPI instance off the list: `done`; if somebody asked for it meanwhile, put it back: `missed`."""
        mine = self.cells
        if mine.missed:
            mine.missed = 0
            self.cpu.schedule_poll(self.napi)
            return "missed"
        mine.scheduled = 0
        return "done"


class TransmitRoutine(Routine):
    """A routine that works on one transmit queue."""

    def __init__(self, name: str, place: Place, queue: Transmitq, rows: Mapping[str, str] | None = None) -> None:
        super().__init__(name, place, queue.name)
        self.q = queue
        self.ring = queue.ring
        self.mine = queue.ring.cells
        if rows:
            self.rows = rows

    def words(self, me: Context) -> Mapping[str, object]:
        """Give what the driver's texts speak of."""
        mine = self.mine
        return {
            "head": mine.head,
            "idx": mine.avail_idx_shadow,
            "last_used": mine.last_used_idx,
            "num_free": mine.num_free,
            "threshold": self.q.threshold,
            "asked": _asked(self.ring),
            "late": _asked_late(self.ring),
            "wish": _wish(self.ring),
        }


def _wish(ring: SplitDriver) -> str:
    """Name what a device says whether it wants kicks by, and with event indices its value."""
    if not ring.event_idx:
        return f"used.flags {int.from_bytes(ring.memory.read(ring.layout.used_flags, 2), 'little')}"
    return f"avail_event {int.from_bytes(ring.memory.read(ring.layout.avail_event, 2), 'little')}"


def _asked(ring: SplitDriver) -> str:
    """Name what a driver asks for an interrupt by, and its value."""
    return f"used_event = {ring.cells.last_used_idx}" if ring.event_idx else "avail.flags = 0"


def _asked_late(ring: SplitDriver) -> str:
    """Say what a driver that wants to hear late has asked for."""
    mine = ring.cells
    if not ring.event_idx:
        return "avail.flags = 0: without event indices a late interrupt cannot be asked for, only one each time."
    last_used = mine.last_used_idx
    outstanding = mine.avail_idx_shadow - last_used & 0xFFFF
    return (
        f"used_event = {last_used + outstanding * 3 // 4 & 0xFFFF}: last used, {last_used}, + ¾ of the {outstanding} "
        "outstanding, rounded down. One interrupt for many packets, if there are many."
    )


@cells
class RxCells(Cells):
    """What a receive poll keeps: packets done; of a merged packet the buffers missing, length, first and last slot."""

    done: int = 0
    missing: int = 0
    length: int = 0
    first: int = 0
    last: int = 0
    scheduled: int = 0
    missed: int = 0
    errors: int = 0


class Receiveq:
    """A receive queue of the driver.

    Attributes:
        ring: the driver's side of the virtqueue.
        buffers: the receive buffers.
        small: where packets go that are copied out of their buffer.
        collected: packets of this poll that wait to be handed up.
        napi: its NAPI number.
        disables_in_poll: the poll itself turns callbacks off once more, as kernels newer than 6.1 do.
    """

    def __init__(
        self,
        state: State,
        name: str,
        ring: SplitDriver,
        buffers: PacketPool,
        small: PacketPool,
        collected: Fifo,
        cpu: GuestCpu,
        napi: int,
        *,
        mergeable: bool,
        disables_in_poll: bool,
    ) -> None:
        self.name = name
        self.ring = ring
        self.buffers = buffers
        self.small = small
        self.collected = collected
        self.cpu = cpu
        self.napi = napi
        self.mergeable = mergeable
        self.disables_in_poll = disables_in_poll
        self.refill_above = min(NAPI_WEIGHT, ring.layout.size) // 2
        self.cells = state.add(RxCells, f"{name}.rx")

    def schedule(self) -> bool:
        """Schedule the queue's NAPI instance; if it is scheduled already, note that somebody asked; answer False."""
        mine = self.cells
        if mine.scheduled:
            if not mine.missed:
                mine.missed = 1
            return False
        mine.scheduled = 1
        self.cpu.schedule_poll(self.napi)
        return True

    def complete(self) -> str:
        """Take the NAPI instance off the list: `done`; if somebody asked for it meanwhile, put it back: `missed`."""
        mine = self.cells
        if mine.missed:
            mine.missed = 0
            self.cpu.schedule_poll(self.napi)
            return "missed"
        mine.scheduled = 0
        return "done"


class ReceiveRoutine(Routine):
    """A routine that works on one receive queue."""

    def __init__(self, name: str, place: Place, queue: Receiveq) -> None:
        super().__init__(name, place, queue.name)
        self.q = queue
        self.ring = queue.ring
        self.mine = queue.ring.cells

    def words(self, me: Context) -> Mapping[str, object]:
        """Give what the driver's texts speak of."""
        mine, poll = self.mine, self.q.cells
        return {
            "head": mine.head,
            "written": mine.written,
            "asked": _asked(self.ring),
            "last_used": mine.last_used_idx,
            "num_free": mine.num_free,
            "threshold": self.q.refill_above,
            "missing": poll.missing,
            "length": poll.length,
            "done": poll.done,
            "wish": _wish(self.ring),
        }


class Notify(Routine):
    """The kick: a 16-bit store to the queue's notify address. Row 13 of G-TX, row 7 of G-RX.

    Args:
        exit_to_kvm: what the store leads to.
        row: which of the two rows it is.
    """

    def __init__(self, name: str, place: Place, queue: str, cpu: GuestCpu, exit_to_kvm: Routine, row: str) -> None:
        super().__init__(name, place, queue)
        self.cpu = cpu
        self.exit_to_kvm = exit_to_kvm
        self.rows = {"kick": row}

    @op(
        "kick",
        "kick the device",
        "vp_notify",
        VIRTIO_PCI,
        spec="4.1.5.2",
        text=(
            "The driver stores the queue's number to the queue's notify address. It looks like any store, but "
            "no memory is there."
        ),
        to=call("exit_to_kvm", None),
        cause="store to the notify address",
        cost="kick",
    )
    def kick(self, me: Context) -> None: ...


class NotifyInterruptsOff(Notify):
    """The same by a guest that happens to have interrupts disabled while it kicks."""

    @op(
        "kick",
        "kick the device",
        "vp_notify",
        VIRTIO_PCI,
        spec="4.1.5.2",
        text=(
            "The driver stores the queue's number to the queue's notify address. The guest has interrupts "
            "disabled just now."
        ),
        to=call("exit_to_kvm", "enable_interrupts"),
        cause="store to the notify address",
        cost="kick",
    )
    def kick(self, me: Context) -> None:
        self.cpu.cells.interrupts_on = 0

    @op(
        "kick",
        "enable interrupts again",
        "virtqueue_notify",
        VIRTIO_RING,
        text="The guest enables interrupts again; one that waited can come now.",
        to=RETURN,
        opens=True,
        private=True,
    )
    def enable_interrupts(self, me: Context) -> None:
        self.cpu.cells.interrupts_on = 1


class OpenDevice(Routine):
    """Bring the interface up: fill the receive queue and kick once (ndo_open). Runs before the first step."""

    def __init__(self, name: str, place: Place, refill: Routine, program: Routine) -> None:
        super().__init__(name, place)
        self.refill = refill
        self.program = program

    @op(
        "G-RX.6",
        "bring the interface up",
        "virtnet_open",
        VIRTIO_NET,
        text="The driver offers a buffer with every descriptor of the receive queue before the first packet can come.",
        to=call("refill", "up"),
    )
    def open(self, me: Context) -> None: ...

    @op(
        "G-RX.6",
        "the interface is up",
        "virtnet_open",
        VIRTIO_NET,
        text="The interface is up: programs can use the network.",
        to=call("program", None),
    )
    def up(self, me: Context) -> None: ...
