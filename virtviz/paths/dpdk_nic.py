"""A network card that a PMD thread drives from user space: row 11 of U-TX, rows 1 and 2 of U-RX.

The card's registers and its rings are mapped into the process, so a doorbell is a store and no system call. The card
never interrupts: its receive ring is polled, and what it has sent is cleaned up when descriptors run short.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.effects import DMA_READ, DMA_WRITTEN, DROPPED
from virtviz.engine.ops import RETURN, Routine, goto, op
from virtviz.paths.nic import Nic, NicEngine
from virtviz.paths.pmd import BURST
from virtviz.spec.citation import DPDK_IXGBE, OVS_NETDEV_DPDK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.pmd import Pmd
    from virtviz.spec.citation import Source

FREE_BELOW: Final = 32
"""Free transmit descriptors below which the driver cleans up (tx_free_thresh)."""


class PolledNic(Nic):
    """A network card without interrupts."""

    def interrupt_due(self) -> bool:
        """Say that the card never interrupts."""
        return False

    def has_something(self) -> bool:
        """Say whether a poll would find a frame."""
        return bool(self.rx)

    def next_packet(self) -> int:
        """Give the number of the packet that a poll would find first."""
        return self.pool.cells.packet[self.rx.first()]


class PolledNicEngine(NicEngine):
    """The card itself, with its interrupts masked for good."""

    rows: Mapping[str, str] = {"NIC-TX.4": "U-TX.11"}
    functions: Mapping[str, tuple[str, Source]] = {"(hardware)": ("(hardware)", DPDK_IXGBE)}

    def __init__(self, name: str, place: Place, nic: PolledNic) -> None:
        Routine.__init__(self, name, place)
        self.nic = nic
        self.has_work = nic.has_work

    @op(
        {DMA_READ: "U-TX.11", "": "U-RX.1"},
        {DMA_READ: "read the frame by DMA", DMA_WRITTEN: "write the frame by DMA", DROPPED: "drop the frame"},
        "(hardware)",
        DPDK_IXGBE,
        text={
            DMA_READ: (
                "{nic} finds a new descriptor in its transmit ring and reads the frame out of the mbuf by itself."
            ),
            DMA_WRITTEN: (
                "A frame comes in from the wire. {nic} writes it into an mbuf in huge pages by itself, and marks the "
                "descriptor as done. It interrupts nobody."
            ),
            DROPPED: (
                "A frame comes in from the wire, but no receive descriptor is free: {nic} drops it and counts it "
                "as missed."
            ),
        },
        to={DMA_READ: goto("put_on_wire"), DMA_WRITTEN: goto("serve"), DROPPED: goto("serve")},
        milestone={DMA_WRITTEN: "from-wire"},
        into={DMA_WRITTEN: "{nic}.rx"},
        size="length",
        guard="has_work",
        fence=True,
    )
    def serve(self, me: Context) -> str:
        return super().serve(me) or ""


class PollNic(Routine):
    """Take a burst out of the card's receive ring: row 2 of U-RX.

    Args:
        pmd: the thread that polls.
        process: what is done with the packets.
    """

    def __init__(self, name: str, place: Place, nic: PolledNic, pmd: Pmd, process: Routine) -> None:
        super().__init__(name, place)
        self.nic = nic
        self.pmd = pmd
        self.process = process

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the card."""
        return {"nic": self.nic.name, "count": self.pmd.cells.count}

    @op(
        "U-RX.2",
        "take a burst out of the receive ring",
        "netdev_dpdk_rxq_recv",
        OVS_NETDEV_DPDK,
        text=(
            "The thread reads {nic}'s descriptors and finds some marked as done. Frames taken, at most 32: {count}. No "
            "interrupt, no softirq, no kernel."
        ),
        to=goto("process"),
        cost="ring cold",
    )
    def take_burst(self, me: Context) -> None:
        nic, pmd = self.nic, self.pmd
        pmd.begin_burst()
        while nic.rx and pmd.cells.count < BURST:
            pmd.receive(nic.rx.take())


class SendToNic(Routine):
    """Send the output batch of the card's port: row 11 of U-TX.

    Args:
        port: number of the switch's port, from 0.
    """

    def __init__(self, name: str, place: Place, nic: PolledNic, pmd: Pmd, port: int) -> None:
        super().__init__(name, place)
        self.nic = nic
        self.pmd = pmd
        self.port = port

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the card."""
        return {"nic": self.nic.name, "free": self.nic.free_descriptors()}

    @op(
        "U-TX.11",
        "write the card's descriptor",
        "ixgbe_xmit_pkts",
        DPDK_IXGBE,
        text={
            "more": "The frame is described in {nic}'s transmit ring, where the card will find it. On to the next.",
            "last": "The frame is described in {nic}'s transmit ring, where the card will find it.",
            "full": "{nic}'s transmit ring is full: the card has not sent what is in it.",
        },
        to={"more": goto("write_desc"), "last": goto("ring_doorbell"), "full": goto("ring_doorbell")},
        into={"more": "{nic}.tx", "last": "{nic}.tx"},
        cost="ring cold",
    )
    def write_desc(self, me: Context) -> str:
        nic, mine = self.nic, self.pmd.cells
        if nic.free_descriptors() < FREE_BELOW:
            while nic.tx.cells.taken != nic.cells.sent:
                nic.pool.release(nic.tx.take())
        if not nic.free_descriptors():
            return "full"
        batch = self.pmd.output(self.port)
        at = mine.sent
        me.skb = slot = batch[at]
        me.packet = nic.pool.cells.packet[slot]
        nic.tx.put(slot)
        mine.sent = at + 1
        return "more" if at + 1 < len(batch) else "last"

    @op(
        "U-TX.11",
        "ring the doorbell",
        "ixgbe_xmit_pkts",
        DPDK_IXGBE,
        text={
            "all": (
                "One store to the card's tail register, which is mapped into this process: no system call. The whole "
                "batch is on its way."
            ),
            "some": "One store to the card's tail register, for what has found room.",
        },
        to={"all": RETURN, "some": goto("drop_rest")},
        cost="doorbell",
        fence=True,
    )
    def ring_doorbell(self, me: Context) -> str:
        mine = self.pmd.cells
        if mine.sent < mine.waiting[self.port]:
            return "some"
        mine.sent = mine.waiting[self.port] = 0
        return "all"

    @op(
        "U-TX.11",
        {DROPPED: "drop what found no room", "": "end the batch"},
        "netdev_dpdk_eth_tx_burst",
        OVS_NETDEV_DPDK,
        text={
            DROPPED: "A burst that finds no room at all is not tried again: the packet is dropped (tx_failure_drops).",
            "done": "The batch is done with.",
        },
        to={DROPPED: goto("drop_rest"), "done": RETURN},
        private=True,
    )
    def drop_rest(self, me: Context) -> str:
        nic, mine = self.nic, self.pmd.cells
        batch = self.pmd.output(self.port)
        if mine.sent == len(batch):
            mine.sent = mine.waiting[self.port] = 0
            return "done"
        slot = batch[mine.sent]
        me.packet = nic.pool.cells.packet[slot]
        nic.pool.release(slot)
        mine.sent += 1
        nic.cells.qdisc_dropped += 1
        return DROPPED
