"""The host's network card and packets that are still to be finished or cut: who does it, card or kernel.

Every card here finishes checksums. With nic_tso=on it cuts, too: the driver writes one descriptor for the whole packet,
and frames exist on the wire only. Otherwise the kernel cuts just before the driver (software GSO), and every frame has
a descriptor of its own; the data stays where it is.

Source: Linux 6.12 net/core/dev.c (validate_xmit_skb), net/ipv4/tcp_offload.c (tcp_gso_segment),
drivers/net/ethernet/intel/ixgbe/ixgbe_main.c (ixgbe_tso, ixgbe_tx_csum).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import DROPPED
from virtviz.engine.ops import RETURN, goto, op
from virtviz.paths.nic import STOP_BELOW, Nic, NicEngine, NicXmit, RunNicQueue
from virtviz.paths.offloads import SEGMENTS_MAX, OffloadPool
from virtviz.paths.queues import Fifo
from virtviz.spec.citation import CORE_DEV, IXGBE, SCH_GENERIC, TCP_OFFLOAD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.host_net import Wire
    from virtviz.paths.traffic import Traffic


@cells
class OffloadNicCells(Cells):
    """What the card's engine keeps.

    Attributes:
        out: frames of the packet in hand that are on the wire.
        frames: frames ever put on the wire.
    """

    out: int = 0
    frames: int = 0


class OffloadNic(Nic):
    """A network card that finishes checksums, and cuts packets if it is told to.

    Args:
        tso: the card cuts.

    Attributes:
        cut: frames that the kernel has cut off and not yet given to the driver.
    """

    pool: OffloadPool

    def __init__(
        self,
        state: State,
        name: str,
        pool: OffloadPool,
        wire: Wire,
        traffic: Traffic,
        ring: int,
        tx_frames: int,
        *,
        tso: bool,
    ) -> None:
        super().__init__(state, name, pool, wire, traffic, ring, tx_frames)
        self.tso = tso
        self.cut = Fifo(state, f"{name}.cut", SEGMENTS_MAX)
        self.out = state.add(OffloadNicCells, f"{name}.offload")

    def cut_in_software(self, slot: int) -> bool:
        """Cut a packet unless the card will; answers whether it was cut."""
        if self.tso or not self.pool.todo.gso_size[slot]:
            return False
        for frame in self.pool.cut(slot, share=True, finish=False):
            self.cut.put(frame)
        return True

    def frame_in_hand(self) -> bytes:
        """Give the bytes of the next frame that goes on the wire."""
        return self.pool.wire_frames(self.unsent())[self.out.out]


class OffloadNicXmit(NicXmit):
    """Send a packet by the card: as it is, or cut into frames by the kernel."""

    nic: OffloadNic

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the frames cut off, too."""
        return {**super().words(me), "frames": len(self.nic.cut)}

    @op(
        "NIC-TX.1",
        "pass the queueing discipline",
        "__dev_queue_xmit",
        CORE_DEV,
        text={
            "direct": "{nic}'s queueing discipline is empty: straight to the card's driver.",
            "cut": "{nic}'s queueing discipline is empty, and its driver takes no packet that is still to be cut.",
            "queued": "{nic}'s transmit queue is stopped: the frame waits. Frames waiting: {waiting}.",
            DROPPED: "{nic}'s queueing discipline is full: the frame is dropped here.",
        },
        to={"direct": goto("write_desc"), "cut": goto("cut"), "queued": RETURN, DROPPED: RETURN},
        into={"queued": "{nic}.qdisc"},
    )
    def queue_xmit(self, me: Context) -> str:
        if self.nic.cut:
            # The driver has stopped in the middle of a packet: nobody passes.
            if self.nic.qdisc.put(me.skb):
                return "queued"
            self.nic.cells.qdisc_dropped += 1
            self.nic.pool.release(me.skb)
            return DROPPED
        answer = super().queue_xmit(me) or ""
        is_to_cut = answer == "direct" and not self.nic.tso and self.nic.pool.todo.gso_size[me.skb]
        return "cut" if is_to_cut else answer

    @op(
        "NIC-TX.1",
        "cut the packet",
        "tcp_gso_segment",
        TCP_OFFLOAD,
        text="The kernel cuts the packet: {frames} frames with headers of their own. The data is not copied.",
        to=goto("next_frame"),
        cost="stack",
    )
    def cut(self, me: Context) -> None:
        self.nic.cut_in_software(me.skb)
        me.skb = 0

    @op(
        "NIC-TX.1",
        {"frame": "hand over the next frame", "": "end the list of frames"},
        "dev_hard_start_xmit",
        CORE_DEV,
        text={
            "frame": "The next frame goes to the card's driver, which hears that more follow.",
            "stopped": "The driver has stopped its queue: {frames} frames wait.",
            "all": "All frames are with the driver.",
        },
        to={"frame": goto("write_frame_desc"), "stopped": goto("ring_doorbell"), "all": goto("ring_doorbell")},
        private=True,
    )
    def next_frame(self, me: Context) -> str:
        nic = self.nic
        if not nic.cut:
            return "all"
        if nic.cells.driver_off:
            return "stopped"
        me.skb = nic.cut.take()
        return "frame"

    @op(
        "NIC-TX.2",
        "write the card's descriptor",
        "ixgbe_xmit_frame_ring",
        IXGBE,
        text="The frame is described in {nic}'s transmit ring. The doorbell waits for the last one.",
        to=goto("next_frame"),
        into="{nic}.tx",
    )
    def write_frame_desc(self, me: Context) -> None:
        nic = self.nic
        nic.tx.put(me.skb)
        if nic.free_descriptors() < STOP_BELOW:
            nic.cells.driver_off = 1


