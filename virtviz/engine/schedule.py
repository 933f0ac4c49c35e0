"""Schedulers: which thread moves next.

A scheduler is an argument of every run, so that one machine can be stepped in a readable order, in simulated time, or
in an order that a learner, a test or a recording chose. None of them knows what the threads do; all are deterministic.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from virtviz.engine.machine import Machine

LONG = 1 << 30


class Scheduler(Protocol):
    """Chooses a thread and says for how many steps the choice holds."""

    quantum: int

    def pick(self, machine: Machine, held: Collection[int]) -> int:
        """Give the number of a thread that can move and is not held; -1 if there is none."""
        ...


class RunUntilBlocked:
    """The thread that runs goes on until it cannot; then its partner, if it has one, or the next one in order that can.

    The readable order, and fair: no thread is passed over for ever, because every thread blocks in the end.
    """

    quantum = LONG

    def pick(self, machine: Machine, held: Collection[int]) -> int:
        """Prefer the thread that moved last, then its partner, then the ones after it in their fixed order."""
        count, first = len(machine.threads), machine.current
        partner = machine.threads[first].partner
        blocked_by_hold = False
        for index in chain((first,), (partner,) if partner >= 0 else (), range(first + 1, count), range(first)):
            if machine.can_move(index):
                if index not in held:
                    return index
                blocked_by_hold = True
        if blocked_by_hold:
            return -1
        return next((i for i in range(count) if i not in held and machine.can_move_at_last(i)), -1)


class BySimulatedTime:
    """The thread whose clock is furthest behind moves.

    Of equal clocks the one goes first that has waited for a condition: it came true just now, by what another thread
    did, and the clock of the waiting thread goes on with that of whoever moves. Otherwise the threads' order decides.
    """

    quantum = 1

    def pick(self, machine: Machine, held: Collection[int]) -> int:
        """Give the thread with the lowest clock that can move."""
        best, lowest, waited, now = -1, 0, 0, machine.now
        for index, thread in enumerate(machine.threads):
            me = thread.me
            if me.asleep or index in held:
                continue
            # As `Machine.clock_if_moved`; asked for every thread at every step.
            clock = now if me.parked and me.clock < now else me.clock
            is_earlier = best < 0 or clock < lowest or (clock == lowest and me.parked > waited)
            if is_earlier and machine.can_move(index):
                best, lowest, waited = index, clock, me.parked
        if best >= 0:
            return best
        ready = [index for index in machine.movable() if index not in held]
        return min(ready, key=lambda index: (machine.clock_if_moved(index), index), default=-1)


class Chosen:
    """An order given from outside: thread numbers, or a function asked before every step.

    A chosen thread that cannot move ends the run, as does the end of the order.
    """

    quantum = 1

    def __init__(self, order: Iterable[int] | Callable[[Machine], int]) -> None:
        self._ask: Callable[[Machine], int] | None = order if callable(order) else None
        self._order: Iterator[int] = iter(()) if callable(order) else iter(order)

    def pick(self, machine: Machine, held: Collection[int]) -> int:
        """Give the next of the order."""
        index = self._ask(machine) if self._ask else next(self._order, -1)
        return index if index >= 0 and index not in held and index in machine.movable() else -1
