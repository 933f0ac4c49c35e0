"""QEMU's e1000 interrupts: causes, the mitigation timer, and the line. Row 12 of sending, row 7 of receiving.

The card has one line. It is high while a cause waits that the driver wants to hear of. When it rises a timer is set,
and for as long as that runs, it does not rise again: a card promises not to interrupt too often. So a second packet's
interrupt may come late, and then it is the main loop that raises the line.

Source: QEMU 10.0 hw/net/e1000.c (set_interrupt_cause, e1000_mit_timer), util/qemu-timer.c, hw/pci/pci.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.effects import TIMER_SET
from virtviz.engine.ops import RETURN, Routine, block, call, goto, op
from virtviz.paths.qemu_e1000 import E1000, TIMER_DUE, TIMER_OFF, TIMER_RUNS, E1000Routine
from virtviz.spec.citation import (
    POLL,
    QEMU_ASYNC,
    QEMU_E1000,
    QEMU_MAIN_LOOP,
    QEMU_PCI,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.threads import Thread
    from virtviz.paths.context import Context
    from virtviz.paths.kvm_ioapic import Ioapic


class UpdateLine(E1000Routine):
    """What comes of a change of causes or of the mask: set_interrupt_cause.

    Args:
        ioapic: the line.
        timer: the thread that is the mitigation timer.
        write: write() to the main loop's eventfd.
        tell_kvm: the system calls by which KVM hears of the line's level.
        row: which row it is.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        device: E1000,
        *,
        ioapic: Ioapic,
        timer: Thread,
        write: Routine,
        tell_kvm: Routine,
        row: str,
    ) -> None:
        super().__init__(name, place, device)
        self.ioapic = ioapic
        self.timer = timer
        self.write = write
        self.tell_kvm = tell_kvm
        self.rows = {"line": row}

    @op(
        "line",
        "decide what the line should be",
        "set_interrupt_cause",
        QEMU_E1000,
        text={
            "raise": "ICR {icr} and the mask {ims} have a cause in common, and no timer holds it back: the line rises.",
            "hold back": (
                "A cause waits, but the timer of the last interrupt still runs: the line stays low until then."
            ),
            "lower": "No cause is left that the driver wants to hear of: the line goes low.",
            "leave": "The line is as it should be: nobody has to be told.",
        },
        to={"raise": goto("set_timer"), "hold back": RETURN, "lower": goto("lower_line"), "leave": RETURN},
        private=True,
    )
    def decide(self, me: Context) -> str:
        mine = self.mine
        pending = mine.icr & mine.ims
        if not pending:
            return "lower" if mine.irq_level else "leave"
        if mine.irq_level:
            return "leave"
        return "hold back" if mine.timer else "raise"

    @op(
        "line",
        "set the mitigation timer",
        "set_interrupt_cause",
        QEMU_E1000,
        text={TIMER_SET: "For the next 128 µs, 500 units of 256 ns, the line will not rise again: a timer is set."},
        to={TIMER_SET: goto("schedule")},
        target="timer",
        fence=True,
    )
    def set_timer(self, me: Context) -> str:
        self.mine.timer = TIMER_RUNS
        self.timer.me.wake()
        return TIMER_SET

    @op(
        "line",
        "have the main loop look at its timers",
        "qemu_notify_event",
        QEMU_MAIN_LOOP,
        text="The main loop sleeps until its next timer, and this one is sooner: an empty bottom half is scheduled.",
    )
    def schedule(self, me: Context) -> None:
        self.device.qemu.schedule(0)

    @op(
        "line",
        "tell the main loop",
        "aio_notify",
        QEMU_ASYNC,
        text={
            "asleep": "The main loop is in ppoll(), or on its way there: its eventfd is written, a system call.",
            "awake": "The main loop is at work and will look before it waits: nothing has to be written.",
        },
        to={"asleep": call("write", "raise_line"), "awake": goto("raise_line")},
        fence=True,
    )
    def notify(self, me: Context) -> str:
        return "asleep" if self.device.qemu.cells.notify_me else "awake"

    @op(
        "line",
        "raise the line",
        "pci_set_irq",
        QEMU_PCI,
        text=(
            "The device's line goes high. The interrupt controllers are KVM's, so KVM has to be told: by a system call."
        ),
        to=call("tell_kvm", None),
    )
    def raise_line(self, me: Context) -> None:
        self.mine.irq_level = self.ioapic.line.level = 1

    @op(
        "line",
        "lower the line",
        "pci_set_irq",
        QEMU_PCI,
        text="The device's line goes low, and KVM has to be told: by a system call.",
        to=call("tell_kvm", None),
    )
    def lower_line(self, me: Context) -> None:
        self.mine.irq_level = self.ioapic.line.level = 0


class MitigationTimer(Routine):
    """The timer itself: a thread that sleeps until it is set, and then for as long as it is set for.

    Args:
        device: whose timer it is.
        wake: wakes the main loop, if it sleeps in ppoll().
    """

    def __init__(self, name: str, place: Place, device: E1000, wake: Routine) -> None:
        super().__init__(name, place)
        self.device = device
        self.wake = wake

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the process."""
        return {"qemu": self.device.qemu.name}

    @op(
        "E1000-TX.12",
        "wait to be set",
        "schedule_hrtimeout_range",
        POLL,
        text={
            "not set": "The timer is not set.",
            "set": "The timer was set again meanwhile.",
        },
        to={"not set": block("go_off"), "set": goto("go_off")},
    )
    def wait(self, me: Context) -> str:
        return "set" if self.device.cells.timer == TIMER_RUNS else "not set"

    @op(
        "E1000-TX.12",
        "the time is over",
        "schedule_hrtimeout_range",
        POLL,
        text="128 µs have passed since the line rose. From now on it may rise again, once {qemu} has seen to it.",
        to=call("wake", "wait"),
        fence=True,
    )
    def go_off(self, me: Context) -> None:
        self.device.cells.timer = TIMER_DUE


class RunTimer(E1000Routine):
    """The main loop finds that the mitigation timer's time is over: e1000_mit_timer.

    Args:
        interrupt: what comes of causes that waited.
    """

    def __init__(self, name: str, place: Place, device: E1000, interrupt: Routine) -> None:
        super().__init__(name, place, device)
        self.interrupt = interrupt

    @op(
        "E1000-TX.12",
        "run the mitigation timer",
        "e1000_mit_timer",
        QEMU_E1000,
        text="The timer is over: if a cause waits that was held back, the line rises now. ICR is {icr}.",
        to=call("interrupt", None),
    )
    def run(self, me: Context) -> None:
        self.mine.timer = TIMER_OFF


class EmptyBottomHalf(Routine):
    """The bottom half of qemu_notify_event(): it does nothing."""

    @op(
        "E1000-TX.12",
        "run the empty bottom half",
        "notify_event_cb",
        QEMU_MAIN_LOOP,
        text="The bottom half has nothing to do: it was scheduled only so that ppoll() returns and is called anew.",
        to=RETURN,
        private=True,
    )
    def do_nothing(self, me: Context) -> None: ...
