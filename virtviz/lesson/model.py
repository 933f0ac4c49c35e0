"""The lesson format, version 1, as types: what a lesson file says once it has been read and checked.

These types are the format's one definition. Reading checks a file against them, and the JSON Schema that editors use,
with the descriptions that they show, is made from them (`schema.py`), so the two cannot drift apart.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec import field as named

from virtviz.paths.knobs import KNOBS

FORMAT_VERSION = 1
PACKETS_MAX = 1000
"""Packets in a scenario: as many as a trace's header lists by name."""

Id = Annotated[
    str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$", description="Lower-case letters, digits and hyphens, at most 64.")
]
Text = Annotated[str, Meta(min_length=1)]
Vcpu = Annotated[
    int,
    Meta(
        ge=0,
        le=KNOBS["queues"].high - 1,
        description="The vCPU on which the program runs; the setting `queues` says how many there are. Each has a "
        "program of its own, which does what it has to do in the order of the scenario.",
    ),
]
Level = Literal["beginner", "intermediate", "advanced"]
Kind = Literal["icmp-echo", "udp"]
SentKind = Literal["icmp-echo", "udp", "tcp"]
Ask = Literal["next-thread", "next-op", "cell", "value", "count", "order", "choice"]
KnobValue = int | str | list[str]
Payload = Annotated[int, Meta(ge=0, le=1472, description="Bytes of payload; headers come on top.")]
SentPayload = Annotated[
    int,
    Meta(
        ge=0,
        le=65000,
        description="Bytes of payload; headers come on top. At most 1472, and for `tcp` 1 to 65000.",
    ),
]
Count = Annotated[
    int,
    Meta(
        ge=1,
        le=PACKETS_MAX,
        description="How many packets like this, one after the other. The second one of `burst` is called `burst.2`.",
    ),
]


