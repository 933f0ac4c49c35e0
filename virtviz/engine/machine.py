"""The machine: runs a linked program over its state, forwards and back.

Three ways of running share one table. A counting machine knows in the end how often each arc was taken, which is all a
counter needs. A recording machine also keeps a timeline and journals what every step overwrites, so that any position can be visited. A
recording machine that has far to go sends a scout ahead: a counting machine that also notes rows and checkpoints.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Final

from virtviz.engine.blocks import CHECKS, MAX_STEPS, PUSHES, RETURNS, SLEEPS, TIMED, Blocks
from virtviz.engine.journal import KIND, ROW, cell_word, row_word, thread_and_arc
from virtviz.engine.places import Domain
from virtviz.engine.program import BLOCK, CALL, CHECK, EFFECT, GOTO, KIND_MASK, RETURN, Arc, Op, Program
from virtviz.engine.schedule import RunUntilBlocked, Scheduler
from virtviz.engine.timeline import CHECKPOINT_STEPS, Checkpoint, Future, Timeline
from virtviz.errors import ModelError, UndeclaredOutcome

if TYPE_CHECKING:
    from virtviz.engine.state import State
    from virtviz.engine.threads import Registers, Thread

LATENCY: Final = "-latency"
PER_KIB: Final = "-per-kib"
"""Suffixes of cost keys: what a wake-up or interrupt takes to reach its thread; what a copy takes for 1024 bytes."""
SCOUT_AFTER: Final = 2 * CHECKPOINT_STEPS
"""Steps of one run after which a scout goes ahead. Lessons are shorter, and never need one."""
WARM_UP: Final = 4096
"""Steps after which it is known which outcomes are common."""


def _set_clock(me: Registers, nanoseconds: int) -> None:
    """Set a thread's clock without journaling: rows of the journal restore it."""
    me.__dict__["clock"] = nanoseconds


