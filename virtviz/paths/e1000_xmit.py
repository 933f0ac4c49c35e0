"""Sending one packet with e1000: e1000_xmit_frame. Rows 4 and 5 of path (a)'s way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.e1000 import Adapter, AdapterRoutine
from virtviz.spec.citation import E1000, ETHERDEVICE_H, NETDEVICE_H
from virtviz.spec.e1000 import (
    E1000_TXD_CMD_EOP,
    E1000_TXD_CMD_IDE,
    E1000_TXD_CMD_IFCS,
    E1000_TXD_CMD_RS,
    ETH_ZLEN,
    TX_DESC_NEEDED,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context

LAST_PIECE = E1000_TXD_CMD_EOP | E1000_TXD_CMD_IFCS | E1000_TXD_CMD_RS | E1000_TXD_CMD_IDE
"""Commands of a packet's last descriptor: the packet ends here, report when it is done, no hurry about it."""


class XmitFrame(AdapterRoutine):
    """Send one packet: e1000_xmit_frame.

    Args:
        store_tail: what a store to the register TDT leads to.
    """

    def __init__(self, name: str, place: Place, adapter: Adapter, store_tail: Routine) -> None:
        super().__init__(name, place, adapter, adapter.tx)
        self.store_tail = store_tail

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the packet's length too, and how many descriptors are needed."""
        pool = self.adapter.skbs.cells
        length = pool.length[me.skb] if me.skb < len(pool.length) else 0
        return {**super().words(me), "length": length, "needed": TX_DESC_NEEDED, "last": self._last_filled()}

    def _last_filled(self) -> int:
        return (self.ring.cells.next_to_use - 1) % self.ring.size

    @op(
        "E1000-TX.4",
        "pad a short frame",
        "eth_skb_pad",
        ETHERDEVICE_H,
        text={
            "long enough": "The frame has {length} bytes, which is no less than the 60 that Ethernet asks for.",
            "padded": "Ethernet asks for 60 bytes, and the card cannot be trusted to pad: zeros are added here.",
        },
        to={"long enough": goto("account"), "padded": goto("account")},
    )
    def pad(self, me: Context) -> str:
        pool = self.adapter.skbs
        if self.mine.piece:
            self.mine.piece = 0
        if me.observed:
            packet = pool.cells.packet[me.skb]
            if me.packet != packet:
                me.packet = packet
        length = pool.cells.length[me.skb]
        if length >= ETH_ZLEN:
            return "long enough"
        pool.memory.write(pool.at[me.skb] + length, bytes(ETH_ZLEN - length))
        pool.cells.length[me.skb] = ETH_ZLEN
        return "padded"

    @op(
        "E1000-TX.4",
        "account for its bytes",
        "netdev_sent_queue",
        NETDEVICE_H,
        text="The packet's {length} bytes count against the transmit queue's limit until the card has sent them.",
        private=True,
    )
    def account(self, me: Context) -> None:
        self.adapter.queue.count_sent(self.adapter.skbs.cells.length[me.skb])

    @op(
        "E1000-TX.4",
        "fill a descriptor",
        "e1000_tx_queue",
        E1000,
        text={
            "next piece": "Descriptor {last} says where a piece of the packet lies; more pieces follow.",
            "last piece": (
                "Descriptor {last} says where the packet lies, and that it ends here: report when it is sent. The "
                "card does not look at it yet."
            ),
        },
        to={"next piece": goto("fill_desc"), "last piece": goto("stop_if_full")},
        milestone={"last piece": "in-ring"},
        into={"last piece": "{queue}"},
    )
    def fill_desc(self, me: Context) -> str:
        ring, mine, pool, skb = self.ring, self.mine, self.adapter.skbs, me.skb
        count, length = pool.cells.pieces[skb], pool.cells.length[skb]
        share, piece = length // count, mine.piece
        slot = ring.cells.next_to_use
        is_last = piece + 1 == count
        part = length - piece * share if is_last else share
        command = LAST_PIECE if is_last else E1000_TXD_CMD_IFCS
        ring.write_tx(ring.layout.at(slot), pool.at[skb] + piece * share, part, 0, command, 0, 0, 0)
        ring.cells.next_to_use = ring.after(slot)
        if not is_last:
            mine.piece = piece + 1
            return "next piece"
        ring.cells.tokens[slot] = skb
        first = (slot - piece) % ring.size
        if ring.cells.watch[first] != slot:
            ring.cells.watch[first] = slot
        return "last piece"

    @op(
        "E1000-TX.4",
        "stop the queue if it is nearly full",
        "e1000_maybe_stop_tx",
        E1000,
        text={
            "room": "Free descriptors: {unused}, enough for any packet: the queue stays open.",
            "stopped": "Free descriptors: {unused}, fewer than {needed}: the stack may send no more for now.",
        },
        to={"room": goto("decide_tail"), "stopped": goto("mb_before_recheck")},
    )
    def stop_if_full(self, me: Context) -> str:
        if self.ring.unused() >= TX_DESC_NEEDED:
            return "room"
        self.adapter.queue.cells.driver_off = 1
        return "stopped"

    @op(
        "E1000-TX.4",
        "full barrier",
        "__e1000_maybe_stop_tx",
        E1000,
        text="That the queue is stopped must be visible before the driver looks for free descriptors once more.",
        fence=True,
        cost="barrier",
    )
    def mb_before_recheck(self, me: Context) -> None: ...

    @op(
        "E1000-TX.4",
        "count the free descriptors again",
        "__e1000_maybe_stop_tx",
        E1000,
        text={
            "reprieve": "Enough have come back in the meantime: the queue is open again.",
            "still full": "Free descriptors: {unused}. The poll will open the queue when enough have come back.",
        },
        to={"reprieve": goto("decide_tail"), "still full": goto("decide_tail")},
    )
    def recheck(self, me: Context) -> str:
        if self.ring.unused() < TX_DESC_NEEDED:
            return "still full"
        self.adapter.queue.cells.driver_off = 0
        return "reprieve"

    @op(
        "E1000-TX.4",
        "decide whether to tell the card now",
        "e1000_xmit_frame",
        E1000,
        text={
            "now": "No other packet is announced, or the queue is stopped: the card has to hear of this one.",
            "later": "Another packet follows at once: one store to TDT will do for both.",
        },
        to={"now": goto("write_tail"), "later": RETURN},
        private=True,
    )
    def decide_tail(self, me: Context) -> str:
        queue = self.adapter.queue.cells
        return "later" if queue.more and not (queue.driver_off or queue.stack_off) else "now"

    @op(
        "E1000-TX.5",
        "store the new tail",
        "e1000_xmit_frame",
        E1000,
        text="The driver stores {value} to TDT: every descriptor before it is the card's now. A heavy exit, each time.",
        to=call("store_tail", None),
        cause="store to TDT",
        cost="kick",
    )
    def write_tail(self, me: Context) -> None:
        self.adapter.access.value = self.ring.cells.next_to_use


class XmitFrameInterruptsOff(XmitFrame):
    """The same by a guest that happens to have interrupts disabled meanwhile."""

    @op(
        "E1000-TX.5",
        "store the new tail",
        "e1000_xmit_frame",
        E1000,
        text="The driver stores {value} to TDT: a heavy exit. The guest has interrupts disabled just now.",
        to=call("store_tail", "enable_interrupts"),
        cause="store to TDT",
        cost="kick",
    )
    def write_tail(self, me: Context) -> None:
        super().write_tail(me)
        self.adapter.cpu.cells.interrupts_on = 0

    @op(
        "E1000-TX.5",
        "enable interrupts again",
        "e1000_xmit_frame",
        E1000,
        text="The guest enables interrupts again; one that waited can come now.",
        to=RETURN,
        opens=True,
        private=True,
    )
    def enable_interrupts(self, me: Context) -> None:
        self.adapter.cpu.cells.interrupts_on = 1
