"""Linking: from routines written by name to one table of numbered ops and arcs.

An arc is one outcome of one op. Linking finds every routine that the threads can reach, resolves names, computes from
the places at both ends what each arc crosses, and refuses a table that does not hold together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from virtviz.engine.effects import EFFECT_OF_OUTCOME, EffectKind
from virtviz.engine.ops import DONE, Block, Call, CallAny, Goto, OpSpec, Return, Routine, Target, pick
from virtviz.engine.places import CrossingKind, Domain, Place, crossing_between, crossing_side
from virtviz.errors import LinkError

if TYPE_CHECKING:
    from virtviz.engine.places import Side
    from virtviz.engine.threads import Registers, Thread

GOTO, CALL, RETURN, BLOCK = range(4)
KIND_MASK = 7
CHECK = 8
"""Set in an arc's kind when, after it, the thread may be interrupted or may have to wait for a condition."""
EFFECT = 16
"""Set in an arc's kind when it has an effect that moves clocks (a wake-up, an interrupt, a copy)."""

_IDLE = (lambda self, me: None).__code__  # noqa: ARG005 - what a method without a body compiles to
_REACHING = (EffectKind.WAKEUP, EffectKind.IRQ_INJECT, EffectKind.HW_IRQ, EffectKind.TIMER)
_TARGETED = (*_REACHING, EffectKind.ALREADY_AWAKE)
_TIMED = (*_REACHING, EffectKind.COPY, EffectKind.DMA)

Function = Callable[["Registers"], str | None]
Step = tuple[Function, Mapping[str | None, tuple[int, int, int, int]]]


class Op(Struct, eq=False):
    """One linked op: its number, its text and where it belongs."""

    number: int
    spec: OpSpec
    routine: Routine
    place: Place
    function: Function
    guard: Callable[[], bool] | None
    patience: Callable[[], bool] | None
    is_gate: bool = False
    may_wait: bool = False
    """Whether a thread may have to wait before it: for a condition, or at a fence for its stores to be visible."""

    @property
    def is_idle(self) -> bool:
        """Whether the function does nothing at all: the op only says that the thread has come by here."""
        code = self.function.__func__.__code__  # type: ignore[attr-defined]
        return code.co_code == _IDLE.co_code and code.co_consts[-1] is None

    @property
    def name(self) -> str:
        """The op's name within its routine; what lessons call it."""
        return self.spec.name

    @property
    def path(self) -> str:
        """The op's unique name."""
        return f"{self.routine.name}/{self.spec.name}"


class Arc(Struct, eq=False):
    """One outcome of an op.

    Attributes:
        number: its place in `Program.arcs`, and in the list of hits.
        op: the op it leaves.
        outcome: the outcome's name.
        kind: GOTO, CALL, RETURN or BLOCK, with CHECK and EFFECT.
        next: number of the op it leads to; -1 for a return.
        then: number of the op to return to after a call; -1 for a tail call.
        crossing: what is crossed on the way, None if nothing.
        side: whose crossing it is.
        effect: what a primitive did, None if nothing.
        how: the way it was done, where an effect has several.
        size: says how many bytes a copy or DMA moved, given the registers after the op; None if nobody asks.
        target: the thread that a wake-up or interrupt reaches.
        cost_ns: simulated time it takes.
    """

    number: int
    op: Op
    outcome: str
    kind: int
    next: int
    then: int
    crossing: CrossingKind | None = None
    side: Side | None = None
    effect: EffectKind | None = None
    how: str | None = None
    size: Callable[[Registers], int] | None = None
    target: Thread | None = None
    cost_ns: int = 0


class Program(Struct):
    """A linked table.

    Attributes:
        ops, arcs: by number.
        code: for the running loop: function and outcomes of each op.
        domains: the domain of each op's place.
    """

    ops: list[Op] = field(default_factory=list)
    arcs: list[Arc] = field(default_factory=list)
    code: list[Step] = field(default_factory=list)
    domains: list[Domain] = field(default_factory=list)

    def find(self, path: str) -> Op:
        """Give an op by `routine/op`, or by its bare name if only one has it."""
        found = [op for op in self.ops if path in (op.path, op.name)]
        if len(found) != 1:
            message = f"{len(found)} ops are called {path!r}"
            raise LinkError(message)
        return found[0]


