"""What a virtio-mmio device's registers say, for the screen: why it interrupts, and whether its line is high.

With MSI-X there is nothing of the kind to be shown: an interrupt is a message, and nothing stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.view.frame import Cell

if TYPE_CHECKING:
    from virtviz.engine.trace import Step
    from virtviz.view.frame import Source

LEVELS = ("low", "high")


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
    status, pin = f"{machine}.device.isr", f"{machine}.ioapic.pin.level"
    written = {access.field for access in step.writes} if step else set()
    return (
        ("InterruptStatus", Cell(str(source.cell(position, status)), status in written)),
        ("line", Cell(LEVELS[source.cell(position, pin)], pin in written)),
    )