class Machine:
    """A program, its state, its threads, and how far it has run; the base of both kinds of machine.

    Attributes:
        program, state, threads: as given.
        costs: nanoseconds by cost key.
        hits: how often each arc has been taken up to the present position.
        current: number of the thread that moved last.
        position: steps taken up to now.
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
        self._guards = [op.guard for op in program.ops]
        self._cost = [arc.cost_ns for arc in program.arcs]
        self._latency = [self.costs.get(f"{arc.how or arc.effect}{LATENCY}", 0) for arc in program.arcs]
        self._per_kib = [self.costs.get(f"{arc.effect}{PER_KIB}", 0) for arc in program.arcs]

    # What can move

    def can_move(self, index: int) -> bool:
        """Say whether a thread's next step is possible now."""
        thread = self.threads[index]
        if thread.me.asleep:
            return False
        guard = self._guards[thread.pc]
        if guard is None or guard():
            return True
        return thread.intercept is not None and thread.intercept(self._in_user_mode(thread)) is not None

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
            scheduler: None for `RunUntilBlocked`.
            held: numbers of threads that must not move.
        """
        chooser = scheduler or RunUntilBlocked()
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
        return index in self.movable() and self._burst(index, 1) == 1

    def _burst(self, index: int, limit: int) -> int:
        """Run one thread until it cannot go on or `limit` steps are done; answers how many were. The thread can move.

        A scout may do none, if `limit` leaves no room for a whole block.
        """
        raise NotImplementedError

    def _arrival(self, arc: Arc, clock: int) -> tuple[Registers, int] | None:
        """Give the registers of the thread an effect reaches and the time it arrives, if that is later than its clock."""
        if arc.target is None:
            return None
        me, arrival = arc.target.me, clock + self._latency[arc.number]
        return (me, arrival) if arrival > me.clock else None

    def _own_time(self, arc: Arc, me: Registers) -> int:
        """Give the time that the bytes of a copy take."""
        return arc.size(me) * self._per_kib[arc.number] // 1024 if arc.size is not None else 0

    def _undeclared(self, pc: int, error: KeyError) -> ModelError:
        op = self.program.ops[pc]
        return UndeclaredOutcome(f"step {self.position}: {op.path} answered {error}, which its table does not name")

    def begin_here(self) -> None:
        """Forget how the present state came about: it becomes position 0, with all counts and clocks at 0."""
        for thread in self.threads:
            _set_clock(thread.me, 0)
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


class CountingMachine(Machine):
    """A machine that keeps no past: it counts arcs, in flat memory. As a scout it also notes rows and keeps clocks."""

    def __init__(
        self, program: Program, state: State, threads: Sequence[Thread], costs: dict[str, int] | None = None
    ) -> None:
        super().__init__(program, state, threads, costs)
        self._blocks = {timed: Blocks(program, threads, timed) for timed in (False, True)}
        self._rows: tuple[array[int], array[int]] | None = None

    def run(self, limit: int | None = None, scheduler: Scheduler | None = None, held: Collection[int] = ()) -> int:
        """Run as `Machine.run` says, and bring the counts up to date."""
        taken = super().run(limit, scheduler, held)
        self._collect()
        return taken

    def scout(
        self, start: Checkpoint, limit: int | None, arcs: array[int], threads: array[int], held: Collection[int]
    ) -> list[Checkpoint]:
        """Run ahead, noting the arc and thread of every step; answers a checkpoint for every few thousand of them.

        Args:
            start: where to begin.
            limit: stop once this many steps have been taken; None to go on until nothing can move.
            arcs, threads: the columns to add to.
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
                if not done or stretch < CHECKPOINT_STEPS:
                    break
                previous = self.checkpoint(previous)
                found.append(previous)
        finally:
            self._rows = None
        return found

    def _collect(self) -> None:
        for blocks in self._blocks.values():
            blocks.collect(self.hits)

    def _burst(self, index: int, limit: int) -> int:
        """Run blocks while there is room for a whole one, then step by step (a scout stops there).

        The first steps are always taken one by one, to learn which outcomes are common.
        """
        rows = self._rows
        if rows is not None:
            done = self._scout_blocks(index, limit, *rows) if limit >= MAX_STEPS else 0
        elif limit >= MAX_STEPS and self.position >= WARM_UP:
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
                block = functions[pc]
                if block is None:
                    self._collect()
                    block = blocks.make(pc, self.hits)
                number = block(me)
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

    def _scout_blocks(self, index: int, limit: int, arcs: array[int], threads: array[int]) -> int:
        """The same, noting rows and keeping clocks."""
        thread = self.threads[index]
        me, stack = thread.me, thread.stack
        blocks = self._blocks[True]
        functions, exits, counts = blocks.functions, blocks.exits, blocks.counts
        clock = me.clock
        if me.parked:
            me.parked = 0
            clock = max(clock, self.now)
        self.current = index
        pc = self._enter(thread)
        done, last = 0, limit - MAX_STEPS
        try:
            while done <= last:
                block = functions[pc]
                if block is None:
                    self._collect()
                    block = blocks.make(pc, self.hits)
                number = block(me)
                counts[number] += 1
                steps, todo, pc = exits[number]
                done += steps
                arcs.extend(blocks.arcs[number])
                clock += blocks.costs[number]
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
        _set_clock(me, clock)
        return done

    def _carry(self, arc: Arc, me: Registers, clock: int) -> int:
        """Carry an effect's time to the thread it reaches; answers the extra time of the thread's own."""
        arrival = self._arrival(arc, clock)
        if arrival is not None:
            _set_clock(*arrival)
        return self._own_time(arc, me)

    def _walk(self, index: int, limit: int) -> int:
        """Run one thread step by step, counting arcs only."""
        thread = self.threads[index]
        me, stack = thread.me, thread.stack
        code, hits = self.program.code, self.hits
        self.current = index
        pc = self._enter(thread)
        done = 0
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
        return done