def link(
    threads: Iterable[Thread],
    costs: Mapping[str, int] | None = None,
    omit: Iterable[str] = (),
) -> Program:
    """Link everything the threads can reach.

    Args:
        threads: each with its first routine and the gates that may interrupt it.
        costs: nanoseconds by cost key, crossing kind and effect kind; what is missing costs nothing.
        omit: ops to leave out, by `routine/op` or bare name, and passed over as if the source did not have them.
            An op of several outcomes is left out as `op=outcome`, and passed over as if it always ended so.

    Raises:
        LinkError: duplicate or missing names, unreachable or uncited ops, ambiguous returns.
        NoBorderError: an arc joins places between which there is no crossing.
    """
    return _Linker(list(threads), costs or {}, omit).run()


def reachable(threads: Iterable[Thread]) -> list[Routine]:
    """Give every routine that threads can come to, in the order in which they are found.

    Raises:
        LinkError: two have the same name, or one that an op calls is missing.
    """
    waiting: list[Routine] = []
    for thread in threads:
        waiting += (thread.start, *thread.gates)
    found: dict[Routine, None] = {}
    names: set[str] = set()
    while waiting:
        routine = waiting.pop(0)
        if routine in found:
            continue
        if routine.name in names:
            raise LinkError(f"two routines are called {routine.name!r}")
        names.add(routine.name)
        found[routine] = None
        for spec in routine.specs():
            for target in spec.to.values():
                waiting += [*_callees(routine, target), *_continuations(routine, target)]
    return list(found)


def _callees(routine: Routine, target: Target) -> list[Routine]:
    try:
        if isinstance(target, Call):
            return [getattr(routine, target.routine)]
        if isinstance(target, CallAny):
            return list(getattr(routine, target.routines).values())
    except AttributeError as error:
        raise LinkError(f"{routine.name}: {error}") from error
    return []


def _continuations(routine: Routine, target: Target) -> list[Routine]:
    """Give the routine that a target goes on with instead of an op, if it names one."""
    target = _linked(target, routine.meanings())
    name = target.op if isinstance(target, Goto) else getattr(target, "then", None)
    held = getattr(routine, name, None) if name else None
    return [held] if isinstance(held, Routine) else []


