"""Blocks: the ops that usually follow each other, joined into one Python function.

The running loop looks up every op, calls it through a variable and looks up its outcome. Most of that is waste where
the next op is known: an op has one outcome, or nearly always the same few. A block is a generated function that calls
such a tree of ops directly, and leaves by a numbered exit as soon as an outcome is not an expected one or what follows
depends on more than the table. Each exit stands for a fixed sequence of arcs, so counting exits is counting arcs.

A block is only a faster way to do what the table says: the same functions are called in the same order. At first the
block that begins with an op is that op alone. Once a block has been entered often, it is made anew, and joins what came
next most of the time, by how often each arc has been taken so far. That decides about speed and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

from virtviz.engine.places import Domain
from virtviz.engine.program import BLOCK, CALL, CHECK, EFFECT, KIND_MASK, RETURN, Arc, Op, Program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.engine.threads import Registers, Thread

OFTEN: Final = 128
"""A block is made anew when it has been entered so often. Statistics of fewer are poor; waiting longer costs more than
it saves."""
SELDOM: Final = 1024
"""One that is entered less than once in so many steps stays as it is: a long run ends up with a fixed set of blocks."""
MAX_STEPS: Final = 64
"""Ops on one way through a block at most."""
MAX_OPS: Final = 128
"""Ops in a whole block at most; compiling takes about a third of a millisecond for so many."""
ROUND_STEPS: Final = 24
"""A way that comes back to where the block began after so many ops or more ends there, so that a loop has one block and
not several."""
RARE: Final = 0.02
"""Ways taken less often than this are not written out."""

BlockFunction = Callable[["Registers"], int]

RETURNS, SLEEPS, CHECKS, TIMED, PUSHES = 1, 2, 4, 8, 16
"""What has to be done after a block, besides going on: return to what the stack says, put the thread to sleep, look
whether it can go on, carry an effect's time, put ops on the stack."""

Exit = tuple[int, int, int]
"""Steps taken, what has to be done, the op to go on with (-1 for a return)."""


class Blocks(Struct):
    """The blocks of a program.

    Attributes:
        program: the linked table.
        threads: whose steps these are.
        hits: how often each arc was taken, up to the last time that the counts were collected.
        timed: end a block at every effect that moves another thread's clock, and note what its own copies take.
        per_kib: by arc, the nanoseconds that a copy or a DMA transfer takes for 1024 bytes.
        times: what the copies within the last block took.
        functions: by op, the block that begins there.
        exits: all exits of all blocks, by number.
        arcs: the arcs that each exit stands for.
        pushes: the ops that each puts on the stack.
        costs: the simulated time of each.
        counts: how often each was taken since the last time they were collected.
    """

    program: Program
    threads: Sequence[Thread]
    hits: list[int]
    timed: bool
    per_kib: Sequence[int]
    times: list[int] = field(default_factory=list)
    functions: list[BlockFunction] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)
    arcs: list[tuple[int, ...]] = field(default_factory=list)
    pushes: list[tuple[int, ...]] = field(default_factory=list)
    costs: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    _until_often: list[int] = field(default_factory=list)
    _counting_since: int = 0

    def __post_init__(self) -> None:
        self._until_often = [OFTEN] * len(self.program.ops)
        self.functions = [self._single(number) for number in range(len(self.program.ops))]

    def collect(self) -> None:
        """Add to `hits`, for each arc, how often it was taken since the last time."""
        hits = self.hits
        for number, times in enumerate(self.counts):
            if times:
                for arc in self.arcs[number]:
                    hits[arc] += times
                self.counts[number] = 0

    def add_exit(self, arcs: Sequence[Arc], stack: Sequence[int], following: int | None = None, todo: int = 0) -> int:
        """Number a way out of a block.

        Args:
            arcs: the arcs taken.
            stack: ops that the block itself would return to, before the last of them if `following` is None.
            following: the op to go on with; None if the last arc leads out.
            todo: what has to be done then.
        """
        pushes = list(stack)
        if following is None:
            last = arcs[-1]
            base = last.kind & KIND_MASK
            following = last.next
            if base == RETURN:
                following = pushes.pop() if pushes else -1
            elif base == CALL and last.then >= 0:
                pushes.append(last.then)
            todo = (RETURNS if following < 0 else 0) | (SLEEPS if base == BLOCK else 0)
            todo |= (CHECKS if last.kind & CHECK else 0) | (TIMED if last.kind & EFFECT else 0)
        self.exits.append((len(arcs), todo | (PUSHES if pushes else 0), following))
        self.arcs.append(tuple(arc.number for arc in arcs))
        self.pushes.append(tuple(pushes))
        self.costs.append(sum(arc.cost_ns for arc in arcs))
        self.counts.append(0)
        return len(self.exits) - 1

    def outcomes(self, number: int) -> dict[str | None, Arc]:
        """Give the arc of each answer of an op."""
        return {outcome: self.program.arcs[entry[0]] for outcome, entry in self.program.code[number][1].items()}

    def _single(self, number: int) -> BlockFunction:
        """Give the block that is one op; when it has been entered often, it gives way to a longer one."""
        function, left = self.program.code[number][0], self._until_often
        exits: dict[str | None, int] = {}

        def block(me: Registers) -> int:
            left[number] -= 1
            if left[number]:
                return exits[function(me)]
            return self._entered_often(number)(me)

        made: dict[Arc, int] = {}
        for outcome, arc in self.outcomes(number).items():
            if arc not in made:
                made[arc] = self.add_exit([arc], [])
            exits[outcome] = made[arc]
        return block

    def _entered_often(self, number: int) -> BlockFunction:
        """Make the block that begins with an op anew, if that is worth it; answers the block to be run.

        What a block covers is seldom entered by itself any more, so all others begin to count anew.
        """
        self.collect()
        steps = sum(self.hits)
        if steps - self._counting_since < OFTEN * SELDOM:
            self.functions[number] = _Maker(self, number).make()
        self._until_often[:] = [OFTEN] * len(self._until_often)
        self._counting_since = steps
        return self.functions[number]


