"""A program in the guest that has the device to itself: it polls, and its kernel takes no part.

Driver and program are one process. A packet is made in the very memory that the device reads, and looked at in the very
memory that it wrote: no system call, no interrupt, no copy inside the guest. The price is a CPU that is never idle; as
with OVS-DPDK's thread, looks that find nothing are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import call, goto, op
from virtviz.paths.guest_program import Program
from virtviz.paths.traffic import PAUSE
from virtviz.spec.citation import SCENARIO

if TYPE_CHECKING:
    from collections.abc import Callable

    from virtviz.engine.ops import Routine
    from virtviz.paths.context import Context
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.queues import Fifo

WAITING = 64
"""Packets that a program keeps before it has looked at them; while there are more than this it polls no further."""


class DpdkProgram(Program):
    """The same program as a kernel guest's, by means of DPDK.

    Attributes:
        waiting: packets received and not looked at, by the first slot of each.
        buffers: the memory they are in.
        ready: says whether a poll of the receive queue would do anything.
        send_burst, receive_burst: the driver's two functions.
    """

    waiting: Fifo
    buffers: PacketPool
    ready: Callable[[], bool]
    send_burst: Routine
    receive_burst: Routine

    def something_waits(self) -> bool:
        """Say whether a packet is there to be looked at."""
        return bool(self.waiting)

    def finds_something(self) -> bool:
        """Say whether a turn of the program's loop would find a packet."""
        return self.ready()

    def has_business(self) -> bool:
        """Say whether a program that waits for nothing in particular has something to do."""
        return self.ready() or self.can_go_on()

    @op(
        {"send": "P-TX.1", "take": "P-RX.9", "": "P-RX.1"},
        {
            "send": "call rte_eth_tx_burst()",
            "take": "look for a packet",
            "poll": "wait for a packet",
            "work": "do other work",
        },
        "main",
        SCENARIO,
        text={
            "send": (
                "The program has a packet ready and calls the driver's transmit function: {what}. An ordinary function "
                "call; the guest's kernel hears nothing of it."
            ),
            "take": "A packet that the driver has received is the next to be looked at.",
            "poll": "The program wants a packet: it will call the driver's receive function again and again.",
            "work": "The program has nothing to send, and polls on.",
        },
        to={
            "send": call("send_burst", "next_act"),
            "take": goto("take_packet"),
            "poll": goto("poll"),
            "work": goto("own_work"),
        },
        milestone={"send": "sent"},
    )
    def next_act(self, me: Context) -> str:
        answer = super().next_act(me) or ""
        if answer != "receive":
            return answer
        if not self.waiting:
            return "poll"
        me.packet = self.buffers.cells.packet[self.waiting.first()]
        return "take"

    @op(
        "P-RX.1",
        {"found": "call rte_eth_rx_burst()", "gave up": "give up"},
        "main",
        SCENARIO,
        text={
            "found": "The loop calls the driver's receive function once more, and this time there is something.",
            "gave up": "Nothing will come any more: the program goes on without it.",
        },
        to={"found": call("receive_burst", "next_act"), "gave up": goto("next_act")},
        guard="finds_something",
        patience="gives_up",
        private=True,
    )
    def poll(self, me: Context) -> str:
        if self.ready():
            return "found"
        self.give_up()
        return "gave up"

    @op(
        "P-RX.9",
        "look at the packet",
        "main",
        SCENARIO,
        text=(
            "The program reads the packet where the device has written it, and gives the buffer back to its pool. "
            "Nowhere in the guest was it copied."
        ),
        to=goto("next_act"),
        milestone="received",
    )
    def take_packet(self, me: Context) -> None:
        slot = self.waiting.take()
        frame = self.buffers.data(slot)
        self.buffers.release(slot)
        self.received(len(frame))

    @op(
        "P-RX.1",
        {"poll": "call rte_eth_rx_burst()", "": "do other work"},
        "main",
        SCENARIO,
        text={
            "poll": "The loop calls the driver's receive function once more, and this time there is something.",
            "go on": "After a while without network traffic the program goes on with its scenario.",
        },
        to={"poll": call("receive_burst", "next_act"), "go on": goto("next_act")},
        guard="has_business",
        patience="pause_ends",
        private=True,
    )
    def own_work(self, me: Context) -> str:
        if self.ready():
            return "poll"
        if self.act is PAUSE:
            self.cells.done += 1
        return "go on"
