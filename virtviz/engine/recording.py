"""A machine that keeps its past, and can be set to any position it has passed.

It journals what every step overwrites and reads, so that a step can be taken back and can be described.

On a long run it sends a scout ahead: a counting machine that notes rows and checkpoints only, several times faster.
What the scout did not journal is made again, from the checkpoint before, when somebody goes there.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from virtviz.engine.journal import KIND, ROW, cell_word, row_word, thread_and_arc
from virtviz.engine.machine import Machine, set_clock
from virtviz.engine.program import BLOCK, CALL, CHECK, EFFECT, GOTO, KIND_MASK, RETURN
from virtviz.engine.timeline import CHECKPOINT_STEPS, Checkpoint, Future, Timeline
from virtviz.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from virtviz.engine.counting import CountingMachine
    from virtviz.engine.program import Arc, Program
    from virtviz.engine.schedule import Scheduler
    from virtviz.engine.state import State
    from virtviz.engine.threads import Registers, Thread

SCOUT_AFTER: Final = CHECKPOINT_STEPS // 2
"""Steps of one run after which a scout goes ahead. Lessons are shorter, and never need one."""
WINDOW_STEPS: Final = 2 * CHECKPOINT_STEPS
"""Steps after which the window is given up and begun anew."""


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
            # A scout moves in the readable order only.
            if taken >= SCOUT_AFTER and (scheduler or self.scheduler) is None and self.make_scout is not None:
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
        last = timeline.checkpoints[-1]
        if last.position < start:
            last = self.checkpoint(last)
            timeline.checkpoints.append(last)
        timeline.checkpoints += scout.scout(last, limit, timeline.arcs, timeline.threads, held)
        self._open_window(timeline.checkpoints[-1])
        taken = self.length - start
        # A scout stops short of the limit by less than a block.
        return taken if limit is None or taken == limit else taken + super().run(limit - taken, None, held)

    def _burst(self, index: int, limit: int) -> int:
        timeline, start = self.timeline, self.position
        arcs = self._record(index, limit)
        timeline.arcs.extend(arcs)
        timeline.threads.extend([index] * len(arcs))
        return self.position - start

    def _record(self, index: int, limit: int) -> list[int]:  # noqa: C901, PLR0915 - one loop with all it needs at hand
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
        set_clock(me, clock)
        self._word_at += len(tail)
        self._blob_at += len(journal.blobs) - blobs_before
        journal.pack()
        self.position += len(taken)
        self.timeline.window_end = max(self.timeline.window_end, self.position)
        return taken

    def _carry(self, arc: Arc, me: Registers, clock: int) -> int:
        """Carry an effect's time to the thread it reaches, journaling; answers the extra time of the thread's own."""
        arrival = self._arrival(arc, clock)
        if arrival is not None:
            target, nanoseconds = arrival
            self.timeline.journal.tail += (self._clock_cell[target.index], target.clock)
            set_clock(target, nanoseconds)
        return self._own_time(arc, me)

    def _steps_to_checkpoint(self) -> int:
        """Make a checkpoint if one is due; answer how many steps there are to the next."""
        timeline = self.timeline
        last = timeline.checkpoints[-1] if timeline.checkpoints else None
        if last is not None and last.position + CHECKPOINT_STEPS > self.position:
            return last.position + CHECKPOINT_STEPS - self.position
        timeline.checkpoints.append(self.checkpoint(last))
        if self.position - timeline.window_start >= WINDOW_STEPS:
            timeline.clear_window(self.position)
            self._word_at = self._blob_at = 0
        return CHECKPOINT_STEPS

    # Back and anywhere

    def seek(self, position: int, *, with_step: bool = False) -> None:
        """Go to any recorded position by the shortest way: taking back, repeating, or from a checkpoint.

        Args:
            position: 0..length.
            with_step: the window has to hold the step that leads there, because somebody will look at it. A checkpoint
                at that very position is then of no use.
        """
        timeline = self.timeline
        if not 0 <= position <= self.length:
            raise ModelError(f"position {position} is not in 0..{self.length}")
        begin = max(position - with_step, 0)
        near = timeline.checkpoint_before(begin)
        by_undo = self.position - position if timeline.window_start <= begin and position <= self.position else None
        by_repeating = position - self.position if self.position <= begin else None
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
        set_clock(thread.me, packed[row + 1])
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
            in_window = start < timeline.window_end
            if in_window:
                stop = min(stop, timeline.window_end)
            at, words, blob_bytes = self._word_at, len(packed), len(blobs)
            again = self._record(index, stop - start)
            if array("H", again) != timeline.arcs[start : self.position]:
                raise ModelError(f"repeating steps {start} to {self.position} took another way")
            if in_window:
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
        timeline.cut_window(self.position, self._word_at, self._blob_at)
        return timeline.cut(self.position)

    def put_back(self, future: Future) -> Future:
        """Replace what follows `future.start` by a future that was cut off there; answers what was replaced."""
        self.seek(future.start)
        replaced = self.cut()
        self.timeline.put_back(future)
        return replaced

    # Looking

    @property
    def blob_end(self) -> int:
        """Where in the journal's old bytes those of the last step before the present position end."""
        return self._blob_at

    def arc_at(self, step: int) -> Arc:
        """Give the arc that a step (counted from 0) took."""
        return self.program.arcs[self.timeline.arcs[step]]
