"""Which virtual machine a thread, a place or a queue belongs to; their names say so, or the order they come in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from virtviz.paths.hosts import host_of

if TYPE_CHECKING:
    from virtviz.paths.describe import Header

_BACKEND: Final = re.compile(r"[a-z]+-\d+")
"""What a thread that serves a virtual machine is named by, with the number of the process it is from: `vhost-4002`. If
there are several, each has the number of its queue pair behind that: `vhost-4002.q2`."""


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
    processes = dict.fromkeys(first for name in names if _BACKEND.fullmatch(first := name.partition(".")[0]))
    served = dict(zip(processes, machines, strict=False))
    found = {name: machine_of(name, machines) or served.get(name.partition(".")[0], "") for name in names}
    if hosts_of(header) > 1:
        # What is on a host of its own serves one machine alone.
        found = {name: machine or machines[host_of(name) - 1] for name, machine in found.items()}
    return {name: machine for name, machine in found.items() if machine}


def hosts_of(header: Header) -> int:
    """Say how many hosts there are."""
    return int(str(header.world.get("hosts", 1)))


def pool_of(queue: str, pool: str) -> str:
    """Name the packet memory of a queue's pair: `vm1.skb` of `vm1.transmitq1`, `vm1.vcpu1.skb` of `vm1.transmitq2`.

    Args:
        queue: a virtqueue.
        pool: `skb` or `rx_buffers`.
    """
    machine, _, short = queue.partition(".")
    pair = int(short.rpartition("q")[2]) - 1
    return f"{machine}.vcpu{pair}.{pool}" if pair else f"{machine}.{pool}"