class _Node(Struct):
    """An op on a way through a block.

    Attributes:
        op: the op.
        share: how often the block comes by here, out of once.
        taken: the arcs on the way to it.
        stack: ops that the block itself will return to.
        is_inside: whether the block does this op, or ends before it.
        after: the expected outcomes, the most frequent last, and where each leads; None where the block must end,
            because what follows is not known from the table.
    """

    op: Op
    share: float
    taken: tuple[Arc, ...] = ()
    stack: tuple[int, ...] = ()
    is_inside: bool = False
    after: list[tuple[Arc, _Node | None]] = field(default_factory=list)


class _Maker:
    """Makes one block."""

    def __init__(self, blocks: Blocks, start: int) -> None:
        self.blocks = blocks
        self.ops = blocks.program.ops
        self.start = start
        self.names: dict[str, object] = {}
        self.lines: list[str] = []

    def make(self) -> BlockFunction:
        """Join the ops from the first one on; answers the function."""
        first = _Node(self.ops[self.start], 1.0)
        self._choose(first)
        self._write(first, "        ")
        body = "\n".join(self.lines)
        source = f"def make({', '.join(self.names)}):\n    def block(me):\n{body}\n    return block\n"
        scope: dict[str, Callable[..., BlockFunction]] = {}
        exec(compile(source, f"<block {first.op.path}>", "exec"), scope)
        return scope["make"](**self.names)

    # What belongs to the block

    def _choose(self, first: _Node) -> None:
        """Take ops in, the most frequent first, until nothing frequent is left or the block is large enough."""
        waiting, order = [(-first.share, 0, first)], count(1)
        for _ in range(MAX_OPS):
            if not waiting:
                break
            node = heappop(waiting)[2]
            node.is_inside = True
            for arc, share in self._expected(node):
                following = self._follow(node, arc, share)
                node.after.append((arc, following))
                if following is not None and not self._is_far_enough(following):
                    heappush(waiting, (-share, next(order), following))

    def _expected(self, node: _Node) -> list[tuple[Arc, float]]:
        """Give the outcomes worth writing out and how often the block gets to each, the most frequent last."""
        hits = self.blocks.hits
        arcs = set(self.blocks.outcomes(node.op.number).values())
        if len(arcs) == 1:
            return [(arc, node.share) for arc in arcs]
        total = sum(hits[arc.number] for arc in arcs) or 1
        shares = [(arc, node.share * hits[arc.number] / total) for arc in arcs]
        return sorted((found for found in shares if found[1] > RARE), key=lambda found: (found[1], -found[0].number))

    def _follow(self, node: _Node, arc: Arc, share: float) -> _Node | None:
        """Give what an arc leads to, keeping the block's own stack."""
        base, stack, number = arc.kind & KIND_MASK, node.stack, arc.next
        if base == BLOCK or (base == RETURN and not stack) or self._moves_another_clock(arc):
            return None
        if base == RETURN:
            stack, number = stack[:-1], stack[-1]
        elif base == CALL and arc.then >= 0:
            stack = (*stack, arc.then)
        return _Node(self.ops[number], share, (*node.taken, arc), stack)

    def _moves_another_clock(self, arc: Arc) -> bool:
        return self.blocks.timed and bool(arc.kind & EFFECT) and arc.size is None

    def _is_far_enough(self, node: _Node) -> bool:
        steps = len(node.taken)
        return steps == MAX_STEPS or (steps >= ROUND_STEPS and node.op.number == self.start)

    # Its source

    def _write(self, node: _Node, indent: str) -> None:
        """Write the code from an op on, until every way through it has left the block."""
        while True:
            arcs, name = self.blocks.outcomes(node.op.number), f"op{len(self.names)}"
            is_only = len(set(arcs.values())) == 1
            if not (is_only and node.op.is_idle):
                self.names[name] = node.op.function
            if not is_only:
                self._write_decision(node, arcs, name, indent)
            elif name in self.names:
                self.lines.append(f"{indent}{name}(me)")
            following = self._write_arc(node, *node.after[-1], indent) if node.after else None
            if following is None:
                return
            node = following

    def _write_decision(self, node: _Node, arcs: dict[str | None, Arc], name: str, indent: str) -> None:
        """Write an op with several outcomes: the expected ones but the most frequent are branches, the others leave."""
        expected = {arc for arc, _ in node.after}
        # An answer of None means `done`, but is not equal to it.
        others = {answer: arc for answer, arc in arcs.items() if arc not in expected or answer is None}
        exits = f"exits{len(self.names)}"
        self.names[exits] = {answer: self._exit(node, arc) for answer, arc in others.items()}
        if not expected:
            self.lines.append(f"{indent}return {exits}[{name}(me)]")
            return
        inner, deeper = indent + "    ", indent + "        "
        self.lines += [f"{indent}answer = {name}(me)", f"{indent}if answer != {node.after[-1][0].outcome!r}:"]
        for arc, following in reversed(node.after[:-1]):
            self.lines.append(f"{inner}if answer == {arc.outcome!r}:")
            onward = self._write_arc(node, arc, following, deeper)
            if onward is not None:
                self._write(onward, deeper)
        self.lines.append(f"{inner}return {exits}[answer]")

    def _write_arc(self, node: _Node, arc: Arc, following: _Node | None, indent: str) -> _Node | None:
        """Write what is to be done once an arc is taken; answers where the block goes on, None if it ends."""
        if following is None:
            self.lines.append(f"{indent}return {self._exit(node, arc)}")
            return None
        if self.blocks.timed and arc.size is not None and self.blocks.per_kib[arc.number]:
            size = f"size{len(self.names)}"
            self.names.update({"note": self.blocks.times.append, size: arc.size})
            self.lines.append(f"{indent}note({size}(me) * {self.blocks.per_kib[arc.number]} // 1024)")
        if not following.is_inside:
            self.lines.append(f"{indent}return {self._exit_before(following, arc.kind & CHECK)}")
            return None
        if arc.kind & CHECK:
            name = f"check{len(self.names)}"
            self.names[name] = self._check_before(following.op)
            self.lines.append(f"{indent}if {name}(me): return {self._exit_before(following, CHECK)}")
        return following

    def _exit(self, node: _Node, arc: Arc) -> int:
        """Give the number of the way out by an arc."""
        return self.blocks.add_exit((*node.taken, arc), node.stack)

    def _exit_before(self, node: _Node, check: int) -> int:
        """Give the number of the way out before an op."""
        return self.blocks.add_exit(node.taken, node.stack, node.op.number, CHECKS if check else 0)

    def _check_before(self, op: Op) -> Callable[[Registers], bool]:
        """Make a test: does anything keep a thread from doing this op next?"""
        threads, guard, user = self.blocks.threads, op.guard, op.place.domain is Domain.GUEST_USER
        fence = op.spec.fence

        def held_up(me: Registers) -> bool:
            thread = threads[me.index]
            if thread.intercept is not None and thread.intercept(user) is not None:
                return True
            if fence and thread.stores is not None and not thread.stores.is_empty():
                return True
            return guard is not None and not guard()

        return held_up
