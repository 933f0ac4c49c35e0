"""A lesson run without a screen: recorded, step by step, or only counted.

A recorded run is the lesson as the player shows it, script and all: what a script holds back is held back here too. A
counted run moves a machine that keeps nothing; where the script holds and lets go is learned from a recorded run
before, so both count the same.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from virtviz.engine.counters import count
from virtviz.engine.ops import pick
from virtviz.errors import CaptureError
from virtviz.export.jsonl import TimedStep, footer_json, timed_steps
from virtviz.lesson.build import build
from virtviz.paths.capture import read_capture
from virtviz.paths.traffic import make_traffic
from virtviz.paths.wiring import simulate
from virtviz.session.run import run_lesson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from virtviz.engine.program import Arc
    from virtviz.lesson.model import Lesson
    from virtviz.paths.knobs import World
    from virtviz.paths.traffic import Traffic
    from virtviz.session.run import Run

STRETCH: Final = 4096
"""Steps that a long recorded run takes before they are written."""
COUNTED_STRETCH: Final = 250_000
"""Steps that a counted run takes between two reports of how far it is: a part of a second."""


class Totals(Struct, frozen=True):
    """What a run comes to.

    Attributes:
        steps: how many it had.
        packets: packets of the scenario, all rounds together.
        counters: every counter, by its flat name.
        drops: what was dropped, by the name of the drop counter.
        truncated: it was ended before its end.
    """

    steps: int
    packets: int
    counters: Mapping[str, int]
    drops: Mapping[str, int]
    truncated: bool = False

    def json(self) -> str:
        """Give the footer of a trace file."""
        return footer_json(
            steps=self.steps,
            packets=self.packets,
            counters=self.counters,
            drops=self.drops,
            truncated=self.truncated,
        )


def world_and_traffic(
    lesson: Lesson, settings: Sequence[Mapping[str, object]], packets: int | None = None, source: Path | None = None
) -> tuple[World, Traffic]:
    """Make what is run.

    Args:
        lesson: the lesson.
        settings: knobs over those of the lesson, later ones over earlier ones.
        packets: repeat the scenario until there are at least so many packets.
        source: a capture file whose frames are sent instead of the lesson's scenario.

    Raises:
        KnobError: a setting is unknown, out of range, or not allowed together with another.
        CaptureError: the capture file cannot be used.
    """
    world, traffic = build(lesson, settings, packets=packets)
    if source is not None:
        vms = world.number("vms")
        items = read_capture(source, vms)
        traffic = make_traffic(items, rounds=-(-(packets or 1) // len(items)), vms=vms)
    return world, traffic


def find_places(run: Run, names: Sequence[str]) -> list[str]:
    """Find the places that packets are to be caught at.

    A place is one of the header's, a queue that a packet waits in, or `wire`; one of a virtual machine may be named
    without the machine's name, as in lessons, if only one machine has it.

    Raises:
        CaptureError: there is no such place; the message names the nearest, or all.
    """
    if not names:
        return []
    queues = {step.into for step in map(run.step, range(1, run.length + 1)) if step.into}
    known = sorted({"wire", *queues, *(place.name for place in run.header.places)})
    found: list[str] = []
    for name in names:
        meant = [place for place in known if name in (place, place.partition(".")[2])]
        if name not in known and len(meant) != 1:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(known)}"
            raise CaptureError(f"no packet passes a place called {name!r}; {hint}")
        found.append(name if name in known else meant[0])
    return found


def recorded_steps(run: Run, *, to_the_end: bool = False) -> Iterator[TimedStep]:
    """Go through a lesson's run.

    Args:
        run: the run.
        to_the_end: where the run was ended because it has so many steps, go on; what was held at that point stays held.
    """
    yield from timed_steps(run.trace)
    if not (run.truncated and to_the_end):
        return
    machine, trace = run.machine, run.trace
    registers = {thread.name: thread.me for thread in machine.threads}
    names = run.held_after(run.length)
    held = {index for index, thread in enumerate(machine.threads) if thread.name in names}
    start = machine.length
    machine.seek(start)
    while machine.run(STRETCH, held=held):
        end = machine.length
        for n in range(start + 1, end + 1):
            step = trace.step(n)
            yield TimedStep(step, registers[step.thread].clock)
        start = end
    run.truncated = False


def recorded_totals(run: Run) -> Totals:
    """Sum a recorded run up, as far as it has been gone through."""
    machine, simulation = run.machine, run.simulation
    machine.seek(run.length)
    counters = count(machine.program.arcs, machine.hits)
    return Totals(run.length, simulation.traffic.packets, counters, simulation.dropped(), run.truncated)


def counted_totals(
    lesson: Lesson, world: World, traffic: Traffic, report: Callable[[int, int], None] = lambda *_: None
) -> Totals:
    """Run a lesson to its end without recording it, in flat memory.

    Args:
        lesson: the lesson; its script decides what is held, and when.
        world: its settings.
        traffic: what is sent.
        report: told the number of steps done and of packets begun, first when the world is built, then now and then.
    """
    simulation = simulate(world, traffic, recording=False)
    machine = simulation.machine
    held: set[int] = set()
    schedule = _holds(lesson, world, traffic)
    begun = [arc.number for arc in machine.program.arcs if _begins_packet(arc)]
    report(0, 0)
    for position, holding in schedule:
        machine.run(position - machine.position, held=held)
        held = holding
    while machine.run(COUNTED_STRETCH, held=held):
        report(machine.position, sum(machine.hits[number] for number in begun))
    counters = count(machine.program.arcs, machine.hits)
    return Totals(machine.position, traffic.packets, counters, simulation.dropped())


def _begins_packet(arc: Arc) -> bool:
    """Say whether taking an arc is the first thing that happens to a packet."""
    return pick(arc.op.spec.milestone, arc.outcome) in ("sent", "from-wire")


def _holds(lesson: Lesson, world: World, traffic: Traffic) -> list[tuple[int, set[int]]]:
    """Find the positions at which the script changes what is held, and which threads are held from there on."""
    if not any(isinstance(entry.hold, str) or isinstance(entry.release, str) for entry in lesson.script):
        return []
    run = run_lesson(lesson, simulate(world, traffic))
    numbers = {thread.name: index for index, thread in enumerate(run.machine.threads)}
    found: list[tuple[int, set[int]]] = []
    held: set[int] = set()
    for moment in run.moments:
        if moment.held or moment.released:
            held = (held | {numbers[name] for name in moment.held}) - {numbers[name] for name in moment.released}
            found.append((moment.position, held))
    return found
