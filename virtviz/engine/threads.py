"""Threads: what a scheduler runs.

A thread is a stack of routines and one set of registers. Code that runs inside whoever called it (Open vSwitch inside
the thread that sent the frame) works on the registers of that thread; code that can be interrupted saves them first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct, field

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import ALREADY_AWAKE, WOKE

if TYPE_CHECKING:
    from collections.abc import Callable

    from virtviz.engine.ops import Routine
    from virtviz.engine.store_buffer import StoreBuffer


@cells
class Registers(Cells):
    """What every thread has; an op's argument `me`.

    Attributes:
        index: the thread's number; constant.
        asleep: 1 while it waits to be woken.
        level: 0 in process context, 1 in a softirq, 2 in a hard interrupt.
        packet: number of the packet it works on, 0 for none; for people only, no decision depends on it.
        clock: nanoseconds of simulated time.
        parked: 1 while it waits at an op for that op's condition to come true.
    """

    observed: ClassVar[bool] = False
    """True where somebody will look: things are noted then that only people need, and that nothing depends on."""
    index: int
    asleep: int = 0
    level: int = 0
    packet: int = 0
    clock: int = 0
    parked: int = 0

    def wake(self) -> str:
        """Make the thread runnable; answers `woke` if it was asleep, else `already awake`."""
        if self.asleep:
            self.asleep = 0
            return WOKE
        return ALREADY_AWAKE


class ThreadKind:
    """What a thread is, as far as counters must tell them apart."""

    VCPU = "vcpu"
    HOST = "host"
    HARDWARE = "hardware"


class Thread(Struct, eq=False):
    """One thread and where it stands.

    Attributes:
        name: such as `vm1.vcpu0` or `vhost-4002`.
        me: its registers.
        start: the routine it begins with; that routine never returns.
        kind: vCPU, other host thread, or a device's engine.
        gates: routines that may interrupt it.
        intercept: asked before a step with True if the thread is in a user-level place; answers the gate to be taken,
            or None.
        stores: its CPU's store buffer, which has to be empty before a fence; None where stores are visible at once.
        partner: number of the thread whose turn it is in the readable order if this one has to wait: a CPU's and its
            store buffer's are each other's; -1 for none.
        pc: number of the op it does next.
        stack: ops to return to, innermost last.
    """

    name: str
    me: Registers
    start: Routine
    kind: str = ThreadKind.HOST
    gates: tuple[Routine, ...] = ()
    intercept: Callable[[bool], Routine | None] | None = None
    stores: StoreBuffer | None = None
    partner: int = -1
    pc: int = -1
    stack: list[int] = field(default_factory=list)
