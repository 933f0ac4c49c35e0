"""The lesson format, version 1, as types: what a lesson file says once it has been read and checked.

The JSON Schema that editors use comes from these same types, so the two cannot drift apart.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec import field as named

FORMAT_VERSION = 1

Id = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]*$", description="Lower-case letters, digits and hyphens.")]
Text = Annotated[str, Meta(min_length=1)]
Level = Literal["beginner", "intermediate", "advanced"]
Kind = Literal["icmp-echo", "udp"]
Ask = Literal["next-thread", "next-op", "cell", "value", "count", "order", "choice"]
KnobValue = int | str | list[str]


class Model(Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all parts of a lesson: immutable, and unknown keys are errors."""


class Send(Model):
    """The virtual machine sends a packet."""

    id: Id
    from_: str = named(default="vm1", name="from")
    kind: Kind = "icmp-echo"
    bytes: Annotated[int, Meta(ge=0, le=1472)] = 56
    count: Annotated[int, Meta(ge=1, le=4096)] = 1
    fragments: Annotated[int, Meta(ge=1, le=16)] = 1


class Reply(Model):
    """The far host answers a packet, and the sender waits for the answer."""

    to: Id
    id: Id | UnsetType = UNSET


class Receive(Model):
    """A packet comes from the wire by itself."""

    id: Id
    to: str = "vm1"
    kind: Kind = "udp"
    bytes: Annotated[int, Meta(ge=0, le=1472)] = 18
    count: Annotated[int, Meta(ge=1, le=4096)] = 1


class Event(Model):
    """One event of the scenario: exactly one of the keys."""

    send: Send | UnsetType = UNSET
    reply: Reply | UnsetType = UNSET
    receive: Receive | UnsetType = UNSET
    pause: Literal["until-idle"] | UnsetType = UNSET


class When(Model):
    """A condition on a step: all keys that are given must match.

    Attributes:
        op, place, thread, domain, queue, packet, milestone: as in the trace. A thread may be named by its beginning (`vhost`), a packet
            by its name in the scenario, a place, queue or thread of a virtual machine without the machine's name.
        field: a field that the step writes, such as `avail.idx`.
        crossing, effect: the kind of a crossing or effect of the step.
        outcome: how the op ended.
        nth: the how manieth such step, from 1; 1 if not given.
        any: conditions of which one must match too.
        counter: counter -> comparison, such as `">= 2"`.
    """

    op: str | UnsetType = UNSET
    outcome: str | UnsetType = UNSET
    place: str | UnsetType = UNSET
    thread: str | UnsetType = UNSET
    domain: str | UnsetType = UNSET
    queue: str | UnsetType = UNSET
    packet: str | int | UnsetType = UNSET
    milestone: str | UnsetType = UNSET
    field: str | UnsetType = UNSET
    crossing: str | UnsetType = UNSET
    effect: str | UnsetType = UNSET
    nth: Annotated[int, Meta(ge=1)] = 1
    any: list[When] | UnsetType = UNSET
    counter: dict[str, str] | UnsetType = UNSET


class Predict(Model):
    """A question whose answer the machine computes.

    Attributes:
        ask: what kind of question. `next-thread`: which thread takes the next step of another thread than now; `next-op`: which op the
            running thread does next; `cell`: which field is written next; `value`: what a field will hold; `count`: what a counter will
            be; `order`: in which order things happen; `choice`: the author gives the answer.
        text: the question.
        options: what can be chosen; needed for `choice` and `order`, otherwise made from the machine where left out.
        answer: the right option's text; for `choice` only.
        field: for `value`: the field; for `cell`: nothing.
        counter: for `count`: the counter.
        until: for `value` and `count`: the moment at which it is looked at; for `order`: nothing.
        of: for `order`: option text -> the condition that says when it happens.
        why: said after the answer.
    """

    ask: Ask
    text: Text
    options: list[Text] | UnsetType = UNSET
    answer: Text | UnsetType = UNSET
    field: str | UnsetType = UNSET
    counter: str | UnsetType = UNSET
    until: When | UnsetType = UNSET
    of: dict[str, When] | UnsetType = UNSET
    why: Text | UnsetType = UNSET


class Entry(Model):
    """A moment of the lesson: when a step matches, something is said, asked, held or released."""

    id: Id
    when: When | Literal["start", "end"]
    say: Text | UnsetType = UNSET
    predict: Predict | UnsetType = UNSET
    hints: list[Text] = []
    hold: str | UnsetType = UNSET
    release: str | UnsetType = UNSET


class Review(Model):
    """A question for afterwards, with its answer."""

    q: Text
    a: Text


class Lesson(Model, kw_only=True):
    """A whole lesson file."""

    format_version: Literal[1]
    id: Id
    title: Text
    level: Level
    minutes: Annotated[int, Meta(ge=1, le=240)]
    objectives: Annotated[list[Text], Meta(min_length=1)]
    summary: Text | UnsetType = UNSET
    world: dict[str, KnobValue | dict[str, KnobValue]] = {}
    scenario: Annotated[list[Event], Meta(min_length=1)]
    script: list[Entry] = []
    review: list[Review] = []
    sources: list[Text] = []
    notes: Text | UnsetType = UNSET
