"""The eventfds of a queue whose back-end is a process that polls: a call is a system call, a kick reaches nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.effects import SIGNALLED
from virtviz.engine.ops import RETURN, Routine, call, op
from virtviz.spec.citation import EVENTFD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.kvm import EventfdCells


class WriteCallfd(Routine):
    """write() to a queue's call eventfd, in the kernel: the interrupt is made inside it.

    Args:
        row: which row it is.
        eventfd: the call eventfd.
        irqfd: what signalling it leads to.
    """

    def __init__(self, name: str, place: Place, queue: str, row: str, eventfd: EventfdCells, irqfd: Routine) -> None:
        super().__init__(name, place, queue)
        self.rows = {"call": row}
        self.eventfd = eventfd
        self.irqfd = irqfd

    @op(
        "call",
        "add 1 to the call eventfd",
        "eventfd_write",
        EVENTFD,
        spec="4.1.5.3",
        text=(
            "The one system call on this way: the eventfd's counter goes up by 1. KVM has its callback there, and it "
            "runs in this thread before write() returns."
        ),
        to={SIGNALLED: call("irqfd", "finish")},
        cost="eventfd",
    )
    def write(self, me: Context) -> str:
        self.eventfd.counter += 1
        return SIGNALLED

    @op(
        "call",
        "return from write()",
        "eventfd_write",
        EVENTFD,
        text="The interrupt is on its way: write() returns, and the thread polls on.",
        to=RETURN,
        cause="return from the system call",
        private=True,
    )
    def finish(self, me: Context) -> None: ...


class NobodyWaits(Routine):
    """A kick that nobody has asked for: row 4 of KICK where the back-end polls.

    Args:
        eventfd: the kick eventfd.
    """

    def __init__(self, name: str, place: Place, queue: str, eventfd: EventfdCells) -> None:
        super().__init__(name, place, queue)
        self.eventfd = eventfd

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the counter."""
        return {"counter": self.eventfd.counter}

    @op(
        "KICK.4",
        "find nobody to tell",
        "eventfd_signal_mask",
        EVENTFD,
        text=(
            "The eventfd's counter is {counter} now, and nobody waits for it or will ever read it: the back-end polls. "
            "The exit was for nothing."
        ),
        to=RETURN,
        private=True,
    )
    def find_nobody(self, me: Context) -> None: ...