class RecordingMachine(Machine):
    """A machine that can be set to any position it has passed.

    Attributes:
        timeline: its past.
        make_scout: makes a counting machine from the same settings, to be sent ahead on long runs.
    """

    def __init__(
        self, program: Program, state: State, threads: Sequence[Thread], costs: dict[str, int] | None = None
    ) -> None:
        super().__init__(program, state, threads, costs)
        if state.journal is None:
            raise ModelError("a recording machine needs a state that journals")
        self.timeline = Timeline(state.journal)
        self.make_scout: Callable[[], CountingMachine] | None = None
        self._scout: CountingMachine | None = None
        self._word_at = self._blob_at = 0
        self._clock_cell = [cell_word(state.names.index(f"{thread.name}.clock")) for thread in threads]

    @property
    def length(self) -> int:
        """Steps recorded so far."""
        return len(self.timeline)

    # Forward

    def step(self, scheduler: Scheduler | None = None, held: Collection[int] = ()) -> bool:
        """Take one step; in the past of a recorded run, the one that was taken. Answers False if nothing can move."""
        return self.run(1, scheduler, held) == 1

    def run(self, limit: int | None = None, scheduler: Scheduler | None = None, held: Collection[int] = ()) -> int:
        """Run as `Machine.run` says. What is recorded already is gone through first, as it happened."""
        taken = 0
        if self.position < self.length:
            taken = self.length - self.position if limit is None else min(self.length - self.position, limit)
            self.seek(self.position + taken)
        while limit is None or taken < limit:
            if taken >= SCOUT_AFTER and scheduler is None and self.make_scout is not None:
                return taken + self._send_scout(None if limit is None else limit - taken, held)
            stretch = self._steps_to_checkpoint()
            stretch = min(stretch, SCOUT_AFTER) if limit is None else min(stretch, limit - taken)
            done = super().run(stretch, scheduler, held)
            taken += done
            if done < stretch:
                break
        return taken

    def move(self, index: int) -> bool:
        """Take one step with a given thread, at the end of the timeline; answers False if that thread cannot move."""
        if self.position < self.length:
            raise ModelError("cut the timeline before choosing a different step in the past")
        self._steps_to_checkpoint()
        return super().move(index)

    def _send_scout(self, limit: int | None, held: Collection[int]) -> int:
        """Let a scout go ahead, take over its rows and checkpoints, and go to where it stopped."""
        assert self.make_scout is not None
        self._scout = self._scout or self.make_scout()
        scout, timeline, start = self._scout, self.timeline, self.length
        here = self.checkpoint()
        timeline.checkpoints += [here, *scout.scout(here, limit, timeline.arcs, timeline.threads, held)]
        self.seek(self.length)
        taken = self.length - start
        # A scout stops short of the limit by less than a block.
        return taken if limit is None or taken == limit else taken + super().run(limit - taken, None, held)

    def _burst(self, index: int, limit: int) -> int:
        timeline, start = self.timeline, self.position
        arcs = self._record(index, limit)
        timeline.arcs.extend(arcs)
        timeline.threads.extend([index] * len(arcs))
        return self.position - start

    def _record(self, index: int, limit: int) -> list[int]:
        """Run one thread until it cannot go on or `limit` steps are done, journaling; answers the arcs it took."""
        thread = self.threads[index]
        me, stack = thread.me, thread.stack
        code, hits, cost = self.program.code, self.hits, self._cost
        journal = self.timeline.journal
        tail, append = journal.tail, journal.tail.append
        row = row_word(index, 0)
        blobs_before = len(journal.blobs)
        taken: list[int] = []
        clock = before = me.clock
        if me.parked:
            # The step of a thread that waited for a condition begins when the condition came true.
            me.parked = 0
            clock = max(clock, self.now)
        self.current = index
        pc = self._enter(thread)
        try:
            while True:
                function, arcs = code[pc]
                number, kind, after, then = arcs[function(me)]
                hits[number] += 1
                taken.append(number)
                clock += cost[number]
                if kind == GOTO:
                    pc = after
                else:
                    if kind & EFFECT:
                        clock += self._carry(self.program.arcs[number], me, clock)
                    base = kind & KIND_MASK
                    pc = stack.pop() if base == RETURN else after
                    if base == CALL and then >= 0:
                        stack.append(then)
                    elif base == BLOCK:
                        me.asleep = 1
                    if kind & CHECK:
                        thread.pc = pc
                        goes_on = self.can_move(index)
                        if not goes_on and not me.asleep:
                            me.parked = 1
                        append((number << 3) + row)
                        append(before)
                        if not goes_on or len(taken) >= limit:
                            break
                        before = clock
                        pc = self._enter(thread)
                        continue
                append((number << 3) + row)
                append(before)
                if len(taken) >= limit:
                    thread.pc = pc
                    break
                before = clock
        except KeyError as error:
            raise self._undeclared(pc, error) from error
        _set_clock(me, clock)
        self._word_at += len(tail)
        self._blob_at += len(journal.blobs) - blobs_before
        journal.pack()
        self.position += len(taken)
        return taken

    def _carry(self, arc: Arc, me: Registers, clock: int) -> int:
        """Carry an effect's time to the thread it reaches, journaling; answers the extra time of the thread's own."""
        arrival = self._arrival(arc, clock)
        if arrival is not None:
            target, nanoseconds = arrival
            self.timeline.journal.tail += (self._clock_cell[target.index], target.clock)
            _set_clock(target, nanoseconds)
        return self._own_time(arc, me)

    def _steps_to_checkpoint(self) -> int:
        """Make a checkpoint if one is due; answer how many steps there are to the next."""
        timeline = self.timeline
        last = timeline.checkpoints[-1] if timeline.checkpoints else None
        if last is not None and last.position + CHECKPOINT_STEPS > self.position:
            return last.position + CHECKPOINT_STEPS - self.position
        timeline.checkpoints.append(self.checkpoint(last))
        return CHECKPOINT_STEPS

    # Back and anywhere

    def seek(self, position: int) -> None:
        """Go to any recorded position by the shortest way: taking back, repeating, or from a checkpoint."""
        timeline = self.timeline
        if not 0 <= position <= self.length:
            raise ModelError(f"position {position} is not in 0..{self.length}")
        near = timeline.checkpoint_before(position)
        by_undo = self.position - position if timeline.window_start <= position <= self.position else None
        by_repeating = position - self.position if self.position <= position else None
        direct = by_undo if by_undo is not None else by_repeating
        if near is not None and (direct is None or position - near.position < direct):
            self._open_window(near)
        elif direct is None:
            raise ModelError(f"no checkpoint before position {position}")
        while self.position > position:
            self._take_back()
        self._repeat(position)

    def back(self) -> bool:
        """Take one step back; answers False at the beginning."""
        if self.position == 0:
            return False
        if self.position == self.timeline.window_start:
            position = self.position
            near = self.timeline.checkpoint_before(position - 1)
            if near is None:
                raise ModelError(f"no checkpoint before position {position}")
            self._open_window(near)
            self._repeat(position)
        self._take_back()
        return True

    def _open_window(self, near: Checkpoint) -> None:
        """Become what a checkpoint says, and begin the window there."""
        self.load(near)
        self.timeline.clear_window(near.position)
        self._word_at = self._blob_at = 0

    def _take_back(self) -> None:
        journal = self.timeline.journal
        packed = journal.packed
        row = begin = self._word_at - 2
        while begin and packed[begin - 2] & KIND != ROW:
            begin -= 2
        self._blob_at = self.state.undo(packed[begin:row], journal.blobs, self._blob_at)
        index, number = thread_and_arc(packed[row])
        thread, arc = self.threads[index], self.program.arcs[number]
        base = arc.kind & KIND_MASK
        if base == CALL and arc.then >= 0:
            thread.stack.pop()
        elif base == RETURN:
            thread.stack.append(thread.pc)
        thread.pc = thread.stack.pop() if arc.op.is_gate else arc.op.number
        _set_clock(thread.me, packed[row + 1])
        self.hits[number] -= 1
        self.position -= 1
        self._word_at = begin
        self.current = self.timeline.threads[self.position - 1] if self.position else 0

    def _repeat(self, position: int) -> None:
        """Go forward over recorded steps by running them again.

        They must take the arcs they took, and overwrite, word for word, what they overwrote if the window still has it.
        """
        timeline = self.timeline
        packed, blobs = timeline.journal.packed, timeline.journal.blobs
        while self.position < position:
            start = stop = self.position
            index = timeline.threads[start]
            while stop < position and timeline.threads[stop] == index:
                stop += 1
            at, words, blob_bytes = self._word_at, len(packed), len(blobs)
            again = self._record(index, stop - start)
            if array("H", again) != timeline.arcs[start : self.position]:
                raise ModelError(f"repeating steps {start} to {self.position} took another way")
            if at < words:
                if packed[words:] != packed[at : self._word_at]:
                    raise ModelError(f"repeating steps {start} to {self.position} changed other cells")
                del packed[words:]
                del blobs[blob_bytes:]

    # Branches

    def begin_here(self) -> None:
        """As for any machine; and the timeline begins anew."""
        super().begin_here()
        self.timeline.journal.clear()
        self.timeline = Timeline(self.timeline.journal)
        self._word_at = self._blob_at = 0

    def cut(self) -> Future:
        """Take away what was recorded after the present position, so that something else can happen instead."""
        timeline = self.timeline
        timeline.cut_window(self.position - timeline.window_start, self._word_at, self._blob_at)
        return timeline.cut(self.position)

    def put_back(self, future: Future) -> Future:
        """Replace what follows `future.start` by a future that was cut off there; answers what was replaced."""
        self.seek(future.start)
        replaced = self.cut()
        self.timeline.put_back(future)
        return replaced

    # Looking

    def arc_at(self, step: int) -> Arc:
        """Give the arc that a step (counted from 0) took."""
        return self.program.arcs[self.timeline.arcs[step]]
