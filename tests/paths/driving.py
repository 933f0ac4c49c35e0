"""Drive a simulated world by hand: which thread moves, until which op; and look at its rings."""

from __future__ import annotations

from virtviz.engine.counters import count
from virtviz.engine.trace import Trace
from virtviz.paths.knobs import make_world
from virtviz.paths.traffic import Item, Pause, make_traffic
from virtviz.paths.wiring import simulate

OUT = Item(kind="udp", length=18)
IN = Item(kind="udp", length=18, outgoing=False)
KNOWN = {"flows": "known"}
FLAGS = {"features": "indirect,mergeable"}
"""Features without EVENT_IDX."""


class Driven:
    """A world and what was done with it.

    Attributes:
        simulation, machine: as the wiring made them.
        vm: the first virtual machine; None if there is none.
    """

    def __init__(self, items, *settings, rounds=1, recording=True):
        self.simulation = simulate(make_world(*settings), make_traffic(items, rounds), recording=recording)
        self.machine = self.simulation.machine
        self.vm = next(iter(self.simulation.vms), None)

    def thread(self, name):
        """Give the number of the thread whose name contains `name`."""
        return next(i for i, thread in enumerate(self.machine.threads) if name in thread.name)

    def move(self, name, until=""):
        """Move one thread, until it has done an op or cannot go on."""
        index = self.thread(name)
        while self.machine.move(index) and self.last.name != until:
            pass
        return self

    def step_until(self, op, *, without=()):
        """Let everybody move, except those named, until an op has been done."""
        held = {self.thread(name) for name in without}
        while self.machine.step(held=held) and self.last.name != op:
            pass
        return self

    def run(self, *, without=(), scheduler=None):
        """Let everybody move, except those named, until nobody can."""
        self.machine.run(scheduler=scheduler, held={self.thread(name) for name in without})
        return self

    @property
    def last(self):
        """The op last done."""
        return self.machine.arc_at(self.machine.position - 1).op

    def steps(self, first=1):
        """Give the steps taken so far, from a number on."""
        trace = Trace(self.machine)
        return [trace.step(n) for n in range(first, len(trace) + 1)]

    def ops(self, first=1):
        """Name the ops done so far, from a position on, with their outcomes."""
        arcs = [self.machine.arc_at(n) for n in range(first - 1, self.machine.length)]
        return [(arc.op.name, arc.outcome) for arc in arcs]

    def counters(self):
        """Count everything that was done."""
        return count(self.machine.program.arcs, self.machine.hits)

    def u16(self, field, queue="tx"):
        """Read avail_idx, used_idx, avail_event, used_event, avail_flags or used_flags of a ring."""
        layout = self.vm.tx_layout if queue == "tx" else self.vm.rx_layout
        return self.vm.memory.plain_u16[getattr(layout, field) // 2]

    def cell(self, name):
        """Read a cell by its name."""
        state = self.machine.state
        return int(state.value(state.names.index(name)))


def burst(count, **settings):
    """Give that many UDP packets in a row."""
    return [Item(kind="udp", length=18, **settings) for _ in range(count)]


__all__ = ["FLAGS", "IN", "KNOWN", "OUT", "Driven", "Item", "Pause", "burst"]
