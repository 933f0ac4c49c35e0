"""vhost gives buffers back: used elements, used.idx, and an interrupt if the guest wants one.

Rows V-TX.12 to 15 and V-RX.11 to 14.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.effects import (
    SIGNALLED,
)
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.vhost import VhostQueue, VhostRoutine
from virtviz.spec.citation import VHOST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.kvm import EventfdCells


class ReturnBuffers(VhostRoutine):
    """Write used elements, publish them, interrupt if wanted: vhost_add_used_and_signal_n.

    Rows V-TX.12 to 15 or V-RX.11 to 14.

    Args:
        eventfd: the call eventfd.
        irqfd: what signalling it leads to.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        queue: VhostQueue,
        eventfd: EventfdCells,
        irqfd: Routine,
        rows: Mapping[str, str],
    ) -> None:
        super().__init__(name, place, queue)
        self.eventfd = eventfd
        self.irqfd = irqfd
        self.rows = rows

    @op(
        "write",
        "write the used elements",
        "vhost_add_used_n",
        VHOST,
        spec="2.7.8",
        text={
            "written": (
                "Each buffer's head and the bytes written into it, 0 for one that was sent, go into the used ring. "
                "Still invisible: used.idx has not moved."
            ),
            "nothing": "There is no buffer to give back: the round is over.",
        },
        to={"written": goto("publish_used_idx"), "nothing": RETURN},
    )
    def write_used(self, me: Context) -> str:
        queue = self.q.cells
        if not queue.done:
            return "nothing"
        self.ring.write_used(queue.heads[: queue.done], queue.written[: queue.done])
        queue.done = 0
        return "written"

    @op(
        "publish",
        "publish used.idx",
        "vhost_put_used_idx",
        VHOST,
        spec="2.7.8.2",
        text="One store makes all of them visible: used.idx = {used}. The buffers belong to the guest again.",
        milestone="used",
    )
    def publish_used_idx(self, me: Context) -> None:
        self.ring.publish_used_idx()

    @op(
        "decide",
        "full barrier",
        "vhost_notify",
        VHOST,
        spec="2.7.7.2",
        text="used.idx must be visible before the worker reads whether the guest wants an interrupt.",
        fence=True,
        cost="barrier",
    )
    def mb_before_interrupt_check(self, me: Context) -> None: ...

    @op(
        "decide",
        "ask whether an interrupt is wanted",
        "vhost_notify",
        VHOST,
        spec="2.7.7.2",
        text={
            "interrupt": (
                "By its {wish}, the guest wants to hear of what was just published{unasked}: it gets its interrupt."
            ),
            "no interrupt": "By its {wish}, the guest need not hear of what was just published: no interrupt.",
        },
        to={"interrupt": goto("signal_call"), "no interrupt": RETURN},
        cost="ring cold",
    )
    def check_interrupt(self, me: Context) -> str:
        return "interrupt" if self.ring.interrupt_wanted() else "no interrupt"

    @op(
        "signal",
        "signal the call eventfd",
        "vhost_signal",
        VHOST,
        spec="4.1.5.3",
        text="The worker adds 1 to the queue's call eventfd. What follows runs in this very thread; QEMU sleeps on.",
        to={SIGNALLED: call("irqfd", None)},
        cost="eventfd",
    )
    def signal_call(self, me: Context) -> str:
        self.eventfd.counter += 1
        return SIGNALLED
