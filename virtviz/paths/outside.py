"""Someone outside driver and device who changes a ring: recorded as a step of a thread of its own.

A lesson can so show what a broken driver, device or memory would do. It happens when the program comes
to that point of its scenario, and takes one step: the field gets its value, whoever it belongs to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from virtviz.engine.cells import Cells, cells
from virtviz.engine.ops import Routine, goto, op
from virtviz.engine.places import Domain, Place
from virtviz.spec.citation import SCENARIO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.memory import Region
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.guest_program import Program
    from virtviz.paths.traffic import Poke


class Layout(Protocol):
    """Where the fields of a queue lie."""

    def field_place(self, field: str) -> tuple[int, int]:
        """Give address and length in bytes of a field by its name."""


OUTSIDE = Place("outside", Domain.HARDWARE, "outside")
WORD = 2


@cells
class OutsideCells(Cells):
    """Which change was the last one: its number in the scenario, from 1; 0 for none."""

    last: int = 0


class ChangeRing(Routine):
    """Change fields of rings, as the scenario says: row POKE.1.

    Args:
        program: the program whose scenario it is.
        memory: guest memory.
        layouts: where the queues lie, by their short names, such as `transmitq1`.
    """

    def __init__(
        self, state: State, name: str, program: Program, memory: Region, layouts: Mapping[str, Layout]
    ) -> None:
        super().__init__(name, OUTSIDE)
        self.program = program
        self.memory = memory
        self.pokes = program.traffic.pokes
        self.places = [layouts[poke.queue].field_place(poke.field) for poke in self.pokes]
        self.cells = state.add(OutsideCells, name)

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the field and its new value."""
        poke: Poke = self.pokes[self.cells.last - 1]
        return {"name": poke.queue, "field": poke.field, "value": poke.value}

    def is_due(self) -> bool:
        """Say whether the program has come to a change."""
        return bool(self.program.cells.outside)

    @op(
        "POKE.1",
        "change a ring from outside",
        "(outside)",
        SCENARIO,
        text="Neither driver nor device did this: in {name}, {field} is now {value}. They will find out by themselves.",
        to=goto("change"),
        guard="is_due",
    )
    def change(self, me: Context) -> None:
        number = self.program.pass_change()
        self.cells.last = number + 1
        address, size = self.places[number]
        value = self.pokes[number].value
        if size == WORD:
            self.memory.u16[address // WORD] = value
        else:
            self.memory.write(address, value.to_bytes(size, "little"))
