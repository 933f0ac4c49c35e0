"""The machine: a linked program, its state and its threads, and what is common to both ways of running it.

A counting machine (`counting.py`) knows in the end how often each arc was taken, which is all a counter needs. A
recording machine (`recording.py`) also keeps a timeline and journals what every step overwrites, so that any position
can be visited.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from virtviz.engine.places import Domain
from virtviz.engine.schedule import RunUntilBlocked, Scheduler
from virtviz.engine.threads import Registers
from virtviz.engine.timeline import Checkpoint
from virtviz.errors import ModelError, UndeclaredOutcome

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from virtviz.engine.program import Arc, Op, Program
    from virtviz.engine.state import State
    from virtviz.engine.threads import Thread

LATENCY: Final = "-latency"
PER_KIB: Final = "-per-kib"
"""Suffixes of cost keys: what a wake-up or interrupt takes to reach its thread; what a copy takes for 1024 bytes."""

set_clock: Callable[[Registers, int], None] = Registers.clock.__set__  # type: ignore[attr-defined]
"""Sets a thread's clock without journaling: rows of the journal restore it."""


class Machine:
    """A program, its state, its threads, and how far it has run; the base of both kinds of machine.

    Attributes:
        program, state, threads: as given.
        costs: nanoseconds by cost key.
        hits: how often each arc has been taken up to the present position.
        current: number of the thread that moved last.
        position: steps taken up to now.
        scheduler: who chooses where a run names none; None for `RunUntilBlocked`.
    """

    def __init__(
        self, program: Program, state: State, threads: Sequence[Thread], costs: dict[str, int] | None = None
    ) -> None:
        self.program = program
        self.state = state
        self.threads = threads
        self.costs = costs or {}
        self.hits = [0] * len(program.arcs)
        self.current = 0
        self.position = 0
        self.scheduler: Scheduler | None = None
        self._guards = [op.guard for op in program.ops]
        self._cost = [arc.cost_ns for arc in program.arcs]
        self._latency = [self.costs.get(f"{arc.how or arc.effect}{LATENCY}", 0) for arc in program.arcs]
        self._per_kib = [self.costs.get(f"{arc.effect}{PER_KIB}", 0) for arc in program.arcs]

    # What can move

    def can_move(self, index: int) -> bool:
        """Say whether a thread's next step is possible now."""
        thread = self.threads[index]
        if thread.me.asleep or (thread.stores is not None and self._waits_for_stores(thread)):
            return False
        guard = self._guards[thread.pc]
        if guard is None or guard():
            return True
        return thread.intercept is not None and thread.intercept(self._in_user_mode(thread)) is not None

    def _waits_for_stores(self, thread: Thread) -> bool:
        """Say whether a thread stands before a fence or an interrupt, and its CPU's stores are not all visible yet."""
        if thread.stores is None or thread.stores.is_empty():
            return False
        interrupted = thread.intercept is not None and thread.intercept(self._in_user_mode(thread)) is not None
        return interrupted or self.program.ops[thread.pc].spec.fence

    def can_move_at_last(self, index: int) -> bool:
        """Say whether a thread's next step is possible once nothing else can move: a pause ends, a wait times out."""
        thread = self.threads[index]
        patience = self.program.ops[thread.pc].patience
        return patience is not None and not thread.me.asleep and patience()

    def movable(self) -> list[int]:
        """List the threads that could move now; where there is none, those that nothing else keeps waiting."""
        every = range(len(self.threads))
        return list(filter(self.can_move, every)) or list(filter(self.can_move_at_last, every))

    def clock_if_moved(self, index: int) -> int:
        """Give the simulated time at which a thread's next step would begin, in nanoseconds."""
        me = self.threads[index].me
        return max(me.clock, self.now) if me.parked else me.clock

    @property
    def now(self) -> int:
        """The clock of the thread that moved last, in nanoseconds."""
        return self.threads[self.current].me.clock

    def _in_user_mode(self, thread: Thread) -> bool:
        return self.program.domains[thread.pc] is Domain.GUEST_USER

    def _enter(self, thread: Thread) -> int:
        """Give the op a thread that can move does next; taking an interrupt pushes what it interrupts."""
        if thread.intercept is not None:
            gate = thread.intercept(self._in_user_mode(thread))
            if gate is not None:
                thread.stack.append(thread.pc)
                thread.pc = gate.entry
        return thread.pc

    # Running

    def run(self, limit: int | None = None, scheduler: Scheduler | None = None, held: Collection[int] = ()) -> int:
        """Run until nothing can move or `limit` steps have been taken; answers how many were.

        Args:
            limit: None for no limit.
            scheduler: None for the machine's own.
            held: numbers of threads that must not move.
        """
        chooser = scheduler or self.scheduler or RunUntilBlocked()
        taken = 0
        while limit is None or taken < limit:
            index = chooser.pick(self, held)
            if index < 0:
                break
            done = self._burst(index, chooser.quantum if limit is None else min(chooser.quantum, limit - taken))
            if not done:
                break
            taken += done
        return taken

    def move(self, index: int) -> bool:
        """Take one step with a given thread; answers False if that thread cannot move."""
        return (self.can_move(index) or index in self.movable()) and self._burst(index, 1) == 1

    def _burst(self, index: int, limit: int) -> int:
        """Run one thread until it cannot go on or `limit` steps are done; answers how many were. The thread can move.

        A scout may do none, if `limit` leaves no room for a whole block.
        """
        raise NotImplementedError

    def _arrival(self, arc: Arc, clock: int) -> tuple[Registers, int] | None:
        """Give the registers of the thread an effect reaches and when it arrives, if that is later than its clock."""
        if arc.target is None:
            return None
        me, arrival = arc.target.me, clock + self._latency[arc.number]
        return (me, arrival) if arrival > me.clock else None

    def duration(self, arc: Arc, me: Registers) -> int:
        """Give the simulated time a step took, in nanoseconds, from its arc and its thread's registers after it."""
        return self._cost[arc.number] + self._own_time(arc, me)

    def _own_time(self, arc: Arc, me: Registers) -> int:
        """Give the time that the bytes of a copy take."""
        return arc.size(me) * self._per_kib[arc.number] // 1024 if arc.size is not None else 0

    def _undeclared(self, pc: int, error: KeyError) -> ModelError:
        op = self.program.ops[pc]
        return UndeclaredOutcome(f"step {self.position}: {op.path} answered {error}, which its table does not name")

    def begin_here(self) -> None:
        """Forget how the present state came about: it becomes position 0, with all counts and clocks at 0."""
        for index, thread in enumerate(self.threads):
            set_clock(thread.me, 0)
            # A thread that stands before a condition waits from now on; otherwise its first step would lie in the past.
            thread.me.parked = int(not thread.me.asleep and not self.can_move(index))
        self.hits[:] = [0] * len(self.hits)
        self.position = self.current = 0

    # Whole states

    def checkpoint(self, previous: Checkpoint | None = None) -> Checkpoint:
        """Copy the whole machine; what did not change since a previous checkpoint is shared with it."""
        return Checkpoint(
            self.position,
            self.state.snapshot(previous.snapshot if previous else None),
            tuple((thread.pc, tuple(thread.stack)) for thread in self.threads),
            array("Q", self.hits),
            self.current,
        )

    def load(self, taken: Checkpoint) -> None:
        """Become what a checkpoint says; it may come from another machine made from the same settings."""
        self.state.load_snapshot(taken.snapshot)
        for thread, (pc, stack) in zip(self.threads, taken.stands, strict=True):
            thread.pc = pc
            thread.stack[:] = stack
        self.hits[:] = taken.hits
        self.position, self.current = taken.position, taken.current

    def digest(self) -> str:
        """Give a fingerprint of the state and of where every thread stands."""
        stands = ";".join(f"{thread.pc}{thread.stack}" for thread in self.threads)
        return f"{self.state.digest()} {stands} {self.current}"

    def op_next(self, index: int) -> Op:
        """Give the op a thread would do next, were it not interrupted."""
        return self.program.ops[self.threads[index].pc]
