"""Blocks: the ops that usually follow each other, joined into one Python function.

The running loop looks up every op, calls it through a variable and looks up its outcome. Most of that is waste where the next
op is known: an op has one outcome, or nearly always the same few. A block is a generated function that calls such a tree of
ops directly, and leaves by a numbered exit as soon as an outcome is not an expected one or what follows depends on more
than the table. Each exit stands for a fixed sequence of arcs, so counting exits is counting arcs.

A block is only a faster way to do what the table says: the same functions are called in the same order. Which outcomes are
expected is taken from how often each arc was taken so far; it decides about speed and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from virtviz.engine.places import Domain
from virtviz.engine.program import BLOCK, CALL, CHECK, EFFECT, KIND_MASK, RETURN, Arc, Op, Program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.engine.threads import Registers, Thread

MAX_STEPS = 48
"""Ops on one way through a block at most."""
MAX_OPS = 160
"""Ops in a whole block at most."""
RARE = 16
"""An outcome that came up less often than once in so many times is not expected."""

BlockFunction = Callable[["Registers"], int]

RETURNS, SLEEPS, CHECKS, TIMED, PUSHES = 1, 2, 4, 8, 16
"""What has to be done after a block, besides going on: return to what the stack says, put the thread to sleep, look whether
it can go on, carry an effect's time, put ops on the stack."""

Exit = tuple[int, int, int]
"""Steps taken, what has to be done, the op to go on with (-1 for a return)."""


@dataclass(slots=True)
class Blocks:
    """The blocks of a program, made when they are first needed.

    Attributes:
        program: the linked table.
        threads: whose steps these are.
        timed: end a block at every effect that moves clocks.
        functions: by op, the block that begins there; None until it is made.
        exits: all exits of all blocks, by number.
        arcs: the arcs that each exit stands for.
        pushes: the ops that each puts on the stack.
        costs: the simulated time of each.
        counts: how often each was taken since the last time they were collected.
    """

    program: Program
    threads: Sequence[Thread]
    timed: bool
    functions: list[BlockFunction | None] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)
    arcs: list[tuple[int, ...]] = field(default_factory=list)
    pushes: list[tuple[int, ...]] = field(default_factory=list)
    costs: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.functions = [None] * len(self.program.ops)

    def collect(self, hits: list[int]) -> None:
        """Add to `hits`, for each arc, how often it was taken since the last time."""
        for number, count in enumerate(self.counts):
            if count:
                for arc in self.arcs[number]:
                    hits[arc] += count
                self.counts[number] = 0

    def make(self, start: int, hits: list[int]) -> BlockFunction:
        """Make the block that begins with an op.

        Args:
            start: the op's number.
            hits: how often each arc has been taken; the outcomes taken most often are expected.
        """
        made = _Maker(self, hits).make(start)
        self.functions[start] = made
        return made


