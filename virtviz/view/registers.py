"""What a virtio-mmio device's registers say, for the screen: why it interrupts, and whether its line is high.

While a kick is under way the register that it stores to is shown in the line's place. On PCI there is nothing of the
kind to be shown: the address says which queue is kicked, and an interrupt is a message, of which nothing stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.view.frame import Cell

if TYPE_CHECKING:
    from virtviz.engine.trace import Step
    from virtviz.view.frame import Source

LEVELS = ("low", "high")
KICKS = ("G-TX.13", "G-RX.7", "KICK.")
"""Beginnings of the rows in which a kick is on its way."""


def registers_of(source: Source, position: int, machine: str, step: Step | None) -> tuple[tuple[str, Cell], ...]:
    """Give the names and values of a machine's registers; none without virtio-mmio.

    Args:
        source: a session or a trace file.
        position: 0..length.
        machine: the virtual machine.
        step: the step that led there; None at position 0.
    """
    if source.header.world.get("transport") != "mmio":
        return ()
    written = {access.field for access in step.writes} if step else set()

    def cell(name: str, texts: tuple[str, ...] = ()) -> Cell:
        value = source.cell(position, name)
        return Cell(texts[value] if texts else str(value), name in written)

    status = ("InterruptStatus", cell(f"{machine}.device.isr"))
    if step is not None and step.row.startswith(KICKS):
        stored = f"{machine}.vcpu0.access.value"
        return ("QueueNotify", Cell(str(source.cell(position, stored)), step.row.startswith("G-"))), status
    return status, ("line", cell(f"{machine}.ioapic.pin.level", LEVELS))
