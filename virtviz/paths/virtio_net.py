"""The guest's virtio-net driver: its queues, the kick, and bringing the interface up.

Blocks G-TX (rows 4 to 13), G-TXC and G-RX. What is done to the ring itself is `ring/`; the order in which it is done is
Linux's, and stands in `virtio_xmit.py` and `virtio_add.py` (sending), `virtio_done.py` (getting sent packets back),
`virtio_receive.py` and `virtio_refill.py` (receiving).
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.ops import RETURN, Routine, call, op
from virtviz.paths.napi import Napi
from virtviz.paths.ring_words import words_of
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
    from virtviz.ring.rings import DriverRing

NAPI_WEIGHT = 64
"""Packets a poll handles at most before others have a turn."""


@cells
class TxCells(Cells):
    """What the transmit side keeps: NAPI scheduled, asked for meanwhile, bytes freed this round, packets dropped."""

    scheduled: int = 0
    missed: int = 0
    freed: int = 0
    dropped: int = 0


class Transmitq(Napi):
    """A transmit queue of the driver; see `Napi`.

    Attributes:
        pool: where socket buffers lie.
        threshold: free descriptors below which the queue is stopped.
        gives_up: without transmit NAPI a packet no longer counts for its socket once it is in the ring.
    """

    def __init__(
        self,
        state: State,
        name: str,
        ring: DriverRing,
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
        self.cells: TxCells = state.add(TxCells, f"{name}.tx")


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
        return {**words_of(self.ring), "threshold": self.q.threshold}


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


class Receiveq(Napi):
    """A receive queue of the driver; see `Napi`.

    Attributes:
        buffers: the receive buffers.
        small: where packets go that are copied out of their buffer.
        collected: packets of this poll that wait to be handed up.
        disables_in_poll: the poll itself turns callbacks off once more, as kernels newer than 6.1 do.
    """

    def __init__(
        self,
        state: State,
        name: str,
        ring: DriverRing,
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
        self.cells: RxCells = state.add(RxCells, f"{name}.rx")

    def through(self, ring: DriverRing) -> Receiveq:
        """Give the same queue as another CPU has it, which reaches the ring in its own way."""
        other = copy(self)
        other.ring = ring
        return other


class ReceiveRoutine(Routine):
    """A routine that works on one receive queue."""

    def __init__(self, name: str, place: Place, queue: Receiveq) -> None:
        super().__init__(name, place, queue.name)
        self.q = queue
        self.ring = queue.ring
        self.mine = queue.ring.cells

    def words(self, me: Context) -> Mapping[str, object]:
        """Give what the driver's texts speak of."""
        poll = self.q.cells
        return {
            **words_of(self.ring),
            "threshold": self.q.refill_above,
            "missing": poll.missing,
            "length": poll.length,
            "done": poll.done,
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
