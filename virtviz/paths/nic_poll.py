"""The CPU that serves the network card's interrupt: hard interrupt, then NAPI. Rows 2 to 7 of block N-IN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import Routine, block, call, goto, op
from virtviz.paths.context import Level
from virtviz.spec.citation import CORE_DEV, CORE_GRO, IDLE, IXGBE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.nic import Nic


NAPI_WEIGHT = 64


class NicPoll(Routine):
    """The CPU that serves the card's interrupt: hard interrupt, then NAPI. Rows 2 to 7 of N-IN.

    Args:
        receive: what takes the frames: the port's rx_handler.
        port: number of the switch port the card is.
        run_queue: sends what waits because the card was full.
    """

    def __init__(self, name: str, place: Place, nic: Nic, receive: Routine, port: int, run_queue: Routine) -> None:
        super().__init__(name, place)
        self.nic = nic
        self.receive = receive
        self.port = port
        self.run_queue = run_queue

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the card."""
        return {"nic": self.nic.name, "polled": self.nic.cells.polled}

    @op(
        "N-IN.2",
        "wait for the card",
        "cpu_startup_entry",
        IDLE,
        text={
            "idle": "This CPU has nothing to do until the card interrupts.",
            "interrupt": "The card has interrupted again meanwhile.",
        },
        to={"idle": block("hard_interrupt"), "interrupt": goto("hard_interrupt")},
    )
    def wait(self, me: Context) -> str:
        if self.nic.cells.masked:
            return "interrupt"
        me.packet = 0
        return "idle"

    @op(
        "N-IN.2",
        "handle the card's interrupt",
        "ixgbe_msix_clean_rings",
        IXGBE,
        text="The hard interrupt only schedules the poll. Until that is done, {nic} will not interrupt again.",
    )
    def hard_interrupt(self, me: Context) -> None:
        # The step is the hard interrupt's; what comes after it is the softirq's.
        me.level = Level.HARDIRQ
        me.level = Level.SOFTIRQ

    @op(
        "N-IN.3",
        "free what was sent",
        "ixgbe_clean_tx_irq",
        IXGBE,
        text={
            "nothing": "The softirq polls {nic}. Nothing it has sent is waiting to be freed.",
            "freed": "The softirq polls {nic}. Frames that were sent long ago are freed now; no guest learns of it.",
            "go on": "Frames that were sent are freed, and the stopped transmit queue goes on.",
        },
        to={"nothing": goto("take_frame"), "freed": goto("take_frame"), "go on": call("run_queue", "take_frame")},
    )
    def clean_tx(self, me: Context) -> str:
        nic = self.nic
        if nic.cells.polled:
            nic.cells.polled = 0
        if nic.tx.cells.taken == nic.cells.sent:
            return "nothing"
        while nic.tx.cells.taken != nic.cells.sent:
            nic.pool.release(nic.tx.take())
        if not nic.cells.driver_off:
            return "freed"
        nic.cells.driver_off = 0
        return "go on"

    @op(
        "N-IN.3",
        {"none": "find no more frames", "enough": "stop at 64 frames", "": "take the next received frame"},
        "ixgbe_clean_rx_irq",
        IXGBE,
        text={
            "frame": (
                "A frame is taken from {nic}'s receive ring and put on the list of this poll: frames of one "
                "stream could be merged."
            ),
            "list full": "Eight frames are collected: they go up the stack now.",
            "none": "No more frames: what was collected goes up the stack.",
            "enough": "64 frames are polled: what was collected goes up the stack, and the poll goes on later.",
        },
        to={
            "frame": goto("take_frame"),
            "list full": goto("hand_up"),
            "none": goto("complete"),
            "enough": goto("hand_up_last"),
        },
    )
    def take_frame(self, me: Context) -> str:
        nic = self.nic
        if nic.cells.polled >= NAPI_WEIGHT:
            return "enough"
        if not nic.rx:
            return "none"
        slot = nic.rx.take()
        me.packet = nic.pool.cells.packet[slot]
        nic.collected.put(slot)
        nic.cells.polled += 1
        return "list full" if nic.collected.is_full else "frame"

    @op(
        "N-IN.3",
        "hand up the next collected frame",
        "napi_gro_receive",
        CORE_GRO,
        text={"frame": "The next collected frame goes up the stack.", "none": "All collected frames have gone up."},
        to={"frame": call("receive", "hand_up"), "none": goto("take_frame")},
        private=True,
    )
    def hand_up(self, me: Context) -> str:
        return self._hand_up(me)

    def _hand_up(self, me: Context) -> str:
        nic = self.nic
        if not nic.collected:
            return "none"
        me.skb = nic.collected.take()
        me.packet = nic.pool.cells.packet[me.skb]
        me.port = self.port
        return "frame"

    @op(
        "N-IN.3",
        {"frame": "hand up what was collected", "none": "end the poll"},
        "napi_complete_done",
        CORE_DEV,
        text={
            "frame": "napi_complete_done hands up the frames that were collected: the switch runs in here.",
            "none": "The poll is over; {nic} may interrupt again.",
        },
        to={"frame": call("receive", "complete"), "none": goto("wait")},
    )
    def complete(self, me: Context) -> str:
        answer = self._hand_up(me)
        if answer == "none":
            self.nic.cells.masked = 0
            me.level = Level.PROCESS
        return answer

    @op(
        "N-IN.3",
        "hand up the next collected frame",
        "napi_gro_flush",
        CORE_GRO,
        text={
            "frame": "The next collected frame goes up the stack.",
            "none": "Others have a turn, then the poll goes on.",
        },
        to={"frame": call("receive", "hand_up_last"), "none": goto("clean_tx")},
        private=True,
    )
    def hand_up_last(self, me: Context) -> str:
        return self._hand_up(me)
