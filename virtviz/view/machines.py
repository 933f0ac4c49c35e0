"""Which virtual machine a thread, a place or a queue belongs to; their names say so, or the order they come in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from virtviz.paths.describe import Header

_BACKEND: Final = re.compile(r"[a-z]+-\d+")
"""A thread that serves a virtual machine, by the number of the process it is from: `vhost-4002`."""


def machines_of(header: Header) -> tuple[str, ...]:
    """Name the virtual machines of a world, in order."""
    return tuple(dict.fromkeys(queue.name.partition(".")[0] for queue in header.queues)) or ("vm1",)


def machine_of(name: str, machines: tuple[str, ...]) -> str:
    """Give the machine in front of a name, such as `vm1` of `vm1.app`; empty for what belongs to none."""
    first = name.partition(".")[0]
    return first if first in machines else ""


def thread_machines(header: Header) -> dict[str, str]:
    """Give for each thread that belongs to a machine, or serves one alone, that machine.

    Back-ends come in the order of their machines.
    """
    machines = machines_of(header)
    names = [thread.name for thread in header.threads]
    served = dict(zip((name for name in names if _BACKEND.fullmatch(name)), machines, strict=False))
    found = {name: machine_of(name, machines) or served.get(name.partition(".")[0], "") for name in names}
    return {name: machine for name, machine in found.items() if machine}
