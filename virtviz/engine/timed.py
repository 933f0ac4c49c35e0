"""A machine that keeps time but no past: all threads run in parallel, each by its own clock.

The thread whose clock is furthest behind moves, one step at a time, so what happens in which order follows from what
things are assumed to cost. Beside how often each arc was taken, it knows for how long each thread was busy, and when
packets came by their milestones.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from msgspec import Struct, field

from virtviz.engine.machine import Machine, set_clock
from virtviz.engine.ops import pick
from virtviz.engine.program import BLOCK, CALL, CHECK, EFFECT, KIND_MASK, RETURN
from virtviz.engine.schedule import BySimulatedTime

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from virtviz.engine.program import Program
    from virtviz.engine.state import State
    from virtviz.engine.threads import Thread


class Passed(Struct):
    """When packets came by milestones, in the order in which the machine ran: three columns.

    Attributes:
        arcs: numbers of the arcs that are milestones.
        packets: the packets' numbers.
        clocks: the simulated time after the step, in nanoseconds.
    """

    arcs: array[int] = field(default_factory=lambda: array("H"))
    packets: array[int] = field(default_factory=lambda: array("I"))
    clocks: array[int] = field(default_factory=lambda: array("Q"))


class TimedMachine(Machine):
    """A machine that counts arcs and keeps clocks.

    Attributes:
        busy: for each thread, the nanoseconds in which it was at work.
        passed: when packets came by milestones; 14 bytes for each, all else is flat.
    """

    def __init__(
        self, program: Program, state: State, threads: Sequence[Thread], costs: dict[str, int] | None = None
    ) -> None:
        super().__init__(program, state, threads, costs)
        self.scheduler = BySimulatedTime()
        self.busy = [0] * len(threads)
        self.passed = Passed()
        self._milestone = [pick(arc.op.spec.milestone, arc.outcome) for arc in program.arcs]

    def begin_here(self) -> None:
        """As for any machine."""
        super().begin_here()
        self.busy[:] = [0] * len(self.busy)
        self.passed = Passed()

    def milestones(self) -> Iterator[tuple[str, int, int]]:
        """Give every milestone that was passed: its name, the packet, and when, in nanoseconds."""
        passed = self.passed
        for arc, packet, clock in zip(passed.arcs, passed.packets, passed.clocks, strict=True):
            yield self._milestone[arc], packet, clock

    def _burst(self, index: int, limit: int) -> int:  # noqa: C901 - one loop with all it needs at hand
        """Run one thread step by step, keeping its clock and those of the threads that it reaches."""
        thread = self.threads[index]
        me, stack = thread.me, thread.stack
        code, hits, cost = self.program.code, self.hits, self._cost
        clock = me.clock
        if me.parked:
            me.parked = 0
            clock = max(clock, self.now)
        begun = clock
        self.current = index
        pc = self._enter(thread)
        done = 0
        try:
            while done < limit:
                function, arcs = code[pc]
                number, kind, after, then = arcs[function(me)]
                hits[number] += 1
                done += 1
                clock += cost[number]
                base = kind & KIND_MASK
                pc = stack.pop() if base == RETURN else after
                if kind & EFFECT:
                    arc = self.program.arcs[number]
                    arrival = self._arrival(arc, clock)
                    if arrival is not None:
                        set_clock(*arrival)
                    clock += self._own_time(arc, me)
                if self._milestone[number]:
                    self._note(number, me.packet, clock)
                if base == CALL and then >= 0:
                    stack.append(then)
                elif base == BLOCK:
                    me.asleep = 1
                thread.pc = pc
                if kind & CHECK:
                    goes_on = self.can_move(index)
                    if not goes_on and not me.asleep:
                        me.parked = 1
                    if not goes_on or done >= limit:
                        break
                    pc = self._enter(thread)
        except KeyError as error:
            raise self._undeclared(pc, error) from error
        self.busy[index] += clock - begun
        set_clock(me, clock)
        self.position += done
        return done

    def _note(self, arc: int, packet: int, clock: int) -> None:
        passed = self.passed
        passed.arcs.append(arc)
        passed.packets.append(packet)
        passed.clocks.append(clock)
