"""The guest's e1000 driver: what it keeps, and how it touches the card's registers.

The card has no queue that driver and device could agree on in memory alone. What the driver wants done it says by
storing to a register, and why it was interrupted it finds out by loading one. Each such store and load leaves the
guest.

Sending is `e1000_xmit.py`, the interrupt and the NAPI poll are `e1000_poll.py`, giving buffers to the card is
`e1000_refill.py`.

Source: Linux 6.12 drivers/net/ethernet/intel/e1000/e1000_main.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.ops import RETURN, Routine, call, op
from virtviz.spec.citation import E1000
from virtviz.spec.e1000 import IMS_ENABLE_MASK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.guest_cpu import GuestCpu
    from virtviz.paths.guest_stack import Socket, TxQueue
    from virtviz.paths.kvm_device import AccessCells
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.queues import Fifo
    from virtviz.ring.e1000 import E1000Ring


@cells
class AdapterCells(Cells):
    """What the driver keeps beside its rings.

    Attributes:
        scheduled: 1 while the NAPI instance is on the poll list.
        piece: how many pieces of the packet being sent have a descriptor.
        freed: bytes of sent packets that this poll has freed.
        freed_packets: how many these were.
        done: packets received in this poll.
        used_up: receive descriptors taken in this poll and not yet filled again.
        slot: buffer of the packet in hand; 0 once it has been copied out.
        copy: slot it was copied into; 0 if it was not.
        length: its bytes.
        errors: received descriptors that held no whole frame.
        discarding: 1 while the rest of a frame that did not fit into one buffer is thrown away.
    """

    scheduled: int = 0
    piece: int = 0
    freed: int = 0
    freed_packets: int = 0
    done: int = 0
    used_up: int = 0
    slot: int = 0
    copy: int = 0
    length: int = 0
    errors: int = 0
    discarding: int = 0


class Adapter:
    """The driver's adapter: one transmit ring, one receive ring, one NAPI instance for both.

    Args:
        tx, rx: the driver's side of the rings.
        skbs: where socket buffers lie.
        buffers: the receive buffers.
        collected: packets of this poll that wait to be handed up.
        access: the value that an instruction stores to a register or loads from one.
    """

    napi = 0

    def __init__(
        self,
        state: State,
        name: str,
        *,
        tx: E1000Ring,
        rx: E1000Ring,
        skbs: PacketPool,
        buffers: PacketPool,
        collected: Fifo,
        queue: TxQueue,
        socket: Socket,
        cpu: GuestCpu,
        access: AccessCells,
    ) -> None:
        self.cells = state.add(AdapterCells, name)
        self.tx, self.rx = tx, rx
        self.skbs, self.buffers = skbs, buffers
        self.collected = collected
        self.queue = queue
        self.socket = socket
        self.cpu = cpu
        self.access = access


class AdapterRoutine(Routine):
    """A routine of the driver."""

    def __init__(self, name: str, place: Place, adapter: Adapter, ring: E1000Ring) -> None:
        super().__init__(name, place, ring.name)
        self.adapter = adapter
        self.ring = ring
        self.mine = adapter.cells

    def words(self, me: Context) -> Mapping[str, object]:
        """Give what the driver's texts speak of."""
        ring, mine = self.ring, self.mine
        return {
            "next": ring.cells.next_to_use,
            "clean": ring.cells.next_to_clean,
            "unused": ring.unused(),
            "length": mine.length,
            "done": mine.done,
            "value": f"{self.adapter.access.value:#x}",
        }


class EnableInterrupts(AdapterRoutine):
    """Let the card interrupt again: e1000_irq_enable. Rows 19 and 20 of sending, 16 and 17 of receiving.

    Args:
        store: what a store to IMS leads to.
        flush: what a load of STATUS leads to.
    """

    def __init__(
        self, name: str, place: Place, adapter: Adapter, ring: E1000Ring, store: Routine, flush: Routine
    ) -> None:
        super().__init__(name, place, adapter, ring)
        self.store = store
        self.flush = flush

    @op(
        "E1000-TX.19",
        "unmask the interrupts",
        "e1000_irq_enable",
        E1000,
        text="The driver stores to IMS which interrupts it wants: a heavy exit. A cause that waits is raised by it.",
        to=call("store", "read_back"),
        cause="store to IMS",
        cost="kick",
    )
    def unmask(self, me: Context) -> None:
        self.adapter.access.value = IMS_ENABLE_MASK

    @op(
        "E1000-TX.20",
        "read STATUS, to be sure",
        "e1000_irq_enable",
        E1000,
        text=(
            "A load waits until earlier stores have reached a card, so drivers follow them by one. On this card it "
            "only costs another heavy exit."
        ),
        to=call("flush", "enabled"),
        cause="load from STATUS",
        cost="kick",
        private=True,
    )
    def read_back(self, me: Context) -> None: ...

    @op(
        "E1000-TX.20",
        "go on with interrupts",
        "e1000_irq_enable",
        E1000,
        text="The card may interrupt again.",
        to=RETURN,
        private=True,
    )
    def enabled(self, me: Context) -> None: ...


class OpenAdapter(AdapterRoutine):
    """Bring the interface up (e1000_up): fill the receive ring, let the card interrupt. Runs before the first step."""

    def __init__(
        self,
        name: str,
        place: Place,
        adapter: Adapter,
        ring: E1000Ring,
        refill: Routine,
        enable: Routine,
        program: Routine,
    ) -> None:
        super().__init__(name, place, adapter, ring)
        self.refill = refill
        self.enable = enable
        self.program = program

    @op(
        "E1000-RX.14",
        "fill the receive ring",
        "e1000_configure",
        E1000,
        text="The driver gives the card a buffer with every receive descriptor but one before the first packet comes.",
        to=call("refill", "start_interrupts"),
    )
    def fill(self, me: Context) -> None: ...

    @op(
        "E1000-TX.19",
        "start interrupts",
        "e1000_up",
        E1000,
        text="The card may interrupt from now on.",
        to=call("enable", "up"),
    )
    def start_interrupts(self, me: Context) -> None: ...

    @op(
        "E1000-TX.20",
        "the interface is up",
        "e1000_up",
        E1000,
        text="The interface is up: programs can use the network.",
        to=call("program", None),
    )
    def up(self, me: Context) -> None: ...
