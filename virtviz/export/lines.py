"""The lines of a trace file, as types: a header, one object a step, a footer.

Writing, reading and the JSON Schema all come from these types, so they cannot drift apart. The order of the fields is
the order of the keys in the file. `docs/trace-format.md` tells the same story for people.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct
from msgspec import field as named

from virtviz.engine.effects import EffectKind  # noqa: TC001 - msgspec reads the annotations
from virtviz.engine.places import CrossingKind, Domain, Side  # noqa: TC001 - as above

FORMAT: Final = "virtviz-trace"
FORMAT_VERSION: Final = 1

Count = Annotated[int, Meta(ge=0)]
Number = Annotated[int, Meta(ge=0, description="Unsigned, up to 64 bits.")]
Hex = Annotated[str, Meta(pattern="^([0-9a-f]{2})*$", description="Bytes as hexadecimal digits, lowest address first.")]
Content = Number | Hex
"""Up to 8 bytes are a little-endian number, more are hexadecimal digits."""
Run = Annotated[
    tuple[int, Count, int],
    Meta(description="[first, count, step]: `count` values, from `first` on, each `step` more than the one before."),
]
Stretch = Annotated[tuple[Count, Hex], Meta(description="[address, bytes]")]


class Line(Struct):
    """Base of everything in a trace file. Unknown keys are ignored: later versions may add some."""


# The header


class ThreadLine(Line):
    """A thread: its name, its kind and the place it begins in."""

    name: str
    kind: Literal["vcpu", "host", "hardware"]
    place: str


class PlaceLine(Line):
    """A place: its name, its domain, and how people call it."""

    name: str
    domain: Domain
    title: str


class QueueLine(Line):
    """A queue: where its parts lie, and under which names its two sides keep their cells.

    Of a packed one `desc` is the descriptor ring, `avail` the driver's and `used` the device's event suppression
    structure. An e1000's has only descriptors.
    """

    name: str
    direction: Literal["out", "in"]
    region: str
    size: Count
    desc: Count
    avail: Count
    used: Count
    event_idx: bool
    driver: str
    device: str
    format: Literal["split", "packed", "e1000"] = "split"


class PacketLine(Line):
    """A packet of the scenario: its number, its name, its way, its length on the wire and what it is."""

    number: Count
    name: str
    outgoing: bool
    length: Count
    what: str


class RegionLine(Line):
    """A memory region before the first step: its size, and its stretches of bytes that are not 0."""

    size: Count
    bytes: list[Stretch]


class StateLine(Line):
    """All cells and all memory before the first step; see the format's description."""

    cells: dict[str, Number | list[Run]]
    memory: dict[str, RegionLine]


class HeaderLine(Line):
    """The first line."""

    format: Literal["virtviz-trace"]
    format_version: Literal[1]
    lesson: str
    title: str
    seed: int
    world: dict[str, int | str | list[str]]
    departures: list[str]
    threads: list[ThreadLine]
    places: list[PlaceLine]
    queues: list[QueueLine]
    packets: list[PacketLine]
    rounds: Count
    state: StateLine


# The steps


class ReadLine(Line, omit_defaults=True):
    """A read of a cell or of memory; the value of a record (a descriptor, a used element) is null."""

    space: Literal["mem", "cell"]
    field: str
    addr: Count
    size: Count
    value: Content | None
    region: str = ""
    owner: str = ""


class WriteLine(Line, omit_defaults=True):
    """A write of a cell or of memory."""

    space: Literal["mem", "cell"]
    field: str
    addr: Count
    size: Count
    old: Content
    new: Content
    region: str = ""
    owner: str = ""


class CrossingLine(Line):
    """A border crossed on the way to the thread's next step."""

    kind: CrossingKind
    side: Side
    from_: Domain = named(name="from")
    to: Domain
    cause: str


class EffectLine(Line, omit_defaults=True):
    """What a primitive did beside the step's own operation."""

    kind: EffectKind
    side: Side
    cause: str
    target: str = ""
    target_kind: str = ""
    how: str = ""
    bytes: Count = 0


class StepLine(Line):
    """One step."""

    n: Annotated[int, Meta(ge=1)]
    t_ns: Count
    thread: str
    context: Literal["process", "softirq", "hardirq"]
    place: str
    domain: Domain
    op: str
    title: str
    row: str
    function: str
    source: str
    spec: str | None
    text: str
    packet: Annotated[int, Meta(ge=1)] | None
    queue: str | None
    reads: list[ReadLine]
    writes: list[WriteLine]
    crossings: list[CrossingLine]
    effects: list[EffectLine]
    milestone: str | None
    routine: str
    outcome: str
    into: str | None
    held: list[str]
    end_ns: Count


# The footer


class UserKernel(Line):
    """Crossings between user and kernel, in the guest and on the host."""

    guest: Count
    host: Count


class CountersLine(Line):
    """Every counter over all steps."""

    user_kernel: UserKernel
    guest_host: Count
    heavy_exits: Count
    light_exits: Count
    guest_syscalls: Count
    host_syscalls: Count
    wakeups: Count
    vcpu_wakeups: Count
    interrupts: Count
    hw_interrupts: Count
    host_copies: Count
    guest_copies: Count
    dma: Count
    eventfd_signals: Count
    upcalls: Count
    drops: Count


class FooterLine(Line, omit_defaults=True):
    """The last line. `truncated` is there, and true, if the run was longer than what is recorded."""

    steps: Count
    packets: Count
    counters: CountersLine
    drops: dict[str, Count]
    truncated: bool = False


class Document(Line):
    """A whole trace as one JSON document (`--format json`)."""

    header: HeaderLine
    steps: list[StepLine]
    footer: FooterLine
