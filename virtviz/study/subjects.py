"""What is compared: worlds, each named as a person names it, and the frames that go through all of them.

A world is written as the name of a data path (`virtio-qemu`), as settings (`path=virtio-qemu,ioeventfd=off`), or as a
data path and then settings (`virtio-qemu,ioeventfd=off`). All of them lie over what is common to the worlds: a lesson's
world and scenario, or, without a lesson, one echo request that leaves a virtual machine and the answer that comes in,
in a network whose switch knows the flows already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from virtviz.errors import KnobError
from virtviz.lesson.build import build, flat
from virtviz.paths.knobs import KNOBS, make_world
from virtviz.paths.traffic import Event, Item, Pause, make_traffic, to_other_host

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.lesson.model import Lesson
    from virtviz.paths.knobs import World
    from virtviz.paths.traffic import Traffic

Settings = dict[str, str]

ECHO: Final = (Item("echo"), Item("reply", outgoing=False, answers=0))
"""What is sent where nothing else is said: one packet out, and its answer in."""
FLOWS_KNOWN: Final[Settings] = {"flows": "known"}
"""What is common to the worlds where nothing else is said: the first packet of a flow is a matter of its own."""
BURST_BYTES: Final = 18
"""Payload of the packets of a burst, which makes the shortest frame there is: 60 bytes."""
BURST_MAX: Final = 10_000


class Subject(Struct, frozen=True):
    """A world to be compared: what the person called it, and its settings."""

    name: str
    settings: Settings


class Frames(Struct, frozen=True):
    """What goes through the worlds.

    Attributes:
        lesson: the lesson whose world and scenario are used; None for an echo and its answer, or for a burst.
        packets: repeat the scenario until there are at least so many packets; 0 to leave it as it is.
        burst: instead of a scenario, so many UDP packets sent one right after the other; 0 for none.
    """

    lesson: Lesson | None = None
    packets: int = 0
    burst: int = 0


def read_subject(text: str) -> Subject:
    """Read a world as it is given on the command line.

    Raises:
        KnobError: it is neither a data path nor settings; the message says what there is.
    """
    settings: Settings = {}
    last = ""
    for number, piece in enumerate(text.split(",")):
        name, equals, value = (part.strip() for part in piece.partition("="))
        if equals and name:
            settings[name] = value
            last = name
        elif last and not equals and KNOBS.get(last) is not None and KNOBS[last].members:
            # A set of words is written with commas too: features=event_idx,indirect
            settings[last] += f",{name}"
        elif number == 0 and name in KNOBS["path"].choices:
            settings["path"] = name
        else:
            paths = ", ".join(KNOBS["path"].choices)
            raise KnobError(
                name,
                f"{piece.strip()[:40]!r} in {text[:60]!r} is neither a data path ({paths}) nor a setting; "
                "write such as vhost-net, or path=virtio-qemu,ioeventfd=off",
            )
    return Subject(text.strip(), settings)


def world_and_traffic(
    frames: Frames, common: Sequence[Mapping[str, object]], settings: Mapping[str, object]
) -> tuple[World, Traffic]:
    """Make a subject's world, and what is sent in it.

    Args:
        frames: what is sent.
        common: settings of all worlds, later ones over earlier ones.
        settings: the subject's own, over all of them.

    Raises:
        KnobError: a setting is unknown, out of range, or not allowed together with another.
    """
    if frames.lesson is not None and not frames.burst:
        return build(frames.lesson, [*common, settings], packets=frames.packets or None)
    base = [dict(FLOWS_KNOWN)] if frames.lesson is None else [dict(flat(frames.lesson.world))]
    world = make_world(*base, *common, settings)
    if not frames.burst:
        events: list[Event] = list(ECHO)
    elif frames.burst > BURST_MAX:
        raise KnobError("burst", f"burst is a whole number from 1 to {BURST_MAX}, not {frames.burst}")
    else:
        events = [Item(kind="udp", length=BURST_BYTES)] * frames.burst
        # The next burst begins when everything has come to rest.
        events.append(Pause())
    if world.number("hosts") > 1:
        events = to_other_host(events)
    rounds = max(1, -(-frames.packets // sum(isinstance(event, Item) for event in events)))
    return world, make_traffic(events, rounds, world.number("vms"))
