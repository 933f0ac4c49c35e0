"""A machine that keeps no past: it knows in the end how often each arc was taken, which is all a counter needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.blocks import CHECKS, MAX_STEPS, PUSHES, RETURNS, SLEEPS, TIMED, Blocks
from virtviz.engine.machine import Machine, set_clock
from virtviz.engine.program import BLOCK, CALL, CHECK, KIND_MASK, RETURN
from virtviz.engine.timeline import CHECKPOINT_STEPS, Checkpoint

if TYPE_CHECKING:
    from array import array
    from collections.abc import Collection, Sequence

    from virtviz.engine.program import Arc, Program
    from virtviz.engine.schedule import Scheduler
    from virtviz.engine.state import State
    from virtviz.engine.threads import Registers, Thread


class CountingMachine(Machine):
    """A machine that keeps no past: it counts arcs, in flat memory. As a scout it also notes rows and keeps clocks."""

    def __init__(
        self, program: Program, state: State, threads: Sequence[Thread], costs: dict[str, int] | None = None
    ) -> None:
        super().__init__(program, state, threads, costs)
        self._blocks = {timed: Blocks(program, threads, self.hits, timed, self._per_kib) for timed in (False, True)}
        self._rows: tuple[array[int], array[int]] | None = None

    def run(self, limit: int | None = None, scheduler: Scheduler | None = None, held: Collection[int] = ()) -> int:
        """Run as `Machine.run` says, and bring the counts up to date."""
        taken = super().run(limit, scheduler, held)
        self._collect()
        return taken

    def scout(
        self, start: Checkpoint, limit: int | None, arcs: array[int], threads: array[int], held: Collection[int]
    ) -> list[Checkpoint]:
        """Run ahead, noting the arc and thread of every step; answers checkpoints, the last one of where it stopped.

        Args:
            start: where to begin.
            limit: stop once this many steps have been taken; None to go on until nothing can move.
            arcs: the column of arcs to add to.
            threads: the column of thread numbers to add to.
            held: threads that must not move.
        """
        self.load(start)
        self._rows = (arcs, threads)
        found: list[Checkpoint] = []
        previous = start
        try:
            taken = 0
            while limit is None or taken < limit:
                stretch = CHECKPOINT_STEPS if limit is None else min(CHECKPOINT_STEPS, limit - taken)
                done = self.run(stretch, held=held)
                taken += done
                if done:
                    previous = self.checkpoint(previous)
                    found.append(previous)
                if not done or stretch < CHECKPOINT_STEPS:
                    break
        finally:
            self._rows = None
        return found

    def _collect(self) -> None:
        for blocks in self._blocks.values():
            blocks.collect()

    def _burst(self, index: int, limit: int) -> int:
        """Run blocks while there is room for a whole one, then step by step (a scout stops there)."""
        rows = self._rows
        if rows is not None:
            done = self._scout_blocks(index, limit, *rows) if limit >= MAX_STEPS else 0
        elif limit >= MAX_STEPS:
            done = self._count_blocks(index, limit)
        else:
            done = self._walk(index, limit)
        self.position += done
        return done

    def _count_blocks(self, index: int, limit: int) -> int:
        """Run blocks of one thread until it cannot go on or there is no room for a whole one."""
        thread = self.threads[index]
        me, stack = thread.me, thread.stack
        blocks = self._blocks[False]
        functions, exits, counts = blocks.functions, blocks.exits, blocks.counts
        self.current = index
        pc = self._enter(thread)
        done, last = 0, limit - MAX_STEPS
        try:
            while done <= last:
                number = functions[pc](me)
                counts[number] += 1
                steps, todo, pc = exits[number]
                done += steps
                if todo:
                    if todo & PUSHES:
                        stack.extend(blocks.pushes[number])
                    if todo & RETURNS:
                        pc = stack.pop()
                    if todo & SLEEPS:
                        me.asleep = 1
                    if todo & CHECKS:
                        thread.pc = pc
                        if done > last or not self.can_move(index):
                            return done
                        pc = self._enter(thread)
        except KeyError as error:
            raise self._undeclared(pc, error) from error
        thread.pc = pc
        return done

    def _scout_blocks(  # noqa: C901 - one loop with all it needs at hand
        self, index: int, limit: int, arcs: array[int], threads: array[int]
    ) -> int:
        """The same, noting rows and keeping clocks."""
        thread = self.threads[index]
        me, stack = thread.me, thread.stack
        blocks = self._blocks[True]
        functions, exits, counts = blocks.functions, blocks.exits, blocks.counts
        times = blocks.times
        clock = me.clock
        if me.parked:
            me.parked = 0
            clock = max(clock, self.now)
        self.current = index
        pc = self._enter(thread)
        done, last = 0, limit - MAX_STEPS
        try:
            while done <= last:
                number = functions[pc](me)
                counts[number] += 1
                steps, todo, pc = exits[number]
                done += steps
                arcs.extend(blocks.arcs[number])
                clock += blocks.costs[number]
                if times:
                    clock += sum(times)
                    times.clear()
                if todo:
                    if todo & PUSHES:
                        stack.extend(blocks.pushes[number])
                    if todo & RETURNS:
                        pc = stack.pop()
                    if todo & TIMED:
                        clock += self._carry(self.program.arcs[blocks.arcs[number][-1]], me, clock)
                    if todo & SLEEPS:
                        me.asleep = 1
                    if todo & CHECKS:
                        thread.pc = pc
                        goes_on = self.can_move(index)
                        if not goes_on and not me.asleep:
                            me.parked = 1
                        if not goes_on or done > last:
                            break
                        pc = self._enter(thread)
            else:
                thread.pc = pc
        except KeyError as error:
            raise self._undeclared(pc, error) from error
        threads.extend([index] * done)
        set_clock(me, clock)
        return done

    def _carry(self, arc: Arc, me: Registers, clock: int) -> int:
        """Carry an effect's time to the thread it reaches; answers the extra time of the thread's own."""
        arrival = self._arrival(arc, clock)
        if arrival is not None:
            set_clock(*arrival)
        return self._own_time(arc, me)

    def _walk(self, index: int, limit: int) -> int:
        """Run one thread step by step, counting arcs only."""
        thread = self.threads[index]
        me, stack = thread.me, thread.stack
        code, hits = self.program.code, self.hits
        self.current = index
        pc = self._enter(thread)
        done = 0
        try:
            while done < limit:
                function, arcs = code[pc]
                number, kind, after, then = arcs[function(me)]
                hits[number] += 1
                done += 1
                base = kind & KIND_MASK
                pc = stack.pop() if base == RETURN else after
                if base == CALL and then >= 0:
                    stack.append(then)
                elif base == BLOCK:
                    me.asleep = 1
                thread.pc = pc
                if kind & CHECK:
                    if done >= limit or not self.can_move(index):
                        break
                    pc = self._enter(thread)
        except KeyError as error:
            raise self._undeclared(pc, error) from error
        return done