class _Maker:
    """Makes one block."""

    def __init__(self, blocks: Blocks, hits: list[int]) -> None:
        self.blocks = blocks
        self.program = blocks.program
        self.hits = hits
        self.names: dict[str, object] = {}
        self.lines: list[str] = []
        self.ops = 0

    def make(self, start: int) -> BlockFunction:
        """Join the ops from `start` on; answers the function."""
        self._write(start, [], [], "        ")
        body = "\n".join(self.lines)
        source = f"def make({', '.join(self.names)}):\n    def block(me):\n{body}\n    return block\n"
        scope: dict[str, Callable[..., BlockFunction]] = {}
        where = f"<block {self.program.ops[start].path}>"
        exec(compile(source, where, "exec"), scope)  # noqa: S102 - made of op numbers and outcome names of our own tables
        return scope["make"](**self.names)

    def _write(self, number: int, taken: list[Arc], stack: list[int], indent: str) -> None:
        """Write the code from an op on, until every way through it has left the block.

        Args:
            number: the op.
            taken: arcs taken on the way to it.
            stack: ops that the block itself will return to.
            indent: spaces before each line.
        """
        while True:
            if len(taken) == MAX_STEPS or self.ops >= MAX_OPS:
                self.lines.append(f"{indent}return {self._exit(taken, stack, number)}")
                return
            op, at = self.program.ops[number], self.ops
            self.ops += 1
            self.names[f"op{at}"] = op.function
            arcs = {outcome: self.program.arcs[entry[0]] for outcome, entry in self.program.code[number][1].items()}
            expected = self._expected(set(arcs.values()))
            if len(set(arcs.values())) == 1:
                if not op.is_idle:
                    self.lines.append(f"{indent}op{at}(me)")
            else:
                self._write_decision(at, arcs, expected, taken, stack, indent)
            if not expected:
                return
            main = expected[0]
            if self._ends(main, stack):
                self.lines.append(f"{indent}return {self._exit([*taken, main], stack)}")
                return
            taken, number = [*taken, main], self._follow(main, stack)
            self._write_check(main, number, taken, stack, indent)

    def _expected(self, arcs: set[Arc]) -> list[Arc]:
        """Give the arcs worth writing out, the most frequent first."""
        total = sum(self.hits[arc.number] for arc in arcs)
        if len(arcs) == 1:
            return list(arcs)
        common = [arc for arc in arcs if self.hits[arc.number] * RARE > total]
        return sorted(common, key=lambda arc: (-self.hits[arc.number], arc.number))

    def _write_decision(  # noqa: PLR0913 - where in the tree this is
        self,
        at: int,
        arcs: dict[str | None, Arc],
        expected: list[Arc],
        taken: list[Arc],
        stack: list[int],
        indent: str,
    ) -> None:
        """Write an op with several outcomes: the expected ones but the first are branches, the others leave."""
        written = set(expected)
        rest = {outcome: self._exit([*taken, arc], stack) for outcome, arc in arcs.items() if arc not in written}
        self.names[f"exits{at}"] = rest
        if not expected:
            self.lines.append(f"{indent}return exits{at}[op{at}(me)]")
            return
        self.lines += [f"{indent}answer = op{at}(me)", f"{indent}if answer != {expected[0].outcome!r}:"]
        inner = indent + "    "
        for arc in expected[1:]:
            self.lines.append(f"{inner}if answer == {arc.outcome!r}:")
            deeper = inner + "    "
            if self._ends(arc, stack):
                self.lines.append(f"{deeper}return {self._exit([*taken, arc], stack)}")
                continue
            branch_stack = list(stack)
            following = self._follow(arc, branch_stack)
            self._write_check(arc, following, [*taken, arc], branch_stack, deeper)
            self._write(following, [*taken, arc], branch_stack, deeper)
        self.lines.append(f"{inner}return exits{at}[answer]")

    def _write_check(self, arc: Arc, following: int, taken: list[Arc], stack: list[int], indent: str) -> None:
        """After an arc that may let something in between: leave the block if the thread cannot simply go on."""
        if arc.kind & CHECK:
            name = f"check{len(self.names)}"
            self.names[name] = self._check_before(self.program.ops[following])
            self.lines.append(f"{indent}if {name}(me): return {self._exit(taken, stack, following, CHECKS)}")

    def _check_before(self, op: Op) -> Callable[[Registers], bool]:
        """Make a test: does anything keep a thread from doing this op next?"""
        threads, guard, user = self.blocks.threads, op.guard, op.place.domain is Domain.GUEST_USER

        def held_up(me: Registers) -> bool:
            intercept = threads[me.index].intercept
            return (intercept is not None and intercept(user) is not None) or (guard is not None and not guard())

        return held_up

    def _ends(self, arc: Arc, stack: list[int]) -> bool:
        """Say whether a block must end with an arc, because what follows is not known from the table."""
        base = arc.kind & KIND_MASK
        return bool(base == BLOCK or (base == RETURN and not stack) or (self.blocks.timed and arc.kind & EFFECT))

    @staticmethod
    def _follow(arc: Arc, stack: list[int]) -> int:
        """Give the op an arc leads to, keeping the block's own stack."""
        base = arc.kind & KIND_MASK
        if base == RETURN:
            return stack.pop()
        if base == CALL and arc.then >= 0:
            stack.append(arc.then)
        return arc.next

    def _exit(self, arcs: list[Arc], stack: list[int], following: int | None = None, todo: int = 0) -> int:
        """Number a way out.

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
        blocks = self.blocks
        blocks.exits.append((len(arcs), todo | (PUSHES if pushes else 0), following))
        blocks.arcs.append(tuple(arc.number for arc in arcs))
        blocks.pushes.append(tuple(pushes))
        blocks.costs.append(sum(arc.cost_ns for arc in arcs))
        blocks.counts.append(0)
        return len(blocks.exits) - 1
