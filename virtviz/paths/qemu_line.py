"""The system calls by which QEMU tells KVM of an interrupt line: one, two or three, by the machine's wiring.

Source: QEMU 10.0 hw/i386/x86-common.c (gsi_handler), hw/isa/lpc_ich9.c, accel/kvm/kvm-all.c (kvm_set_irq).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import Routine, call, op
from virtviz.spec.citation import QEMU_GSI, QEMU_ICH9, QEMU_KVM

if TYPE_CHECKING:
    from virtviz.engine.places import Place
    from virtviz.paths.context import Context


class TellKvm(Routine):
    """The system calls by which KVM hears of the line: one, as if the line were the IOAPIC's own.

    Args:
        own: ioctl(KVM_IRQ_LINE) for the device's line.
        row: which row it is.
    """

    def __init__(self, name: str, place: Place, own: Routine, row: str) -> None:
        super().__init__(name, place)
        self.own = own
        self.rows = {"line": row}

    @op(
        "line",
        "move the line in KVM",
        "kvm_set_irq",
        QEMU_KVM,
        text="QEMU asks KVM to move the line: ioctl(KVM_IRQ_LINE).",
        to=call("own", None),
    )
    def tell(self, me: Context) -> None: ...


class TellKvmTwice(TellKvm):
    """The same on the machine `pc`, where the line is one of the old sixteen: two interrupt controllers have it.

    Args:
        own_again: the same system call once more.
    """

    def __init__(self, name: str, place: Place, own: Routine, own_again: Routine, row: str) -> None:
        super().__init__(name, place, own, row)
        self.own_again = own_again

    @op(
        "line",
        "move the line of the PIC",
        "gsi_handler",
        QEMU_GSI,
        text="The line is one of the PIC's sixteen: QEMU asks KVM to move it there, by ioctl(KVM_IRQ_LINE).",
        to=call("own", "tell_again"),
    )
    def tell(self, me: Context) -> None: ...

    @op(
        "line",
        "move the line of the IOAPIC",
        "gsi_handler",
        QEMU_GSI,
        text="The IOAPIC has the line as well. KVM has moved both already, but QEMU asks a second time.",
        to=call("own_again", None),
    )
    def tell_again(self, me: Context) -> None: ...


class TellKvmQ35(TellKvm):
    """The same on the machine `q35`, whose bridge also computes the line that it routes old interrupts to.

    Args:
        other, other_again: the system calls for that line.
    """

    def __init__(self, name: str, place: Place, own: Routine, others: tuple[Routine, Routine], row: str) -> None:
        super().__init__(name, place, own, row)
        self.other, self.other_again = others

    @op(
        "line",
        "move the line in KVM",
        "ich9_lpc_update_apic",
        QEMU_ICH9,
        text="QEMU asks KVM to move the line of the IOAPIC: ioctl(KVM_IRQ_LINE).",
        to=call("own", "tell_pic"),
    )
    def tell(self, me: Context) -> None: ...

    @op(
        "line",
        "move the bridge's old line",
        "ich9_lpc_update_pic",
        QEMU_ICH9,
        text="q35's bridge computes its old interrupt line anew: low, as before. QEMU tells KVM, for the PIC.",
        to=call("other", "tell_ioapic"),
    )
    def tell_pic(self, me: Context) -> None: ...

    @op(
        "line",
        "move the bridge's old line once more",
        "gsi_handler",
        QEMU_GSI,
        text="And once more for the IOAPIC, which has that line too: a third system call for one change.",
        to=call("other_again", None),
    )
    def tell_ioapic(self, me: Context) -> None: ...