class RunOffloadNicQueue(RunNicQueue):
    """Send what waits in the card's queueing discipline, the frames of a packet that was cut half-way first."""

    nic: OffloadNic

    @op(
        "NIC-TX.1",
        "take the next waiting frame",
        "__qdisc_run",
        SCH_GENERIC,
        text={
            "next": "The stopped queue goes on: the next waiting frame is sent.",
            "cut": "The stopped queue goes on: the next packet is cut into frames, and the first of them is sent.",
            "done": "Nothing waits, or the queue is full again.",
        },
        to={"next": goto("write_desc"), "cut": goto("write_desc"), "done": RETURN},
        private=True,
    )
    def dequeue(self, me: Context) -> str:
        nic = self.nic
        if nic.cells.driver_off:
            return "done"
        answer = "next"
        if not nic.cut:
            answer = super().dequeue(me) or ""
            if answer == "done" or not nic.cut_in_software(me.skb):
                return answer
            answer = "cut"
        me.skb = nic.cut.take()
        me.packet = nic.pool.cells.packet[me.skb]
        return answer


class OffloadNicEngine(NicEngine):
    """The card itself: it finishes checksums, and cuts what it was given whole."""

    nic: OffloadNic

    def length(self, me: Context) -> int:
        """Give the bytes of what is in hand: of a descriptor's packet, or of a frame that came in."""
        slot = self.nic.unsent()
        return self.nic.pool.cells.length[slot] if slot else super().length(me)

    @op(
        "NIC-TX.4",
        "put the frame on the wire",
        "(hardware)",
        IXGBE,
        text={
            "more": "Frame {out} of the packet is on the wire: headers and checksum are made by the card. More follow.",
            "answered": (
                "The frame is on the wire, and the far host will answer it. The guest's buffer was given back long ago."
            ),
            "sent": "The frame is on the wire. The guest's buffer was given back long ago.",
        },
        to={"more": goto("put_on_wire"), "answered": goto("serve"), "sent": goto("serve")},
        milestone={"answered": "on-wire", "sent": "on-wire"},
        into="wire",
        cost="wire",
    )
    def put_on_wire(self, me: Context) -> str:
        nic, mine = self.nic, self.nic.out
        mine.frames += 1
        slot = nic.unsent()
        size = nic.pool.todo.gso_size[slot]
        if size and (mine.out + 1) * size < nic.pool.data_length(slot):
            mine.out += 1
            return "more"
        if mine.out:
            mine.out = 0
        return super().put_on_wire(me) or ""

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the frames that are out, too."""
        return {**super().words(me), "out": self.nic.out.out}
