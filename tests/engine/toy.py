"""A toy world for tests of the engine: an app in a guest rings a bell, a worker on the host answers with an interrupt.

It has every kind of arc, border and effect that the engine knows how to run, in as few ops as that takes.

    app (guest-user) -> kernel (guest-kernel) -> kvm (host-kernel): writes a number, leaves the guest, wakes the worker
    worker (host-kernel): copies the number, interrupts the app, sleeps
    cpu gates: take the interrupt in user or in kernel mode
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from virtviz.engine.cells import Cells, cells
from virtviz.engine.counting import CountingMachine
from virtviz.engine.effects import COPIED, POSTED
from virtviz.engine.ops import RETURN, Return, Routine, block, call, call_any, goto, op
from virtviz.engine.places import Domain, Place, Role
from virtviz.engine.program import link
from virtviz.engine.recording import RecordingMachine
from virtviz.engine.state import State
from virtviz.engine.threads import Registers, Thread, ThreadKind
from virtviz.spec.citation import Source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.machine import Machine
    from virtviz.engine.memory import Region

BOOK = Source("toy", "book.c")
APP = Place("app", Domain.GUEST_USER, "app")
KERNEL = Place("kernel", Domain.GUEST_KERNEL, "kernel")
KVM = Place("kvm", Domain.HOST_KERNEL, "KVM", Role.HYPERVISOR)
HOST = Place("host", Domain.HOST_KERNEL, "host")
CPU_USER = Place("cpu.user", Domain.GUEST_USER, "CPU", Role.CPU)
CPU_KERNEL = Place("cpu", Domain.GUEST_KERNEL, "CPU", Role.CPU)
RECORD = struct.Struct("<HHI")
COSTS = {
    "step": 10,
    "vm-exit": 100,
    "vm-entry": 100,
    "syscall-enter": 5,
    "wakeup": 7,
    "wakeup-latency": 1000,
    "posted-latency": 50,
    "copy-per-kib": 1024,
}


def step(title: str, **more: Any) -> Any:
    """Mark a toy op; row and function are the same for all."""
    text = more.pop("text", title.capitalize() + ".")
    return op(more.pop("row", "TOY.1"), title, "toy()", BOOK, text=text, **more)


@cells
class ToyCells(Cells):
    """What the toy keeps; with `echo`, every so many rings interrupt the app itself while it is outside the guest."""

    left: int = 0
    number: int = 0
    pending: int = 0
    in_guest: int = 1
    on: int = 1
    taken: int = 0
    echo: int = 0
    seen: list[int]


class App(Routine):
    first = "count"

    def __init__(self, toy: Toy, kernel: Routine) -> None:
        super().__init__("app", APP)
        self.toy = toy
        self.kernel = kernel

    def words(self, me: Registers) -> Mapping[str, object]:
        return {"left": self.toy.cells.left}

    @step("rest", guard="has_more", patience="may_wake", to=goto("count"))
    def rest(self, me: Registers) -> None:
        if not self.toy.cells.left:
            self.toy.naps.left -= 1
            self.toy.cells.left = 1

    def has_more(self) -> bool:
        return bool(self.toy.cells.left)

    def may_wake(self) -> bool:
        return bool(self.toy.naps.left)

    @step(
        "count",
        text="{left} left.",
        row={"more": "TOY.1", "": "TOY.9"},
        to={"more": call("kernel", "count"), "enough": goto("rest")},
        milestone={"more": "sent"},
        private=True,
    )
    def count(self, me: Registers) -> str:
        toy = self.toy.cells
        if not toy.left:
            return "enough"
        toy.left -= 1
        me.packet += 1
        return "more"


class Kernel(Routine):
    def __init__(self, toy: Toy, bells: Mapping[str, Routine]) -> None:
        super().__init__("kernel", KERNEL, queue="toyq")
        self.toy = toy
        self.bells = bells
        self.memory = toy.memory
        self.write_record = toy.memory.writer(RECORD)

    @step("store a word twice")
    def store_word(self, me: Registers) -> None:
        self.memory.u16[8] = self.toy.cells.number
        self.toy.cells.number += 1
        self.memory.u16[8] = self.toy.cells.number

    @step("write a record")
    def write(self, me: Registers) -> None:
        self.write_record(32, 1, 2, self.toy.cells.number)

    @step("full barrier", fence=True)
    def mb(self, me: Registers) -> None: ...

    @step("ring a bell", to={"bell": call_any("bells", "back")}, cause="somebody rang", into="{queue}")
    def ring(self, me: Registers) -> str:
        return ("left", "right")[self.toy.cells.number & 1]

    @step("go back", to=RETURN, opens=True)
    def back(self, me: Registers) -> None: ...


class Bell(Routine):
    def __init__(self, name: str, toy: Toy, worker: Thread) -> None:
        super().__init__(name, KVM)
        self.toy = toy
        self.worker = worker

    @step("leave the guest")
    def leave(self, me: Registers) -> None:
        self.toy.cells.in_guest = 0

    @step(
        "wake the worker",
        to={"woke": goto("enter"), "already awake": goto("enter")},
        target="worker",
    )
    def wake(self, me: Registers) -> str:
        toy = self.toy.cells
        toy.pending += 1
        if toy.echo and toy.number % toy.echo == 0 and toy.on == 1:
            toy.on = 2
        return self.worker.me.wake()

    @step("enter the guest", to=RETURN)
    def enter(self, me: Registers) -> None:
        self.toy.cells.in_guest = 1


class Work(Routine):
    first = "look"

    def __init__(self, toy: Toy, app: Thread) -> None:
        super().__init__("work", HOST)
        self.toy = toy
        self.app = app
        self.read_record = toy.memory.reader(RECORD)

    @step("look for work", to={"work": goto("copy"), "sleep": block("look")}, fence=True)
    def look(self, me: Registers) -> str:
        return "work" if self.toy.cells.pending else "sleep"

    @step("copy", to={COPIED: goto("interrupt")}, size="bytes_copied")
    def copy(self, me: Registers) -> str:
        toy = self.toy
        toy.cells.pending -= 1
        record = self.read_record(32)
        toy.cells.seen[toy.memory.u16[8] % 4] = record[2]
        toy.memory.write(64, bytes(range(12)))
        return COPIED

    def bytes_copied(self, me: Registers) -> int:
        return 512

    @step("interrupt", to={POSTED: goto("look"), "masked": goto("look")}, target="app")
    def interrupt(self, me: Registers) -> str:
        if self.toy.cells.on > 1:
            return "masked"
        self.toy.cells.on = 2
        return POSTED


class Take(Routine):
    def __init__(self, name: str, place: Place, toy: Toy) -> None:
        super().__init__(name, place)
        self.toy = toy
        self.mode = place

    def place_of(self, spec: object) -> Place:
        return self.mode if getattr(spec, "name", "") == "take" else CPU_KERNEL

    @step("take the interrupt")
    def take(self, me: Registers) -> None:
        self.toy.cells.on = 0
        self.toy.cells.taken += 1
        me.level = 2

    @step("return", to={"to user": Return(Domain.GUEST_USER), "to kernel": Return(Domain.GUEST_KERNEL)}, opens=True)
    def iret(self, me: Registers) -> str:
        self.toy.cells.on = 1
        me.level = 0
        return "to user" if self.mode is CPU_USER else "to kernel"


@cells
class Naps(Cells):
    """How often the app may still wake up by itself."""

    left: int = 0


@dataclass
class Toy:
    """The toy's state and, once built, its machine."""

    state: State
    memory: Region
    cells: ToyCells
    naps: Naps
    machine: Machine = None  # type: ignore[assignment]


