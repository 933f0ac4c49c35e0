"""Ops and routines: how a place says what it does, one memory-visible operation at a time.

A routine is a class whose methods, marked with `@op`, are its rows. A method does one small thing and answers with the
name of an outcome, or with nothing where there is only one. Where each outcome leads stands in the decorator, so the
whole table can be read, drawn and checked without running it.

    class StartXmit(Routine):
        @op("G-TX.12", "ask whether a kick is wanted", "virtqueue_kick_prepare_split", VIRTIO_RING, spec="2.7.13.4",
            text="...", to={"kick": goto("kick"), "no kick": RETURN})
        def check_avail_event(self, me: Thread) -> str:
            return "kick" if self.queue.kick_needed() else "no kick"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Struct, field
from msgspec.structs import replace

from virtviz.errors import LinkError

if TYPE_CHECKING:
    from virtviz.engine.places import Domain, Place
    from virtviz.spec.citation import Source


class Goto(Struct, frozen=True):
    """Go on with another op of the same routine, or with the routine that an attribute of that name holds, for good."""

    op: str


class Call(Struct, frozen=True):
    """Run another routine, then go on with `then` (None: return to whoever called this routine).

    Attributes:
        routine: name of the attribute of this routine object that holds the routine to run.
        then: the op of this routine, or the attribute holding another routine, to go on with; None for a tail call.
    """

    routine: str
    then: str | None


class CallAny(Struct, frozen=True):
    """Run one of several routines chosen at run time: one outcome for each key of a mapping.

    Attributes:
        routines: name of the attribute that holds the mapping, outcome name -> routine.
        then: as in `Call`.
    """

    routines: str
    then: str | None


class Return(Struct, frozen=True):
    """Go back to where this routine was called from, or interrupted what it interrupted.

    Attributes:
        domain: the domain it goes back to, where callers of several domains exist and the op knows which it was.
    """

    domain: Domain | None = None


class Block(Struct, frozen=True):
    """Sleep until woken, then go on with `then`."""

    then: str


Target = Goto | Call | CallAny | Return | Block
RETURN = Return()


def goto(name: str) -> Goto:
    """Go on with op `name` of the same routine, or with the routine held by attribute `name`."""
    return Goto(name)


def call(routine: str, then: str | None) -> Call:
    """Run the routine held by attribute `routine`, then op `then` (None: return at once)."""
    return Call(routine, then)


def call_any(routines: str, then: str | None) -> CallAny:
    """Run one of the routines held by the mapping attribute `routines`; each key is an outcome."""
    return CallAny(routines, then)


def block(then: str) -> Block:
    """Sleep until woken, then go on with op `then`."""
    return Block(then)


PerOutcome = str | Mapping[str, str]
"""A text that is the same for every outcome, or one for each."""


class OpSpec(Struct, frozen=True):
    """What the decorator says of an op: everything about it that no run can change.

    Attributes:
        name: what a lesson calls it: the method's name, unless a routine retells it under another.
        row: its row in the table of steps this model follows, such as `G-TX.10`; may differ by outcome.
        title: a few words in the imperative; may differ by outcome.
        text: one or two sentences for the learner, with `{...}` fields filled from the step; may differ by outcome.
        function: the function of the real system that does this.
        source: where that function is.
        spec: section of the virtio specification, if it is the specification that asks for this.
        to: outcome -> where it leads.
        milestone: the point of a packet's way that this op is; may be given for one outcome only.
        into: the queue in which the packet waits afterwards; may be given for one outcome only.
        cost: key of the cost profile for the op's own work.
        cause: why the crossing that follows happens; empty: the title.
        size: name of a method that, given the registers after the op, says how many bytes a copy or DMA moved.
        target: attribute holding the thread that a wake-up, an interrupt or a timer of this op reaches.
        fence: a full memory barrier: the thread's earlier stores are visible before anything after it.
        private: touches nothing that another thread could see; exploration need not branch here.
        guard: name of a method without arguments; the op can run only while it answers True.
        patience: name of a method without arguments; where it answers True, the op can run in spite of its guard once
            nothing else can move. It stands for a long pause or a time-out.
        opens: interrupts may have become possible by this op, look for them before going on.
        method: the method's name, if `name` is another.
    """

    name: str
    row: PerOutcome
    title: PerOutcome
    text: PerOutcome
    function: str
    source: Source
    spec: str = ""
    to: Mapping[str, Target] = field(default_factory=dict)
    milestone: PerOutcome = ""
    into: PerOutcome = ""
    cost: str = "step"
    cause: str = ""
    size: str = ""
    target: str = ""
    fence: bool = False
    private: bool = False
    guard: str = ""
    patience: str = ""
    opens: bool = False
    method: str = ""


def pick(value: PerOutcome, outcome: str) -> str:
    """Give the text for an outcome; where a per-outcome text does not name it, the text under the empty name."""
    return value if isinstance(value, str) else value.get(outcome, value.get("", ""))


def op(
    row: PerOutcome,
    title: PerOutcome,
    function: str,
    source: Source,
    *,
    text: PerOutcome,
    to: Target | Mapping[str, Target] | None = None,
    **more: Any,  # noqa: ANN401 - the remaining attributes of OpSpec, checked by its constructor
) -> Callable[[Callable[..., str | None]], Callable[..., str | None]]:
    """Mark a method of a routine as an op; see `OpSpec` for the arguments.

    `to` may be left out (go on with the next op of the routine), one target (the only outcome is `done`), or a mapping.
    A method that answers None has the outcome `done`.
    """

    def mark(method: Callable[..., str | None]) -> Callable[..., str | None]:
        spec = OpSpec(method.__name__, row, title, text, function, source, to=_targets(to), **more)
        method.op_spec = spec  # type: ignore[attr-defined]
        return method

    return mark


def _targets(to: Target | Mapping[str, Target] | None) -> Mapping[str, Target]:
    return {} if to is None else to if isinstance(to, Mapping) else {DONE: to}


DONE = "done"
"""The outcome of an op that has only one and answers nothing."""


class Routine:
    """A piece of code of one place: a list of ops, entered at the first.

    Attributes:
        place: the component whose code this is.
        name: unique in the program, such as `vm1.start_xmit`.
        queue: the virtqueue it works on, if it works on one.
        first: name of the op to begin with; empty for the one written down first.
        links: names used in targets that mean another op of this class, or, where empty, the way back to the caller.
            With these a base class can leave open where its ops lead.
        rows: row names used by a base class -> the rows they are in this routine.
        functions: functions named in the table -> what does the same in this routine's world, and where that is.
        retold: methods of a base class -> the attributes of its `OpSpec` that are others here, its name among them;
            None leaves the op out. What an op does is so written once, and told as each kind of world has it. It goes
            over what base classes have retold, and a method of the same name without `op` changes what is done.
    """

    entry: int = -1
    """The first op's number, set by `link`."""
    first: ClassVar[str] = ""
    links: Mapping[str, str] = MappingProxyType({})
    rows: Mapping[str, str] = MappingProxyType({})
    functions: Mapping[str, tuple[str, Source]] = MappingProxyType({})
    retold: ClassVar[Mapping[str, Mapping[str, Any] | None]] = MappingProxyType({})

    def __init__(self, name: str, place: Place, queue: str = "") -> None:
        self.name = name
        self.place = place
        self.queue = queue

    def specs(self) -> list[OpSpec]:
        """Give the ops in the order in which they are written down, a base class's first."""
        return _specs_of(type(self))  # type: ignore[arg-type]  # a class is hashable, whatever mypy thinks of type[]

    def place_of(self, spec: OpSpec) -> Place:  # noqa: ARG002 - a routine that spans places overrides this
        """Say whose code an op is; a routine that spans places overrides this."""
        return self.place

    def meanings(self) -> Mapping[str, str]:
        """Give what names in targets mean in this routine: its links, and the ops that it has under another name."""
        return {**_renamed(type(self)), **self.links}  # type: ignore[arg-type]

    def words(self, me: Any) -> Mapping[str, object]:  # noqa: ANN401, ARG002 - registers; a routine with texts overrides this
        """Give the values that the `{...}` fields of this routine's texts stand for, as of now."""
        return {}

    def first_op(self) -> str:
        """Name the op the routine begins with."""
        return self.meanings().get(self.first, self.first) or self.specs()[0].name


@cache
def _specs_of(cls: type[Routine]) -> list[OpSpec]:
    found: dict[str, OpSpec | None] = {}
    for part in reversed(cls.__mro__):
        mine = vars(part)
        found |= {name: value.op_spec for name, value in mine.items() if hasattr(value, "op_spec")}
        for name, more in mine.get("retold", {}).items():
            spec = found.get(name)
            if spec is None:
                raise LinkError(f"{part.__name__} retells {name!r}, and has no such op")
            found[name] = None if more is None else _retell(spec, more)
    return [spec for spec in found.values() if spec is not None]


def _retell(spec: OpSpec, more: Mapping[str, Any]) -> OpSpec:
    to = {"to": _targets(more["to"])} if "to" in more else {}
    return replace(spec, **{"method": spec.method or spec.name, **more, **to})


@cache
def _renamed(cls: type[Routine]) -> dict[str, str]:
    """Give the ops that a class has under another name than its base class."""
    return {spec.method: spec.name for spec in _specs_of(cls) if spec.method not in ("", spec.name)}  # type: ignore[arg-type]
