"""Putting three programs together that share an eventfd, beside whatever else a world has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.places import Domain, Place
from virtviz.paths.setup import eventfd_object as efd

if TYPE_CHECKING:
    from virtviz.paths.parts import Parts

PROGRAMS = Place("programs", Domain.HOST_USER, "programs")
OBJECT = Place("eventfd_object", Domain.HOST_KERNEL, "an eventfd")


def add_eventfd_programs(parts: Parts) -> None:
    """Make the programs, of the kind that the knob `eventfd_programs` names."""
    kind = parts.world["eventfd_programs"]
    mine = parts.state.add(efd.ObjectCells, "programs.eventfd")
    reader, poller, writer = (parts.thread(f"{name}", cpu=0) for name in ("reader", "poller", "writer"))
    read = efd.EventfdRead("programs.read", OBJECT, mine, is_semaphore=kind == "semaphore")
    reader.start = efd.Reader("programs.reader", PROGRAMS, mine, read, sum(efd.WRITES))
    poller.start = efd.Poller("programs.poller", PROGRAMS, mine, efd.EventfdPoll("programs.poll", OBJECT, mine))
    write = efd.EventfdWrite("programs.write", OBJECT, mine, reader, poller)
    writer.start = efd.Writer("programs.writer", PROGRAMS, mine, write)
