"""A program in the guest that also has the driver taken off the device, and put back, where its scenario says so.

With several vCPUs the program on the first does that. What the others do afterwards waits until it is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import call, goto, op
from virtviz.paths.guest_program import Program
from virtviz.paths.traffic import RESET
from virtviz.spec.citation import SCENARIO, X86_ENTRY

if TYPE_CHECKING:
    from collections.abc import Callable

    from virtviz.engine.ops import Routine
    from virtviz.paths.context import Context


class RebindingProgram(Program):
    """The same program, which may write to the driver's files `unbind` and `bind`.

    Attributes:
        rebind: what that leads to.
    """

    rebind: Routine

    @op(
        "G-TX.1",
        {
            "send": "call sendmsg()",
            "receive": "call recvmsg()",
            "rebind": "have the driver put on anew",
            "work": "go on with other work",
        },
        "entry_SYSCALL_64",
        X86_ENTRY,
        text={
            "send": (
                "The program has a packet ready and calls sendmsg(): {what}. A system call, and no exit from the guest."
            ),
            "receive": "The program calls recvmsg(), to wait for what comes back.",
            "rebind": "The program is to take the driver off its device, and to put it back.",
            "work": "The program has nothing to send and does work of its own.",
        },
        to={
            "send": call("sendmsg", "next_act"),
            "receive": call("recvmsg", "next_act"),
            "rebind": goto("write_unbind"),
            "work": goto("own_work"),
        },
        milestone={"send": "sent"},
        cause="system call",
    )
    def next_act(self, me: Context) -> str:
        mine = self.cells
        if mine.done < self.acts_in_all and self.act is RESET:
            me.packet = 0
            mine.done += 1
            return "rebind"
        return Program.next_act(self, me) or "work"

    def never(self) -> bool:
        """Say that nothing the network does is waited for."""
        return False

    def always(self) -> bool:
        """Say that time alone is."""
        return True

    @op(
        "CP.1.10",
        "write to the driver's file",
        "main",
        SCENARIO,
        text=(
            "When everything has come to rest, it writes the device's name to "
            "/sys/bus/virtio/drivers/virtio_net/unbind."
        ),
        to=call("rebind", "next_act"),
        guard="never",
        patience="always",
        cause="system call",
    )
    def write_unbind(self, me: Context) -> None: ...


class WaitingProgram(Program):
    """A program on another vCPU, which goes past such a place once the driver is back.

    Attributes:
        resets: says how often the driver has been put back; set by the wiring.
    """

    resets: Callable[[], int]

    def is_due(self) -> bool:
        """Say whether the driver has been put back as often as this program has to know of."""
        round_, at = divmod(self.cells.done, self.acts_a_round)
        kinds = [act for act, _ in self.acts]
        return self.resets() > round_ * kinds.count(RESET) + kinds[:at].count(RESET)

    def can_go_on(self) -> bool:
        """Say whether there is something to do for the network at once."""
        return self.is_due() if self.act is RESET else super().can_go_on()

    def own_work(self, me: Context) -> None:
        """Go past the end of a pause, or a driver that is back."""
        if self.act is RESET:
            self.cells.done += 1
        else:
            super().own_work(me)
