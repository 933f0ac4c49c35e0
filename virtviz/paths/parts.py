"""What every part of a world is made with: settings, state, the threads so far, the host's packet memory."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Final

from virtviz.engine.places import Domain, Place, Role
from virtviz.engine.state import State
from virtviz.engine.store_buffer import DrainStores, StoreBuffer
from virtviz.engine.threads import Thread, ThreadKind
from virtviz.paths.context import Context, WatchedContext
from virtviz.paths.features import TSO
from virtviz.paths.hosts import SCOPE, SECOND
from virtviz.paths.offloads import SEGMENTS_MAX, OffloadPool, slot_bytes_for
from virtviz.paths.ovs import UPCALLS_MAX
from virtviz.paths.packets import HeadroomPool, PacketPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from virtviz.engine.memory import Port, Region
    from virtviz.paths.cable import CableEnd
    from virtviz.paths.host_net import Backlog
    from virtviz.paths.knobs import World
    from virtviz.paths.traffic import Traffic

HOST_SLOT_BYTES = 2048

KVM = Place("kvm", Domain.HOST_KERNEL, "KVM", Role.HYPERVISOR)
KVM_VM = Place("kvm.vm", Domain.HOST_KERNEL, "KVM")
"""KVM as a program calls it by its VM's descriptor: not the place where a guest is entered."""
QEMU = Place("qemu", Domain.HOST_USER, "QEMU")
QEMU_VCPU = Place("qemu.vcpu", Domain.HOST_USER, "QEMU's vCPU thread", Role.VCPU_USER)
FDS = Place("eventfd", Domain.HOST_KERNEL, "eventfds")
CALLFD = Place("callfd", Domain.HOST_KERNEL, "call eventfds")
"""The eventfds by which a back-end that is not QEMU's main loop wants the guest to be interrupted."""
VHOST_NET = Place("vhost_net", Domain.HOST_KERNEL, "vhost-net")
OVS = Place("ovs", Domain.HOST_KERNEL, "OVS datapath")
BRIDGE = Place("bridge", Domain.HOST_KERNEL, "Linux bridge")
HOST_IP = Place("host_ip", Domain.HOST_KERNEL, "host IP")
HOST_STACK = Place("host_stack", Domain.HOST_KERNEL, "host stack")
NETLINK = Place("netlink", Domain.HOST_KERNEL, "netlink")
VSWITCHD = Place("vswitchd", Domain.HOST_USER, "ovs-vswitchd")
SLOTS_OF_A_PACKET: Final = 16
"""Slots of the host's packet memory for each packet, where there are few packets: many times what the copies of one
packet need. A lesson of a few packets is opened far more quickly with a few hundred slots than with thousands."""


def tap_place(name: str) -> Place:
    """Give the place that a TAP of that name is."""
    return Place(name, Domain.HOST_KERNEL, "TAP")


class Parts:
    """A world in the making.

    Args:
        world, traffic: checked settings, and what is sent.
        recording: the state journals.
        observed: what only people need is noted too.

    Attributes:
        threads: in the order in which they were made, which is the order of their numbers.
        cpus: for each thread, the number of the CPU it runs on.
        backlogs: for each thread, the frames it has raised a softirq for; None where it raises none.
        drops: name of each drop counter -> reads it.
        pools: packet memories by the name of their owner.
        host_pool: the host's packet memory.
        restless: say whether somebody polls, who will stop in a while; no pause ends before that.
        scope: what stands before the names of what each host has; nothing before those of the first.
        first_vm: number of the host's first virtual machine, from 0.
        cable: the end of the cable to the other host that is in this one's network card; None where there is none.
    """

    scope = ""
    first_vm = 0
    cable: CableEnd | None = None

    def __init__(self, world: World, traffic: Traffic, *, recording: bool, observed: bool) -> None:
        self.world = world
        self.traffic = traffic
        self.observed = observed
        self.state = State(recording=recording)
        self.threads: list[Thread] = []
        self.cpus: list[int] = []
        self.backlogs: list[Backlog | None] = []
        self.drops: dict[str, Callable[[], int]] = {}
        self.pools: dict[str, PacketPool] = {}
        self.restless: list[Callable[[], bool]] = []
        self.host_pool = self.make_pool()

    def on_second_host(self) -> Parts:
        """Give the same world in the making as the second host's parts see it: its names and packet memory differ."""
        other = copy(self)
        other.scope, other.first_vm = SCOPE, SECOND - 1
        other.host_pool = other.make_pool()
        return other

    def called(self, name: str) -> str:
        """Give the name that something has of which every host has one."""
        return f"{self.scope}{name}"

    def make_pool(self) -> PacketPool:
        """Make the host's packet memory."""
        world, traffic = self.world, self.traffic
        # Large enough that every queue can be full at once, or that everything that is ever sent is under way.
        more = world.number("queues") - 1
        full = world.number("txqueuelen") + 3 * world.number("nic_ring") + 2 * 1000 + 64 * 8 + UPCALLS_MAX
        full += more * (world.number("txqueuelen") + 64 * 8)
        # A ring changed from outside can offer one frame many times.
        slots = full if traffic.pokes else min(full, SLOTS_OF_A_PACKET * traffic.packets)
        slot_bytes = HOST_SLOT_BYTES
        # A tunnel, and a host that routes, put headers in front of packets.
        pool_class = PacketPool if world["tunnel"] == "none" and world["device"] == "tap" else HeadroomPool
        if traffic.longest_tcp:
            slots = min(full, slots + SEGMENTS_MAX * traffic.packets)
            slot_bytes, pool_class = slot_bytes_for(traffic) if world.has(TSO) else HOST_SLOT_BYTES, OffloadPool
        name = self.called("host")
        memory = self.state.region(f"{name}.skb", slots * slot_bytes)
        made = self.pools[name] = pool_class(self.state, f"{name}.pool", memory, 0, slots, slot_bytes)
        return made

    def thread(self, name: str, cpu: int, kind: str = ThreadKind.HOST) -> Thread:
        """Make a thread; its first routine is set when there is one."""
        me = self.state.add(WatchedContext if self.observed else Context, name, index=len(self.threads))
        made = Thread(name, me, start=None, kind=kind)  # type: ignore[arg-type]
        self.threads.append(made)
        self.cpus.append(cpu)
        self.backlogs.append(None)
        return made

    def port(self, thread: Thread, region: Region) -> Port:
        """Give the way by which a thread's CPU reaches memory: directly, or through a store buffer of its own.

        A store buffer's draining is a thread, made right here.
        """
        if not self.world.on("store_buffer"):
            return region
        name = f"{thread.name}.stores"
        thread.stores = StoreBuffer(self.state, f"{thread.name}.store_buffer", region, thread.me)
        drain = self.thread(name, self.cpus[thread.me.index], ThreadKind.HARDWARE)
        thread.partner, drain.partner = drain.me.index, thread.me.index
        place = Place(name, Domain.HARDWARE, f"{thread.name}'s store buffer")
        drain.start = DrainStores(f"{name}.drain", place, thread.stores, thread.name)
        return thread.stores