class Model(Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all parts of a lesson: immutable, and unknown keys are errors."""


class Send(Model, frozen=True):
    """The virtual machine sends a packet."""

    id: Annotated[Id, Meta(description="The packet's name, for conditions and for the screen.")]
    from_: Annotated[str, Meta(description="The virtual machine that sends.")] = named(default="vm1", name="from")
    to: Annotated[str, Meta(description="The virtual machine it is for; to a far host if left out.")] | UnsetType = (
        UNSET
    )
    kind: Annotated[
        SentKind,
        Meta(description="What kind of packet; `tcp` is data on an existing connection, handed down in one piece."),
    ] = "icmp-echo"
    bytes: SentPayload = 56
    count: Count = 1
    vcpu: Vcpu = 0
    fragments: Annotated[
        int,
        Meta(
            ge=1,
            le=16,
            description="Pieces of memory that the payload lies in; more than one need a chain or an indirect table.",
        ),
    ] = 1


class Reply(Model, frozen=True):
    """Whoever got a packet answers it, and the sender waits for the answer at this point of the scenario.

    That is the far host, or the program of the virtual machine that the packet was sent to.
    """

    to: Annotated[Id, Meta(description="The packet that is answered; for one of several, such as `burst`, the first.")]
    id: Annotated[Id, Meta(description="The answer's name; `<to>-reply` if left out.")] | UnsetType = UNSET


class Receive(Model, frozen=True):
    """A packet comes from the wire by itself."""

    id: Annotated[Id, Meta(description="The packet's name, for conditions and for the screen.")]
    to: Annotated[str, Meta(description="The virtual machine that receives.")] = "vm1"
    kind: Annotated[Kind, Meta(description="What kind of packet.")] = "udp"
    bytes: Payload = 18
    count: Count = 1
    vcpu: Vcpu = 0


class Poke(Model, frozen=True, kw_only=True):
    """A field of a ring is changed from outside, as neither driver nor device would: to show what a broken one does."""

    vm: Annotated[str, Meta(description="The virtual machine whose ring it is.")] = "vm1"
    queue: Annotated[Literal["receiveq1", "transmitq1"], Meta(description="The virtqueue.")]
    field: Annotated[
        str, Meta(description="The field, as the trace calls it: `avail.idx`, `avail.ring[0]`, `desc[3].len`, ...")
    ]
    value: Annotated[int, Meta(ge=0, le=(1 << 63) - 1, description="What it is set to; it has to fit.")]


class Link(Model, frozen=True):
    """Somebody tells QEMU that a virtual machine's link is up or down, as QMP's `set_link` does."""

    state: Annotated[Literal["up", "down"], Meta(description="What the link is from now on.")]
    vm: Annotated[str, Meta(description="The virtual machine whose link it is.")] = "vm1"


class Event(Model, frozen=True):
    """One event of the scenario: exactly one of the keys."""

    send: Send | UnsetType = UNSET
    reply: Reply | UnsetType = UNSET
    receive: Receive | UnsetType = UNSET
    pause: (
        Annotated[
            Literal["until-idle"],
            Meta(description="Nothing new begins until everything before has come to rest."),
        ]
        | UnsetType
    ) = UNSET
    poke: Poke | UnsetType = UNSET
    link: Link | UnsetType = UNSET
    reset: (
        Annotated[
            Literal["vm1"],
            Meta(description="The virtual machine takes its driver off the device, and sets the device up anew."),
        ]
        | UnsetType
    ) = UNSET

    def __post_init__(self) -> None:
        """Refuse none or several of the keys."""
        if sum(getattr(self, name) is not UNSET for name in EVENT_KEYS) != 1:
            raise ValueError(f"an event has exactly one of the keys {', '.join(EVENT_KEYS)}")


EVENT_KEYS = ("send", "reply", "receive", "pause", "poke", "link", "reset")


class When(Model, frozen=True):
    """A condition on a step: all keys that are given must match."""

    op: (
        Annotated[str, Meta(description="The step's op, as the trace calls it, such as `publish_avail_idx`.")]
        | UnsetType
    ) = UNSET
    outcome: Annotated[str, Meta(description="How the op ended, such as `kick`.")] | UnsetType = UNSET
    place: (
        Annotated[
            str, Meta(description="Whose code it is, such as `vhost_net`; of `vm1.virtio_net`, `virtio_net` will do.")
        ]
        | UnsetType
    ) = UNSET
    thread: (
        Annotated[
            str, Meta(description="The thread that takes the step, or the beginning of its name, such as `vhost`.")
        ]
        | UnsetType
    ) = UNSET
    domain: Annotated[str, Meta(description="The domain that the step is taken in.")] | UnsetType = UNSET
    queue: (
        Annotated[str, Meta(description="The virtqueue it works on; of `vm1.transmitq1`, `transmitq1` will do.")]
        | UnsetType
    ) = UNSET
    packet: (
        Annotated[str | int, Meta(description="The packet it is about, by its name in the scenario or by its number.")]
        | UnsetType
    ) = UNSET
    milestone: Annotated[str, Meta(description="The point of a packet's way that it is.")] | UnsetType = UNSET
    field: (
        Annotated[
            str, Meta(description="A field or cell that it writes, such as `avail.idx` or `transmitq1.avail.idx`.")
        ]
        | UnsetType
    ) = UNSET
    crossing: Annotated[str, Meta(description="A kind of border that it crosses.")] | UnsetType = UNSET
    effect: Annotated[str, Meta(description="A kind of effect that it has.")] | UnsetType = UNSET
    nth: Annotated[int, Meta(ge=1, description="The how manieth such step; the first one if left out.")] = 1
    any: (
        Annotated[list[When], Meta(min_length=1, description="Conditions of which at least one must match as well.")]
        | UnsetType
    ) = UNSET
    counter: (
        Annotated[
            dict[str, int | str],
            Meta(
                min_length=1,
                description='Counters and what they must be after the step: `{light_exits: ">= 2"}`, or a number.',
            ),
        ]
        | UnsetType
    ) = UNSET


class Predict(Model, frozen=True):
    """A question about what comes next. The machine computes the answer; only for `choice` the author gives it."""

    ask: Annotated[
        Ask,
        Meta(
            description="next-thread: which other thread takes a step next. "
            "next-op: what the running thread does next. cell: which field of a ring is written next. "
            "value: what `field` will hold at `until`. count: what `counter` will show at `until`. "
            "order: in which order the things under `of` happen. choice: the author gives `options` and `answer`."
        ),
    ]
    text: Annotated[Text, Meta(description="The question.")]
    options: (
        Annotated[
            list[Text],
            Meta(
                min_length=2,
                max_length=6,
                description="What can be chosen; made by the machine where left out, except for `choice`.",
            ),
        ]
        | UnsetType
    ) = UNSET
    answer: Annotated[Text, Meta(description="The right option, word for word; for `choice`.")] | UnsetType = UNSET
    field: Annotated[str, Meta(description="The field or cell whose value is asked for; for `value`.")] | UnsetType = (
        UNSET
    )
    counter: Annotated[str, Meta(description="The counter that is asked for; for `count`.")] | UnsetType = UNSET
    until: (
        Annotated[
            When | Literal["end"],
            Meta(description="The moment that is asked about, `end` for the end of the run; for `value` and `count`."),
        ]
        | UnsetType
    ) = UNSET
    of: (
        Annotated[
            dict[str, When],
            Meta(
                min_length=2,
                max_length=4,
                description="Things to put in order: their text, and when each happens; for `order`.",
            ),
        ]
        | UnsetType
    ) = UNSET
    why: Annotated[Text, Meta(description="Said after the answer, whatever it was.")] | UnsetType = UNSET


class Entry(Model, frozen=True):
    """A moment of the lesson: at a step that matches, something is said, asked, held or released."""

    id: Annotated[Id, Meta(description="The moment's name.")]
    when: When | Literal["start", "end"]
    say: Annotated[Text, Meta(description="What is said: at most three lines of 76 characters.")] | UnsetType = UNSET
    predict: Predict | UnsetType = UNSET
    hints: Annotated[list[Text], Meta(description="Hints for the question, one after the other.")] = []
    hold: (
        Annotated[str, Meta(description="A thread that must not move from here on, or the beginning of its name.")]
        | UnsetType
    ) = UNSET
    release: (
        Annotated[str, Meta(description="A held thread that may move again, named as it was held.")] | UnsetType
    ) = UNSET


class Review(Model, frozen=True):
    """A question for afterwards, with its answer."""

    q: Annotated[Text, Meta(description="The question.")]
    a: Annotated[Text, Meta(description="The answer.")]


class Lesson(Model, frozen=True, kw_only=True):
    """A virtviz lesson, format version 1."""

    format_version: Annotated[Literal[1], Meta(description="Version of the lesson format.")]
    id: Annotated[Id, Meta(description="Number and name, such as `3-vhost`; the file is called `<id>.yaml`.")]
    title: Annotated[Text, Meta(description="What the shelf of lessons shows.")]
    level: Level
    minutes: Annotated[int, Meta(ge=1, le=240, description="How long the lesson takes.")]
    objectives: Annotated[
        list[Text], Meta(min_length=1, description="What one can do after the lesson, each beginning with a verb.")
    ]
    summary: Annotated[Text, Meta(description="What the lesson is about, in a few lines.")] | UnsetType = UNSET
    world: Annotated[
        dict[str, KnobValue | dict[str, KnobValue]],
        Meta(description="Settings of the simulated machine, over a profile."),
    ] = {}
    scenario: Annotated[list[Event], Meta(min_length=1, description="What is sent and received, in order.")]
    script: Annotated[list[Entry], Meta(description="The moments of the lesson, in any order.")] = []
    review: Annotated[list[Review], Meta(description="Questions for afterwards.")] = []
    sources: Annotated[list[Text], Meta(description="Where the lesson's facts are from.")] = []
    notes: Annotated[Text, Meta(description="Notes for the speaker.")] | UnsetType = UNSET
