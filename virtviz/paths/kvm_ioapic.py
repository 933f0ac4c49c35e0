"""An interrupt line: KVM's IOAPIC, the system call by which a program moves a line, and the end of such an interrupt.

A line has a level. While it is high, and the guest has not ended the interrupt that it caused, no other comes of it;
if it is still high then, another one does. So a device that is heard lowers its line before the interrupt is ended.

Source: Linux 6.12 arch/x86/kvm/ioapic.c (ioapic_set_irq, ioapic_service, kvm_ioapic_update_eoi_one), lapic.c.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from virtviz.engine.cells import Cells, cells
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.spec.citation import KVM_IOAPIC, KVM_LAPIC, KVM_MAIN, KVM_X86

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.kvm import Vcpu
    from virtviz.paths.kvm_msi import MsiDelivery

E1000_ROWS: Final[Mapping[str, str]] = MappingProxyType({"end": "E1000-TX.17"})
"""The rows of an interrupt's end, where it is an e1000's; another device's are set by the wiring."""


@cells
class PinCells(Cells):
    """A pin of KVM's IOAPIC: its level, and 1 while its interrupt was delivered and not ended (remote_irr)."""

    level: int = 0
    in_service: int = 0


@cells
class LineCells(Cells):
    """A device's interrupt line, as its program drives it: its level."""

    level: int = 0


class Ioapic:
    """The pin of KVM's IOAPIC that a device's line is connected with.

    Args:
        gsi: the line's number: 21 is an e1000's on the recorded machine.

    Attributes:
        line: the level that the program wants it to have.
    """

    def __init__(self, state: State, name: str, gsi: int = 21) -> None:
        self.gsi = gsi
        self.cells = state.add(PinCells, f"{name}.pin")
        self.line = state.add(LineCells, f"{name}.line")

    def deliver_now(self) -> bool:
        """Say whether the pin's interrupt goes to the vCPU now; it is in service then."""
        mine = self.cells
        if not mine.level or mine.in_service:
            return False
        mine.in_service = 1
        return True


class IrqLine(Routine):
    """ioctl(KVM_IRQ_LINE): the pin gets the line's level.

    Args:
        ioapic: the pin, and the line.
        deliver: delivers the vector.
        row: which row it is.
    """

    def __init__(self, name: str, place: Place, ioapic: Ioapic, deliver: MsiDelivery, row: str) -> None:
        super().__init__(name, place, deliver.queue)
        self.ioapic = ioapic
        self.deliver = deliver
        self.rows = {"line": row}

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the pin and its level."""
        return {"gsi": self.ioapic.gsi, "level": self.ioapic.line.level, "vcpu": self.deliver.vcpu_thread.name}

    @op(
        "line",
        "take the line's level",
        "kvm_vm_ioctl_irq_line",
        KVM_X86,
        text="A system call tells KVM: interrupt line {gsi} is at level {level}.",
        private=True,
    )
    def take_level(self, me: Context) -> None: ...

    @op(
        "line",
        "set the pin of the IOAPIC",
        "ioapic_set_irq",
        KVM_IOAPIC,
        text={
            "deliver": "Pin {gsi} rises, and no interrupt of it is in service: one goes to {vcpu}.",
            "in service": "Pin {gsi} is high, but the guest has not ended its last interrupt: it will be told then.",
            "low": (
                "Pin {gsi} is low: the device wants nothing more. The interrupt that it caused is still to be ended."
            ),
        },
        to={"deliver": call("deliver", "finish"), "in service": goto("finish"), "low": goto("finish")},
    )
    def set_pin(self, me: Context) -> str:
        ioapic = self.ioapic
        level = ioapic.line.level
        if ioapic.cells.level != level:
            ioapic.cells.level = level
        if not level:
            return "low"
        return "deliver" if ioapic.deliver_now() else "in service"

    @op(
        "line",
        "return from the ioctl",
        "kvm_vm_ioctl",
        KVM_MAIN,
        text="The pin has the line's level: ioctl() returns.",
        to=RETURN,
        cause="return from the system call",
        private=True,
    )
    def finish(self, me: Context) -> None: ...


class OtherIrqLine(Routine):
    """ioctl(KVM_IRQ_LINE) for a line that is low, and stays so: q35's bridge computes it anew with every change.

    Args:
        row: which row it is.
    """

    gsi = 10

    def __init__(self, name: str, place: Place, row: str) -> None:
        super().__init__(name, place)
        self.rows = {"line": row}

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the pin."""
        return {"gsi": self.gsi}

    @op(
        "line",
        "take the line's level",
        "kvm_vm_ioctl_irq_line",
        KVM_X86,
        text="A system call tells KVM: interrupt line {gsi} is at level 0. Nobody has ever raised it.",
        private=True,
    )
    def take_level(self, me: Context) -> None: ...

    @op(
        "line",
        "find the pin low",
        "ioapic_set_irq",
        KVM_IOAPIC,
        text="Pin {gsi} is low already: nothing changes.",
        private=True,
    )
    def set_pin(self, me: Context) -> None: ...

    @op(
        "line",
        "return from the ioctl",
        "kvm_vm_ioctl",
        KVM_MAIN,
        text="ioctl() returns, and nothing has come of it.",
        to=RETURN,
        cause="return from the system call",
        private=True,
    )
    def finish(self, me: Context) -> None: ...


