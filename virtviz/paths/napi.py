"""NAPI, as a queue of the virtio-net driver uses it: being scheduled, and how a poll ends.

The transmit and the receive queue each have a NAPI instance, and their polls end in the same way: ask for the next
interrupt, leave the poll list, look once more. Who asked for the poll while it was at work is noted by `missed`.

Source: Linux drivers/net/virtio_net.c (virtqueue_napi_complete), net/core/dev.c (napi_schedule_prep,
napi_complete_done).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from virtviz.engine.ops import RETURN, Routine, goto, op
from virtviz.spec.citation import CORE_DEV, VIRTIO_RING, VIRTIO_RING_H

if TYPE_CHECKING:
    from virtviz.paths.context import Context
    from virtviz.paths.guest_cpu import GuestCpu
    from virtviz.ring.rings import DriverRing


class NapiCells(Protocol):
    """What a NAPI instance keeps: whether it is scheduled, and whether somebody asked for it meanwhile."""

    scheduled: int
    missed: int


class Napi:
    """A queue with a NAPI instance.

    Attributes:
        ring: the driver's side of the virtqueue.
        cpu: the CPU on which the instance is polled.
        napi: its number there.
    """

    ring: DriverRing
    cpu: GuestCpu
    napi: int
    cells: NapiCells

    def schedule(self) -> bool:
        """Schedule the queue's NAPI instance; if it is scheduled already, note that somebody asked; answer False."""
        mine = self.cells
        if mine.scheduled:
            if not mine.missed:
                mine.missed = 1
            return False
        mine.scheduled = 1
        self.cpu.schedule_poll(self.napi)
        return True

    def complete(self) -> str:
        """Take the NAPI instance off the list: `done`; if somebody asked for it meanwhile, put it back: `missed`."""
        mine = self.cells
        if mine.missed:
            mine.missed = 0
            self.cpu.schedule_poll(self.napi)
            return "missed"
        mine.scheduled = 0
        return "done"


class EndOfPoll(Routine):
    """How the poll of a queue ends, from where it has asked for the next interrupt: row `end`.

    The last look itself is the poll's own, for it knows what it looks for.
    """

    q: Napi

    @op(
        "end",
        "end the poll",
        "napi_complete_done",
        CORE_DEV,
        text={
            "done": "The NAPI instance leaves the poll list; from now on an interrupt may schedule it again.",
            "missed": "An interrupt came while the poll was at work: the instance stays on the list, and polls again.",
        },
        to={"done": goto("mb_before_last_look"), "missed": goto("disable_again")},
        private=True,
    )
    def leave_poll_list(self, me: Context) -> str:
        return self.q.complete()

    @op(
        "end",
        "keep interrupts off",
        "virtqueue_disable_cb",
        VIRTIO_RING,
        spec="2.7.7",
        text="The wish for an interrupt is withdrawn: the poll goes on at once.",
        to=RETURN,
    )
    def disable_again(self, me: Context) -> None:
        self.q.ring.disable_callbacks()

    @op(
        "end",
        "full barrier",
        "virtio_mb",
        VIRTIO_RING_H,
        spec="2.7.14",
        text="The wish for an interrupt must be visible before the last look.",
        to=goto("last_look"),
        fence=True,
        cost="barrier",
    )
    def mb_before_last_look(self, me: Context) -> None: ...

    def look_again(self) -> str:
        """Look for more one last time; if there is some, schedule the next poll. Answers `nothing` or `more`."""
        ring = self.q.ring
        if ring.cells.broken or not ring.more_used():
            return "nothing"
        if self.q.schedule():
            ring.disable_callbacks()
        return "more"
