"""Someone outside driver and device who changes a ring, or a link: recorded as a step of a thread of its own.

A lesson can so show what a broken driver, device or memory would do. It happens when the program comes
to that point of its scenario, and takes one step: the field gets its value, whoever it belongs to. A link belongs to
QEMU, so for one somebody has to ask QEMU, and its main loop is woken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import ALREADY_AWAKE, WOKE
from virtviz.engine.ops import Routine, goto, op
from virtviz.engine.places import Domain, Place
from virtviz.paths.traffic import Link, Poke
from virtviz.spec.citation import QEMU_MONITOR, SCENARIO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.memory import Region
    from virtviz.engine.state import State
    from virtviz.engine.threads import Thread
    from virtviz.paths.context import Context
    from virtviz.paths.guest_program import Program
    from virtviz.paths.qemu import Qemu


class Layout(Protocol):
    """Where the fields of a queue lie."""

    def field_place(self, field: str) -> tuple[int, int]:
        """Give address and length in bytes of a field by its name."""


OUTSIDE = Place("outside", Domain.HARDWARE, "outside")
WORD = 2
DOWN, UP = 1, 2
"""What QEMU can be asked to make of a link."""


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
        self.places = [
            layouts[poke.queue].field_place(poke.field) if isinstance(poke, Poke) else (0, 0) for poke in self.pokes
        ]
        self.cells = state.add(OutsideCells, name)

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the field and its new value, or what the link is to be."""
        change = self.pokes[self.cells.last - 1]
        if isinstance(change, Link):
            return {"state": "up" if change.up else "down", "vm": f"vm{change.vm + 1}"}
        return {"name": change.queue, "field": change.field, "value": change.value}

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
        change = self._next()
        assert isinstance(change, Poke)
        self._poke(change)

    def _next(self) -> Poke | Link:
        """Go past the change that is due; answers it."""
        number = self.program.pass_change()
        self.cells.last = number + 1
        return self.pokes[number]

    def _poke(self, change: Poke) -> None:
        address, size = self.places[self.cells.last - 1]
        if size == WORD:
            self.memory.u16[address // WORD] = change.value
        else:
            self.memory.write(address, change.value.to_bytes(size, "little"))


class ChangeWorld(ChangeRing):
    """The same where links are changed too: rows POKE.1 and CONFIG.1.

    Attributes:
        qemu, main_loop: the process that has the device, and its main loop; set by the wiring.
    """

    qemu: Qemu
    main_loop: Thread

    def is_due(self) -> bool:
        """Say whether the program has come to a change, and QEMU has answered the request before."""
        return super().is_due() and not self.qemu.cells.asked

    @op(
        {"link": "CONFIG.1", "ring": "POKE.1"},
        {"link": "ask QEMU to change the link", "ring": "change a ring from outside"},
        "(outside)",
        SCENARIO,
        text={
            "link": (
                "Somebody asks QEMU by its monitor (QMP, set_link): the link of {vm} is to be {state}. The main loop "
                "is told."
            ),
            "ring": (
                "Neither driver nor device did this: in {name}, {field} is now {value}. They will find out by "
                "themselves."
            ),
        },
        to={"link": goto("wake_main_loop"), "ring": goto("change")},
        guard="is_due",
    )
    def change(self, me: Context) -> str:
        change = self._next()
        if isinstance(change, Poke):
            self._poke(change)
            return "ring"
        # The main loop's own eventfd is written with it, so that its next ppoll() returns at once.
        self.qemu.cells.asked = UP if change.up else DOWN
        self.qemu.own.counter += 1
        return "link"

    @op(
        "CONFIG.1",
        "wake QEMU's main loop",
        "monitor_qmp_dispatcher_co",
        QEMU_MONITOR,
        text={
            WOKE: "The main loop sleeps in ppoll(), and is made runnable: it will find the request.",
            ALREADY_AWAKE: "The main loop has been woken already, and will find the request as well.",
            "nobody waits": "The main loop is at work, and will find the request before it waits again.",
        },
        to={WOKE: goto("change"), ALREADY_AWAKE: goto("change"), "nobody waits": goto("change")},
        target="main_loop",
    )
    def wake_main_loop(self, me: Context) -> str:
        return self.main_loop.me.wake() if self.qemu.cells.polling else "nobody waits"
