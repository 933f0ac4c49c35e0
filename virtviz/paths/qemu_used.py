"""QEMU tells the guest of what it has given back: virtio_notify, behind whatever published it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from virtviz.engine.ops import Routine, call, goto, op
from virtviz.paths.qemu_checks import CheckingRoutine
from virtviz.spec.citation import QEMU_KVM, QEMU_VIRTIO

if TYPE_CHECKING:
    from virtviz.paths.context import Context


class TellingRoutine(CheckingRoutine):
    """A routine that returns buffers, and ends with asking whether the guest wants to hear of them.

    It leads to `tell`. Where it goes on, `told`, and its rows are a subclass's.

    Attributes:
        interrupt: what makes the queue's interrupt.
    """

    interrupt: Routine
    links = MappingProxyType({"tell": "mb_before_interrupt_check", "told": ""})

    @op(
        "tell",
        "full barrier",
        "virtio_split_should_notify",
        QEMU_VIRTIO,
        spec="2.7.7.2",
        text="used.idx must be visible before QEMU reads whether the guest wants an interrupt.",
        to=goto("check_interrupt"),
        fence=True,
        cost="barrier",
    )
    def mb_before_interrupt_check(self, me: Context) -> None: ...

    @op(
        "tell",
        "ask whether an interrupt is wanted",
        "virtio_split_should_notify",
        QEMU_VIRTIO,
        spec="2.7.7.2",
        text={
            "interrupt": "By its {wish}, the guest wants to hear of what was just published{unasked}.",
            "no interrupt": "By its {wish}, the guest need not hear of what was just published: no interrupt.",
        },
        to={"interrupt": goto("signal"), "no interrupt": goto("told")},
        cost="ring cold",
    )
    def check_interrupt(self, me: Context) -> str:
        return "interrupt" if self.ring.interrupt_wanted() else "no interrupt"

    @op(
        "tell",
        "ask KVM for the interrupt",
        "kvm_irqchip_send_msi",
        QEMU_KVM,
        spec="4.1.5.3",
        text="QEMU asks KVM to deliver the queue's interrupt: ioctl(KVM_SIGNAL_MSI), a system call.",
        to=call("interrupt", "told"),
    )
    def signal(self, me: Context) -> None: ...