class _Linker:
    def __init__(self, threads: list[Thread], costs: Mapping[str, int], omit: Iterable[str]) -> None:
        self.threads = threads
        self.costs = costs
        self.omit = {name: outcome for name, _, outcome in (entry.partition("=") for entry in omit)}
        self.program = Program()
        self.by_name: dict[tuple[Routine, str], Op] = {}
        self.routines = reachable(threads)
        self.returns_to: dict[Routine, set[Place | Domain]] = {}
        self.guarded_returns: dict[Routine, bool] = {}

    def run(self) -> Program:
        for routine in self.routines:
            self._add_ops(routine)
        unknown = self.omit.keys() - {name for op in self.program.ops for name in (op.path, op.name)}
        if unknown:
            raise LinkError(f"there is no op {min(unknown)!r} to leave out")
        self._find_return_sites()
        for op in list(self.program.ops):
            self._add_arcs(op)
        self._check_reachable()
        for thread in self.threads:
            thread.pc = thread.start.entry
            thread.stack.clear()
        return self.program

    def _add_ops(self, routine: Routine) -> None:
        specs = routine.specs()
        if not specs:
            raise LinkError(f"{routine.name} has no ops")
        gates = {gate for thread in self.threads for gate in thread.gates}
        buffered = any(thread.stores is not None for thread in self.threads)
        for spec in specs:
            if not spec.text or not spec.row or not spec.title:
                raise LinkError(f"{routine.name}/{spec.name} lacks a row, a title or a text")
            op = Op(
                number=len(self.program.ops),
                spec=spec,
                routine=routine,
                place=routine.place_of(spec),
                function=getattr(routine, spec.method or spec.name),
                guard=getattr(routine, spec.guard) if spec.guard else None,
                patience=getattr(routine, spec.patience) if spec.patience else None,
                is_gate=spec.name == routine.first_op() and routine in gates,
                may_wait=bool(spec.guard) or (spec.fence and buffered),
            )
            self.program.ops.append(op)
            self.program.domains.append(op.place.domain)
            self.by_name[routine, spec.name] = op
        routine.entry = self._resolve(routine, routine.first_op()).number

    # Where returns lead

    def _find_return_sites(self) -> None:
        """Find, for each routine, the places a return may lead to, through tail calls as well."""
        sites, tails = self._calls()
        # Who is called last returns where its caller would have returned.
        while any(not sites[caller] <= sites[callee] for caller, callee in tails):
            for caller, callee in tails:
                sites[callee] |= sites[caller]
        for routine, found in sites.items():
            self.returns_to[routine] = {site.place if isinstance(site, Op) else site for site in found}
            self.guarded_returns[routine] = any(isinstance(site, Op) and site.may_wait for site in found)

    def _calls(self) -> tuple[dict[Routine, set[Op | Domain]], list[tuple[Routine, Routine]]]:
        """Find for each routine what its direct callers go on with, and who calls whom without going on."""
        sites: dict[Routine, set[Op | Domain]] = {routine: set() for routine in self.routines}
        tails: list[tuple[Routine, Routine]] = []
        for thread in self.threads:
            for gate in thread.gates:
                sites[gate] |= {Domain.GUEST_USER, Domain.GUEST_KERNEL}
        for op in self.program.ops:
            for target in self._targets(op).values():
                tails += [(op.routine, onward) for onward in _continuations(op.routine, target)]
                if not isinstance(target, Call | CallAny):
                    continue
                for callee in _callees(op.routine, target):
                    if target.then is None:
                        tails.append((op.routine, callee))
                    else:
                        sites[callee].add(self._resolve(op.routine, target.then))
        return sites, tails

    # Arcs

    def _targets(self, op: Op) -> Mapping[str, Target]:
        """Give an op's outcomes; without any, it goes on with the next op of its routine."""
        links = op.routine.meanings()
        if op.spec.to:
            return {outcome: _linked(target, links) for outcome, target in op.spec.to.items()}
        specs = op.routine.specs()
        at = specs.index(op.spec)
        if at + 1 == len(specs):
            raise LinkError(f"{op.path} is the last op of its routine and leads nowhere")
        return {DONE: Goto(specs[at + 1].name)}

    def _resolve(self, routine: Routine, name: str) -> Op:
        """Find an op by name, or a routine's first op, passing over omitted ones."""
        held = getattr(routine, name, None)
        if isinstance(held, Routine):
            return self._resolve(held, held.first_op())
        try:
            op = self.by_name[routine, name]
        except KeyError:
            raise LinkError(f"{routine.name} has no op {name!r}") from None
        if not self._is_omitted(op):
            return op
        outcome = self.omit.get(op.path, self.omit.get(op.name, ""))
        targets = [target for name, target in self._targets(op).items() if outcome in ("", name)]
        if len(targets) != 1 or not isinstance(targets[0], Goto):
            raise LinkError(f"{op.path} cannot be left out: it does more than pass on to the next op")
        return self._resolve(routine, targets[0].op)

    def _is_omitted(self, op: Op) -> bool:
        return op.path in self.omit or op.name in self.omit

    def _add_arcs(self, op: Op) -> None:
        """Make the arcs of one op."""
        arcs: dict[str | None, tuple[int, int, int, int]] = {}
        for outcome, target in self._targets(op).items():
            if isinstance(target, CallAny):
                for name, callee in getattr(op.routine, target.routines).items():
                    arcs[name] = self._arc(op, name, target, callee)
            elif isinstance(target, Call):
                arcs[outcome] = self._arc(op, outcome, target, getattr(op.routine, target.routine))
            else:
                arcs[outcome] = self._arc(op, outcome, target, None)
        if DONE in arcs:
            arcs[None] = arcs[DONE]
        self.program.code.append((op.function, arcs))

    def _arc(self, op: Op, outcome: str, target: Target, callee: Routine | None) -> tuple[int, int, int, int]:
        arc = Arc(len(self.program.arcs), op, outcome, GOTO, -1, -1)
        where: list[Place | Domain]
        guarded = False
        if isinstance(target, Goto | Block):
            there = self._resolve(op.routine, target.op if isinstance(target, Goto) else target.then)
            arc.kind, arc.next = (GOTO if isinstance(target, Goto) else BLOCK), there.number
            where, guarded = [there.place], there.may_wait
        elif isinstance(target, Return):
            arc.kind = RETURN
            where, guarded = self._return_places(op, target), self.guarded_returns[op.routine]
        else:
            if callee is None or self.program.ops[callee.entry].is_gate:
                raise LinkError(f"{op.path}: {outcome!r} calls nothing that can be called")
            arc.kind, arc.next = CALL, callee.entry
            if target.then is not None:
                arc.then = self._resolve(op.routine, target.then).number
            first = self.program.ops[arc.next]
            where, guarded = [first.place], first.may_wait
        self._cross(arc, where)
        self._effect(arc)
        # Of two interrupts that are due at once, one is taken, and the other is due still.
        if guarded or op.spec.opens or op.is_gate or arc.crossing is CrossingKind.VM_ENTRY or arc.kind == BLOCK:
            arc.kind |= CHECK
        arc.cost_ns += self.costs.get(op.spec.cost, 0)
        self.program.arcs.append(arc)
        return arc.number, arc.kind, arc.next, arc.then

    def _return_places(self, op: Op, target: Return) -> list[Place | Domain]:
        found = [
            place
            for place in self.returns_to[op.routine]
            if target.domain is None or (place.domain if isinstance(place, Place) else place) is target.domain
        ]
        if not found:
            raise LinkError(f"{op.path} returns, but nothing calls {op.routine.name}")
        return found

    def _cross(self, arc: Arc, where: list[Place | Domain]) -> None:
        kinds: set[CrossingKind | None] = set()
        for there in where:
            place = there if isinstance(there, Place) else Place("interrupted", there, "what was interrupted")
            kind = crossing_between(arc.op.place, place)
            kinds.add(kind)
            if kind is not None:
                arc.side = crossing_side(kind, arc.op.place.domain, place.domain)
        if len(kinds) != 1:
            raise LinkError(f"{arc.op.path}: {arc.outcome!r} returns to several domains and crosses different borders")
        (arc.crossing,) = kinds
        if arc.crossing is not None:
            arc.cost_ns += self.costs.get(arc.crossing, 0)

    def _effect(self, arc: Arc) -> None:
        if arc.outcome not in EFFECT_OF_OUTCOME:
            return
        arc.effect, arc.how = EFFECT_OF_OUTCOME[arc.outcome]
        arc.cost_ns += self.costs.get(arc.effect, 0)
        if arc.effect in _TARGETED:
            if not arc.op.spec.target:
                raise LinkError(f"{arc.op.path}: {arc.outcome!r} needs a target")
            arc.target = getattr(arc.op.routine, arc.op.spec.target)
        if arc.effect in (EffectKind.COPY, EffectKind.DMA):
            if not arc.op.spec.size:
                raise LinkError(f"{arc.op.path}: {arc.outcome!r} needs a size")
            arc.size = getattr(arc.op.routine, arc.op.spec.size)
        if arc.effect in _TIMED:
            arc.kind |= EFFECT

    def _check_reachable(self) -> None:
        """Refuse ops that no arc of their own routine leads to."""
        reached: set[int] = {routine.entry for routine in self.routines}
        for arc in self.program.arcs:
            reached |= {arc.next, arc.then}
        for op in self.program.ops:
            if op.number not in reached and not self._is_omitted(op):
                raise LinkError(f"{op.path} can never be reached")


def _linked(target: Target, links: Mapping[str, str]) -> Target:
    """Fill in where a base class left open what comes next; an empty name means the way back to the caller."""
    if not links:
        return target
    if isinstance(target, Goto):
        name = links.get(target.op, target.op)
        return Goto(name) if name else Return()
    if isinstance(target, Block):
        return Block(links.get(target.then, target.then))
    if isinstance(target, Call | CallAny) and target.then is not None:
        return replace(target, then=links.get(target.then, target.then) or None)
    return target


def text_for(op: Op, outcome: str) -> str:
    """Give the unformatted sentence of an op for one outcome."""
    return pick(op.spec.text, outcome)
