"""The guest's CPU takes an interrupt that came by a line: row 17 of sending, row 12 of receiving.

The handler runs first, and makes the device lower its line; only then is the interrupt ended, or it would come again at
once. An edge, as a message-signalled interrupt is, is ended before its handler runs.

Source: Linux 6.12 kernel/irq/chip.c (handle_fasteoi_irq), arch/x86/kernel/apic/io_apic.c (ioapic_ack_level).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import Routine, call, call_any, goto, op
from virtviz.paths.guest_cpu import TakeInterrupt
from virtviz.paths.kvm_ioapic import E1000_ROWS
from virtviz.spec.citation import IRQ, IRQ_CHIP, X86_IOAPIC

if TYPE_CHECKING:
    from virtviz.engine.ops import OpSpec
    from virtviz.engine.places import Place
    from virtviz.paths.context import Context


class TakeLevelInterrupt(TakeInterrupt):
    """The CPU takes an interrupt that came by a line. With APICv only its end leaves the guest."""

    rows = E1000_ROWS

    def place_of(self, spec: OpSpec) -> Place:
        """As for an edge; the two accesses to the APIC are the kernel's as well."""
        return self.kernel if spec.name in ("read_trigger_mode", "end_interrupt") else super().place_of(spec)

    @op(
        "IRQ.5",
        "do not end it yet",
        "handle_fasteoi_irq",
        IRQ_CHIP,
        text="The interrupt came by a line, and the line is still high. It is not ended before the handler has run.",
        to=goto("call_handler"),
        private=True,
    )
    def acknowledge(self, me: Context) -> None: ...

    @op(
        "IRQ.6",
        "call the line's handlers",
        "__handle_irq_event_percpu",
        IRQ,
        text="A line can be shared, and does not say why it is high: each handler has to ask its own card.",
        to=call_any("handlers", "read_trigger_mode"),
        private=True,
    )
    def call_handler(self, me: Context) -> str:
        return self.cpu.vcpu.queue_of_vector()

    @op(
        "end",
        "look how it was triggered",
        "ioapic_ack_level",
        X86_IOAPIC,
        text=(
            "Linux reads from its APIC that a level triggered this. With APICv the processor answers, without an exit."
        ),
        to=goto("end_interrupt"),
        private=True,
    )
    def read_trigger_mode(self, me: Context) -> None: ...

    @op(
        "end",
        "end the interrupt",
        "ioapic_ack_level",
        X86_IOAPIC,
        text=(
            "Now the interrupt is ended, before the softirq: of this interrupt the IOAPIC must hear, so it is an exit."
        ),
        to=call("eoi_exit", "irq_exit"),
        cause="the end-of-interrupt register is written",
        private=True,
    )
    def end_interrupt(self, me: Context) -> None: ...


class TakeLevelInterruptByExits(TakeLevelInterrupt):
    """The same without APICv.

    Attributes:
        read_tmr: what reading the APIC's trigger mode register leads to; set by the wiring.
    """

    read_tmr: Routine

    @op(
        "end",
        "look how it was triggered",
        "ioapic_ack_level",
        X86_IOAPIC,
        text="Linux reads from its APIC that a level triggered this. Without APICv that leaves the guest.",
        to=call("read_tmr", "end_interrupt"),
        cause="a register of the APIC is read",
        private=True,
    )
    def read_trigger_mode(self, me: Context) -> None: ...
