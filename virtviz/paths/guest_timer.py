"""The timer of a halted guest: what ends a wait for a packet that does not come.

A guest that polls notices by itself that time has passed. One that has halted is woken by the timer of its local APIC:
KVM keeps it as a timer of the host, whose callback makes the vCPU's thread runnable. The guest's handling of that
interrupt is not shown; the program finds that its wait is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.effects import WOKE
from virtviz.engine.ops import Routine, goto, op
from virtviz.paths.guest_cpu import Waits
from virtviz.spec.citation import KVM_LAPIC

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.threads import Thread
    from virtviz.paths.context import Context
    from virtviz.paths.guest_cpu import GuestCpu


class GuestTimer(Routine):
    """A timer of the host that stands for a halted vCPU's own; it goes off once nothing else can move.

    Args:
        cpu: the guest's CPU.
        vcpu_thread: its thread.
        gives_up: says whether the program's wait may end although nothing comes.
    """

    def __init__(
        self, name: str, place: Place, cpu: GuestCpu, vcpu_thread: Thread, gives_up: Callable[[], bool]
    ) -> None:
        super().__init__(name, place)
        self.cpu = cpu
        self.vcpu_thread = vcpu_thread
        self.gives_up = gives_up

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the vCPU."""
        return {"vcpu": self.vcpu_thread.name}

    def goes_off(self) -> bool:
        """Say no: other things happen first."""
        return False

    def is_due(self) -> bool:
        """Say whether the vCPU sleeps in vain."""
        return bool(self.vcpu_thread.me.asleep) and self.gives_up()

    @op(
        "IRQ.4",
        "let the vCPU's timer go off",
        "apic_timer_fn",
        KVM_LAPIC,
        text="Much time has passed. The timer that KVM keeps for {vcpu} goes off and makes its thread runnable: the "
        "program's wait is over.",
        to={WOKE: goto("go_off")},
        guard="goes_off",
        patience="is_due",
        target="vcpu_thread",
        cost="wake",
        fence=True,
    )
    def go_off(self, me: Context) -> str:
        """End the program's wait and wake the vCPU."""
        mine = self.cpu.cells
        mine.waits = Waits.FOR_NOTHING
        mine.timed_out = mine.runnable = 1
        return self.vcpu_thread.me.wake()
