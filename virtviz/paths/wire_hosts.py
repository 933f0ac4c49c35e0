"""Putting two hosts together: each a whole one, with a virtual machine of its own, and a cable between their cards.

The second host is made of the same parts as the first. Of what every host has one, its name has `host2.` in front, and
its places are other ones than the first host's: a packet goes through both kernels, both switches, both cards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from virtviz.engine.places import Place
from virtviz.engine.program import reachable
from virtviz.errors import KnobError
from virtviz.paths.cable import CableEnd
from virtviz.spec.tunnels import OUTER_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from virtviz.engine.threads import Thread
    from virtviz.paths.host_net import Wire
    from virtviz.paths.parts import Parts
    from virtviz.paths.traffic import Traffic

M = TypeVar("M")
B = TypeVar("B")


def make_hosts(
    parts: Parts, make: Callable[[Parts, int], tuple[M, B]], join: Callable[[Parts, Sequence[B]], Wire]
) -> tuple[list[tuple[M, B]], Wire]:
    """Make both hosts, each with a virtual machine, and join them; answers the machines, and what a run waits for.

    Args:
        parts: the world in the making, as the first host sees it.
        make: makes a virtual machine and what serves its card, by its number.
        join: makes a host's switch with what is behind it.

    Raises:
        KnobError: a frame of the scenario comes from neither machine.
    """
    _check(parts.traffic)
    hosts = [parts, parts.on_second_host()]
    headers = 0 if parts.world["tunnel"] == "none" else OUTER_BYTES
    ends = [CableEnd(parts.state, host.called("wire"), parts.traffic, headers) for host in hosts]
    ends[0].other, ends[1].other = ends[1], ends[0]
    made = []
    for number, (host, end) in enumerate(zip(hosts, ends, strict=True)):
        host.cable = end
        before = len(parts.threads)
        machine, backend = make(host, number)
        join(host, [backend])
        made.append((machine, backend))
        if host.scope:
            move(parts.threads[before:], host.scope)
    return made, ends[0]


def _check(traffic: Traffic) -> None:
    for number, item in enumerate(traffic.items, 1):
        if not item.outgoing:
            raise KnobError(
                "hosts",
                f"frame {item.id or number} comes from neither virtual machine, and with two hosts nobody else is on "
                "the cable; set hosts=1, or let a virtual machine send it",
            )


def move(threads: Sequence[Thread], scope: str) -> None:
    """Put everything that threads do on a host into places of that host.

    Args:
        threads: the threads of the host.
        scope: what stands before the names of its places.
    """
    moved: dict[Place, Place] = {}
    for routine in reachable(threads):
        held = vars(routine)
        for attribute, value in held.items():
            if isinstance(value, Place) and not value.domain.is_guest:
                held[attribute] = moved.setdefault(value, _on(value, scope))


def _on(place: Place, scope: str) -> Place:
    """Give a place of another host; one that is named by its host already stays."""
    return place if place.name.startswith(scope) else replace(place, name=f"{scope}{place.name}")
