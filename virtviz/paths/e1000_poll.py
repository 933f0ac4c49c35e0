"""The e1000's interrupt, and the NAPI poll that serves both rings: rows 14 to 20 of sending, 9 to 17 of receiving.

One interrupt line stands for everything the card has to say. So the handler asks the card what it is, and that the
card has been heard is a matter of two more accesses: four heavy exits for one interrupt, before and after the poll that
does the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.effects import COPIED, DROPPED
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.e1000 import Adapter, AdapterRoutine
from virtviz.spec.citation import CORE_DEV, CORE_GRO, E1000
from virtviz.spec.e1000 import (
    ALL_CAUSES,
    COPYBREAK,
    E1000_RXD_STAT_DD,
    E1000_RXD_STAT_EOP,
    E1000_TXD_STAT_DD,
    ETH_FCS_LEN,
    NAPI_WEIGHT,
    RX_BUFFER_WRITE,
    TX_WAKE_THRESHOLD,
)
from virtviz.spec.frames import ETH_HEADER_BYTES

if TYPE_CHECKING:
    from virtviz.engine.places import Place
    from virtviz.paths.context import Context

TX_STATUS, RX_STATUS, RX_LENGTH = 4, 3, 1
"""Where status and length stand in a descriptor that was read."""


class Interrupt(AdapterRoutine):
    """The interrupt handler: e1000_intr. Rows 14 to 16 of sending, 9 to 11 of receiving.

    Args:
        load_icr, store_imc, load_status: what these accesses lead to.
    """

    def __init__(
        self, name: str, place: Place, adapter: Adapter, load_icr: Routine, store_imc: Routine, load_status: Routine
    ) -> None:
        super().__init__(name, place, adapter, adapter.rx)
        self.load_icr = load_icr
        self.store_imc = store_imc
        self.load_status = load_status

    @op(
        "E1000-TX.14",
        "read why the card interrupts",
        "e1000_intr",
        E1000,
        text="The line may be shared: the driver loads ICR to see whether, and why, its card interrupts. A heavy exit.",
        to=call("load_icr", "look_at_causes"),
        cause="load from ICR",
        cost="kick",
        private=True,
    )
    def read_icr(self, me: Context) -> None: ...

    @op(
        "E1000-TX.14",
        "look at the causes",
        "e1000_intr",
        E1000,
        text={
            "received": "ICR was {value}: something was received. The load has also taken the causes back to none.",
            "sent": "ICR was {value}: something was sent. The load has also taken the causes back to none.",
            "not ours": "ICR was 0: the card has no reason to interrupt. The interrupt is somebody else's, or stale.",
        },
        to={"received": goto("mask"), "sent": goto("mask"), "not ours": RETURN},
        milestone={"received": "interrupted"},
        private=True,
    )
    def look_at_causes(self, me: Context) -> str:
        if not self.adapter.access.value:
            return "not ours"
        ring = self.adapter.rx
        slot = ring.cells.next_to_clean
        if not ring.read_rx(ring.layout.at(slot))[RX_STATUS] & E1000_RXD_STAT_DD:
            return "sent"
        if me.observed:
            me.packet = self.adapter.buffers.cells.packet[ring.cells.tokens[slot]]
        return "received"

    @op(
        "E1000-TX.15",
        "mask all interrupts",
        "e1000_intr",
        E1000,
        text="Until the poll is over no interrupt is wanted: a store to IMC. The third heavy exit of a packet sent.",
        to=call("store_imc", "flush"),
        cause="store to IMC",
        cost="kick",
    )
    def mask(self, me: Context) -> None:
        self.adapter.access.value = ALL_CAUSES

    @op(
        "E1000-TX.16",
        "read STATUS, to be sure",
        "e1000_intr",
        E1000,
        text="On a real bus a load makes sure that the store before it has arrived. Here it costs one more heavy exit.",
        to=call("load_status", "schedule_poll"),
        cause="load from STATUS",
        cost="kick",
        private=True,
    )
    def flush(self, me: Context) -> None: ...

    @op(
        "E1000-TX.17",
        "schedule the poll",
        "__napi_schedule",
        CORE_DEV,
        text="The handler does no work itself: one NAPI poll will look at both rings, after the interrupt.",
        to=RETURN,
    )
    def schedule_poll(self, me: Context) -> None:
        adapter = self.adapter
        self.mine.scheduled = 1
        adapter.cpu.schedule_poll(adapter.napi)


class Poll(AdapterRoutine):
    """The NAPI poll: e1000_clean.

    Args:
        refill: gives buffers to the card.
        deliver: hands up what was collected.
        enable: lets the card interrupt again.
    """

    def __init__(
        self, name: str, place: Place, adapter: Adapter, refill: Routine, deliver: Routine, enable: Routine
    ) -> None:
        super().__init__(name, place, adapter, adapter.rx)
        self.refill = refill
        self.deliver = deliver
        self.enable = enable
        self.sent = adapter.tx

    # What was sent

    @op(
        "E1000-TX.18",
        "begin the poll",
        "e1000_clean",
        E1000,
        text="The poll begins: first what was sent, then what was received.",
        private=True,
    )
    def begin(self, me: Context) -> None: ...

    @op(
        "E1000-TX.18",
        {"done": "find a packet that was sent", "": "look for sent packets"},
        "e1000_clean_tx_irq",
        E1000,
        text={
            "done": "The card has set DD in the packet's last descriptor: the packet is sent.",
            "none": "The next descriptor of the transmit ring is not done, or there is none: nothing to take back.",
        },
        to={"done": goto("free_packet"), "none": goto("end_of_sent")},
        cost="ring cold",
    )
    def look_at_sent(self, me: Context) -> str:
        ring, cells = self.sent, self.sent.cells
        slot = cells.next_to_clean
        if slot == cells.next_to_use:
            return "none"
        last = cells.watch[slot]
        return "done" if ring.read_tx(ring.layout.at(last))[TX_STATUS] & E1000_TXD_STAT_DD else "none"

    @op(
        "E1000-TX.18",
        "free the packet",
        "e1000_unmap_and_free_tx_resource",
        E1000,
        text="The packet's memory is free again, and so are its descriptors: the driver takes DD back.",
        to=goto("look_at_sent"),
        milestone="completed",
    )
    def free_packet(self, me: Context) -> None:
        ring, cells, mine, pool = self.sent, self.sent.cells, self.mine, self.adapter.skbs
        slot = cells.next_to_clean
        last = cells.watch[slot]
        skb = cells.tokens[last]
        if me.observed:
            me.packet = pool.cells.packet[skb]
        while slot != last:
            ring.clear_status(slot)
            slot = ring.after(slot)
        ring.clear_status(slot)
        length = pool.cells.length[skb]
        mine.freed += length
        mine.freed_packets += 1
        cells.tokens[last] = 0
        pool.release(skb)
        self.adapter.socket.uncharge(length)
        cells.next_to_clean = ring.after(slot)

    @op(
        "E1000-TX.18",
        "let the stack send more",
        "e1000_clean_tx_irq",
        E1000,
        text={
            "opened": "Free descriptors: {free}. The stopped queue is opened, and waiting packets go on.",
            "open": "Free descriptors: {free}. The queue was not stopped.",
            "still full": "Free descriptors: {free}, too few. The queue stays stopped.",
            "nothing": "Nothing was sent since the last poll.",
        },
        to={k: goto("look_at_received") for k in ("opened", "open", "still full", "nothing")},
        private=True,
    )
    def end_of_sent(self, me: Context) -> str:
        mine, queue = self.mine, self.adapter.queue
        if mine.done:
            mine.done = 0
        if not mine.freed_packets:
            return "nothing"
        queue.completed(mine.freed)
        mine.freed = mine.freed_packets = 0
        if self.sent.unused() < TX_WAKE_THRESHOLD:
            return "still full"
        return "opened" if queue.wake() else "open"

    # What was received

    @op(
        "E1000-RX.13",
        {"packet": "find a received packet", "": "look for received packets"},
        "e1000_clean_rx_irq",
        E1000,
        text={
            "packet": "Descriptor {clean} has DD set: the card has put a frame into its buffer.",
            "refill": "Descriptor {clean} is not done: all packets are taken. The card gets buffers for them.",
            "all taken": "Descriptor {clean} is not done: nothing was received.",
        },
        to={
            "packet": goto("take_packet"),
            "refill": call("refill", "finish"),
            "all taken": goto("finish"),
        },
        cost="ring cold",
    )
    def look_at_received(self, me: Context) -> str:
        ring = self.ring
        slot = ring.cells.next_to_clean
        if self.mine.done < NAPI_WEIGHT and ring.read_rx(ring.layout.at(slot))[RX_STATUS] & E1000_RXD_STAT_DD:
            return "packet"
        return "refill" if ring.unused() else "all taken"

    @op(
        "E1000-RX.13",
        {DROPPED: "throw the frame away", "": "take the frame"},
        "e1000_clean_rx_irq",
        E1000,
        text={
            "small": "The frame has {length} bytes. That is little: it will be copied out, and its buffer used again.",
            "large": "The frame has {length} bytes: its buffer becomes part of a socket buffer.",
            DROPPED: "The descriptor holds no whole frame: it is dropped and counted as an error.",
        },
        to={"small": goto("copy_out"), "large": goto("keep_buffer"), DROPPED: goto("clear_desc")},
        milestone={"small": "polled", "large": "polled"},
    )
    def take_packet(self, me: Context) -> str:
        ring, mine = self.ring, self.mine
        slot = ring.cells.next_to_clean
        desc = ring.read_rx(ring.layout.at(slot))
        buffer = ring.cells.tokens[slot]
        mine.slot = buffer
        mine.done += 1
        me.packet = self.adapter.buffers.cells.packet[buffer]
        if mine.copy:
            mine.copy = 0
        whole, length = desc[RX_STATUS] & E1000_RXD_STAT_EOP, desc[RX_LENGTH]
        is_rest = mine.discarding
        mine.discarding = int(not whole)
        fits = ETH_HEADER_BYTES + ETH_FCS_LEN <= length <= self.adapter.buffers.slot_bytes + ETH_FCS_LEN
        if not whole or is_rest or not fits:
            mine.errors += 1
            mine.slot = 0
            return DROPPED
        mine.length = length - ETH_FCS_LEN
        return "small" if length <= COPYBREAK else "large"

    @op(
        "E1000-RX.13",
        "copy it out of its buffer",
        "e1000_copybreak",
        E1000,
        text={COPIED: "{length} bytes are copied into a small socket buffer: a copy inside the guest."},
        to={COPIED: goto("clear_desc")},
        size="length",
        private=True,
    )
    def copy_out(self, me: Context) -> str:
        mine, buffers, skbs = self.mine, self.adapter.buffers, self.adapter.skbs
        at = buffers.at[mine.slot]
        mine.copy = copy = skbs.take(me.packet)
        skbs.fill(copy, buffers.memory.bytes[at : at + mine.length])
        return COPIED

    def length(self, me: Context) -> int:
        """Give the bytes of the packet in hand."""
        return self.mine.length

    @op(
        "E1000-RX.13",
        "build a socket buffer around it",
        "e1000_clean_rx_irq",
        E1000,
        text="The buffer itself becomes the socket buffer's memory; the descriptor will need another one.",
        to=goto("clear_desc"),
        private=True,
    )
    def keep_buffer(self, me: Context) -> None:
        ring, mine, buffers = self.ring, self.mine, self.adapter.buffers
        buffers.cells.length[mine.slot] = mine.length
        ring.cells.tokens[ring.cells.next_to_clean] = 0

    @op(
        "E1000-RX.13",
        "take DD back",
        "e1000_clean_rx_irq",
        E1000,
        text="The descriptor's status goes back to 0, so that the driver will not take it for done next time round.",
        to={"frame": goto("collect"), "nothing": goto("refill_now_and_then")},
    )
    def clear_desc(self, me: Context) -> str:
        ring = self.ring
        slot = ring.cells.next_to_clean
        ring.clear_status(slot)
        ring.cells.next_to_clean = ring.after(slot)
        return "frame" if self.mine.slot else "nothing"

    @op(
        "E1000-RX.13",
        "collect it",
        "napi_gro_receive",
        CORE_GRO,
        text="The packet is put on the poll's list, which goes up the stack at the end.",
        to={"list full": call("deliver", "refill_now_and_then"), "collected": goto("refill_now_and_then")},
        private=True,
    )
    def collect(self, me: Context) -> str:
        mine, collected = self.mine, self.adapter.collected
        collected.put(mine.copy << 1 if mine.copy else mine.slot << 1 | 1)
        return "list full" if collected.is_full else "collected"

    @op(
        "E1000-RX.14",
        "give buffers back now and then",
        "e1000_clean_rx_irq",
        E1000,
        text={
            "refill": "16 descriptors have been emptied: the card gets buffers for them at once.",
            "later": "Buffers are given back 16 at a time, and at the end of the poll.",
        },
        to={"refill": call("refill", "look_at_received"), "later": goto("look_at_received")},
        private=True,
    )
    def refill_now_and_then(self, me: Context) -> str:
        return "refill" if self.ring.unused() >= RX_BUFFER_WRITE else "later"

    # The end

    @op(
        "E1000-RX.15",
        "end the poll, or go on later",
        "e1000_clean",
        E1000,
        text={
            "complete": "Fewer than 64 packets were there: the poll can end.",
            "again": "64 packets are done and more may be there: the instance stays on the list.",
        },
        to={"complete": call("deliver", "complete"), "again": call("deliver", None)},
        private=True,
    )
    def finish(self, me: Context) -> str:
        if self.mine.done < NAPI_WEIGHT:
            return "complete"
        self.adapter.cpu.schedule_poll(self.adapter.napi)
        return "again"

    @op(
        "E1000-RX.15",
        "end the poll",
        "napi_complete_done",
        CORE_DEV,
        text="The NAPI instance leaves the poll list, and the card's interrupts are turned on again.",
        to=call("enable", None),
        private=True,
    )
    def complete(self, me: Context) -> None:
        self.mine.scheduled = 0

    def words(self, me: Context) -> dict[str, object]:
        """Give the free descriptors of the transmit ring too."""
        return {**super().words(me), "free": self.sent.unused()}