class ReadTmr(Routine):
    """Without APICv: reading a register of the local APIC leaves the guest.

    Args:
        enter: how the guest is entered again.
    """

    rows = E1000_ROWS

    def __init__(self, name: str, kvm: Place, vcpu: Vcpu, enter: Routine) -> None:
        super().__init__(name, kvm)
        self.vcpu = vcpu
        self.enter = enter

    @op(
        "end",
        "read the APIC's register in KVM",
        "kvm_x2apic_msr_read",
        KVM_LAPIC,
        text="Without APICv the guest's APIC is KVM's: reading its register leaves the guest. A light exit.",
        to=goto("enter"),
        fence=True,
    )
    def exit_msr(self, me: Context) -> None:
        self.vcpu.leave()


class LevelEoi(Routine):
    """Ending an interrupt that came by the IOAPIC leaves the guest, with APICv and without: the IOAPIC has to know.

    Args:
        ioapic: the pin.
        deliver: delivers the vector again.
        enter: how the guest is entered again.
    """

    rows = E1000_ROWS

    def __init__(self, name: str, kvm: Place, vcpu: Vcpu, ioapic: Ioapic, deliver: MsiDelivery, enter: Routine) -> None:
        super().__init__(name, kvm)
        self.vcpu = vcpu
        self.ioapic = ioapic
        self.deliver = deliver
        self.enter = enter

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the pin."""
        return {"gsi": self.ioapic.gsi}

    @op(
        "end",
        "tell the IOAPIC",
        "kvm_ioapic_update_eoi_one",
        KVM_IOAPIC,
        text={
            "low": "Pin {gsi} is no longer in service, and it is low: nothing more comes of it.",
            "again": "Pin {gsi} is no longer in service, but still high: the interrupt is delivered once more.",
        },
        to={"low": goto("enter"), "again": call("deliver", "enter")},
    )
    def update_pin(self, me: Context) -> str:
        self.ioapic.cells.in_service = 0
        return "again" if self.ioapic.deliver_now() else "low"


class LevelEoiByMark(LevelEoi):
    """With APICv: KVM has marked the vector, so that the processor leaves the guest for it."""

    first = "exit_eoi"

    @op(
        "end",
        "end the interrupt in KVM",
        "kvm_apic_set_eoi_accelerated",
        KVM_LAPIC,
        text=(
            "The processor ends the interrupt by itself, but KVM has marked this vector: of an interrupt by the "
            "IOAPIC it must hear."
        ),
        to=goto("update_pin"),
        fence=True,
    )
    def exit_eoi(self, me: Context) -> None:
        self.vcpu.leave()


class LevelEoiByMsr(LevelEoi):
    """Without APICv: the write to the APIC's register leaves the guest."""

    first = "exit_msr"

    @op(
        "end",
        "end the interrupt in KVM",
        "kvm_x2apic_msr_write",
        KVM_LAPIC,
        text="The write to the APIC's EOI register leaves the guest. KVM takes the interrupt off its list.",
        to=goto("update_pin"),
        fence=True,
    )
    def exit_msr(self, me: Context) -> None:
        self.vcpu.leave()
