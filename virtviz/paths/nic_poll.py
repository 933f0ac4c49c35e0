"""The CPU that serves the network card's interrupt: hard interrupt, then NAPI. Rows 2 to 7 of block N-IN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from virtviz.engine.ops import Routine, block, call, goto, op
from virtviz.paths.context import Level
from virtviz.spec.citation import CORE_DEV, CORE_GRO, IDLE, IXGBE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.nic import Nic
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.queues import Fifo


NAPI_WEIGHT = 64


class Polled(Protocol):
    """Cells that count the frames of a poll."""

    polled: int


class NapiPoll(Routine):
    """Take frames out of a queue, up to 64 in a poll, and hand them up eight at a time or at the end: NAPI with GRO.

    A class made of it says with `links` where it leads when a poll is `over`, and how it is to `go_on` after 64 frames.

    Args:
        waiting: the frames.
        collected: those of this poll that wait to be handed up.
        counts: where the number of frames taken in this poll is kept, as `polled`.
        pool: where they lie.
        receive: what takes them.
        port: number of the switch port they come in by.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        waiting: Fifo,
        collected: Fifo,
        counts: Polled,
        pool: PacketPool,
        receive: Routine,
        port: int,
    ) -> None:
        super().__init__(name, place)
        self.waiting = waiting
        self.collected = collected
        self.cells = counts
        self.pool = pool
        self.receive = receive
        self.port = port

    @op(
        "N-IN.3",
        {"none": "find no more frames", "enough": "stop at 64 frames", "": "take the next received frame"},
        "ixgbe_clean_rx_irq",
        IXGBE,
        text={
            "frame": (
                "A frame is taken from {source} and put on the list of this poll: frames of one stream could be merged."
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
        if self.cells.polled >= NAPI_WEIGHT:
            return "enough"
        if not self.waiting:
            return "none"
        slot = self.waiting.take()
        me.packet = self.pool.cells.packet[slot]
        self.collected.put(slot)
        self.cells.polled += 1
        return "list full" if self.collected.is_full else "frame"

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
        if not self.collected:
            return "none"
        me.skb = self.collected.take()
        me.packet = self.pool.cells.packet[me.skb]
        me.port = self.port
        return "frame"

    @op(
        "N-IN.3",
        {"frame": "hand up what was collected", "none": "end the poll"},
        "napi_complete_done",
        CORE_DEV,
        text={
            "frame": "napi_complete_done hands up the frames that were collected: {next} runs in here.",
            "none": "The poll is over; {after}.",
        },
        to={"frame": call("receive", "complete"), "none": goto("over")},
    )
    def complete(self, me: Context) -> str:
        answer = self._hand_up(me)
        if answer == "none":
            self.end(me)
        return answer

    def end(self, me: Context) -> None:
        """Do what has to be done when a poll is over."""

    @op(
        "N-IN.3",
        "hand up the next collected frame",
        "napi_gro_flush",
        CORE_GRO,
        text={
            "frame": "The next collected frame goes up the stack.",
            "none": "Others have a turn, then the poll goes on.",
        },
        to={"frame": call("receive", "hand_up_last"), "none": goto("go_on")},
        private=True,
    )
    def hand_up_last(self, me: Context) -> str:
        return self._hand_up(me)


class NicPoll(NapiPoll):
    """The CPU that serves the card's interrupt: hard interrupt, then NAPI. Rows 2 to 7 of N-IN.

    Args:
        receive: what takes the frames: the port's rx_handler.
        port: number of the switch port the card is.
        run_queue: sends what waits because the card was full.
    """

    first = "wait"
    links: Mapping[str, str] = {"over": "wait", "go_on": "clean_tx"}

    def __init__(self, name: str, place: Place, nic: Nic, receive: Routine, port: int, run_queue: Routine) -> None:
        super().__init__(name, place, nic.rx, nic.collected, nic.cells, nic.pool, receive, port)
        self.nic = nic
        self.run_queue = run_queue

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the card."""
        return {
            "nic": self.nic.name,
            "source": f"{self.nic.name}'s receive ring",
            "next": "the switch",
            "after": f"{self.nic.name} may interrupt again",
        }

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

    def end(self, me: Context) -> None:
        """Let the card interrupt again."""
        self.nic.cells.masked = 0
        me.level = Level.PROCESS