def make_toy(
    rounds: int = 3, *, recording: bool = True, naps: int = 0, omit: tuple[str, ...] = (), costs: dict[str, int] = COSTS
) -> Toy:
    """Build the toy: the app does `rounds` rounds, and one more each time it wakes up by itself."""
    state = State(recording=recording)
    memory = state.region("ram", 4096)
    memory.name_stretch(0, 64, "toyq", lambda offset, size: f"field{offset}")
    toy = Toy(state, memory, state.add(ToyCells, "toy", left=rounds, seen=[0] * 4), state.add(Naps, "naps", left=naps))
    app, worker = (
        Thread(name, state.add(Registers, name, index=i), None, kind)  # type: ignore[arg-type]
        for i, (name, kind) in enumerate((("app", ThreadKind.VCPU), ("worker", ThreadKind.HOST)))
    )
    take_user, take_kernel = Take("take.user", CPU_USER, toy), Take("take.kernel", CPU_KERNEL, toy)

    def intercept(user: bool) -> Routine | None:  # noqa: FBT001 - asked by the engine
        if toy.cells.on == 2 and toy.cells.in_guest:
            return take_user if user else take_kernel
        return None

    bells = {side: Bell(side, toy, worker) for side in ("left", "right")}
    app.start = App(toy, Kernel(toy, bells))
    app.gates, app.intercept = (take_user, take_kernel), intercept
    worker.start = Work(toy, app)
    threads = [app, worker]
    program = link(threads, costs, omit)
    make = RecordingMachine if recording else CountingMachine
    toy.machine = make(program, state, threads, costs)
    if isinstance(toy.machine, RecordingMachine):
        toy.machine.make_scout = lambda: make_toy(rounds, recording=False, naps=naps, omit=omit, costs=costs).machine  # type: ignore[assignment,return-value]
    return toy
