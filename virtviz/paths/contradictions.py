"""Settings that do not go together: which, why, and what to do instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.paths.features import CSUM, EVENT_IDX, TSO
from virtviz.spec.e1000 import DESCRIPTORS_MIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from virtviz.paths.knobs import World


def contradictions(world: World) -> Iterator[tuple[str, str]]:
    """Find combinations that do not exist: the setting to change, and a sentence with the reason and the way out."""
    for find in (
        _of_hosts,
        _of_transports,
        _of_queues,
        _of_beginnings,
        _of_shortcuts,
        _of_switches,
        _of_guests,
        _of_dpdk,
        _of_offloads,
        _of_programs,
    ):
        yield from find(world)


_ONLY_WITH_MMIO = {
    "guest": ("kernel", "DPDK's driver knows virtio devices on PCI only"),
    "queues": (1, "a device on virtio-mmio has one queue pair here"),
    "machine": ("direct", "QEMU's machine with virtio-mmio is microvm, whose line goes to the IOAPIC alone"),
    "pv_eoi": ("on", "the end of an interrupt that came by a line always has to be told"),
    "fast_mmio": ("on", "all queues share one address, so that KVM has to decode every kick and has no shortcut"),
}
"""Knob -> the only value it has with virtio-mmio, and why."""
_ONLY_AT_POWER_ON = {
    "launcher": ("hand", "a microvm is started by hand here"),
    "qemu_version": ("10.0", "a virtio-mmio device is set up as QEMU 10.0 does it"),
    "vhost_start": ("ok", "that vhost does not start is followed on PCI"),
}
"""The same from power-on."""


def _of_transports(world: World) -> Iterable[tuple[str, str]]:
    """Find what does not go together with virtio-mmio."""
    if world["transport"] != "mmio" or world["path"] == "e1000":
        return
    if world["path"] not in ("vhost-net", "virtio-qemu"):
        yield (
            "transport",
            (
                f"virtio-mmio is followed where QEMU or vhost-net serves the device, not with path={world['path']}; "
                "set path=vhost-net or path=virtio-qemu, or transport=pci"
            ),
        )
    if world["begin"] == "power-on" and world["queue.format"] == "packed":
        yield (
            "queue.format",
            "from power-on a virtio-mmio device has split rings here; set queue.format=split, or transport=pci",
        )
    more = _ONLY_AT_POWER_ON if world["begin"] == "power-on" else {}
    for name, (only, why) in (_ONLY_WITH_MMIO | more).items():
        if world[name] != only:
            yield (name, f"{why}; set {name}={only}, or transport=pci")


def _of_queues(world: World) -> Iterable[tuple[str, str]]:
    """Find combinations that do not exist, with the reason and the way out."""
    if world["path"] == "e1000":
        yield from _of_e1000(world)
        return
    if world["queue.format"] == "packed" and world["path"] == "vhost-net":
        # A back-end in a process of its own is reached by PCI only, here.
        others = "path=virtio-qemu" + (" or path=vhost-user" if world["transport"] == "pci" else "")
        yield (
            "queue.format",
            (
                "in-kernel vhost-net does not offer VIRTIO_F_RING_PACKED, so packed rings cannot be negotiated; use "
                f"split, or {others}"
            ),
        )
    elif world["queue.format"] == "packed" and world["guest"] != "kernel":
        yield (
            "queue.format",
            "the guest's DPDK has a driver of its own for packed rings, not modelled; use split, or set guest=kernel",
        )
    yield from _of_steering(world)
    size, threshold = world.number("queue.size"), world.number("tx_stop_threshold")
    if world["queue.format"] == "split" and size & (size - 1):
        yield (
            "queue.size",
            (
                f"a split ring has a power of two of descriptors, not {size}: its indices count to 65536, which no "
                "other number divides; set a power of two, or queue.format=packed"
            ),
        )
    if threshold >= size:
        yield (
            "queue.size",
            (
                f"a transmit queue of {size} descriptors would be stopped for good, because the guest stops below "
                f"{threshold} free ones; set tx_stop_threshold below {size} (real Linux cannot)"
            ),
        )
    if not world.on("ioeventfd") and world["path"] == "vhost-net":
        yield (
            "ioeventfd",
            "vhost-net is told of a kick by an eventfd and by nothing else; set path=virtio-qemu, or ioeventfd=on",
        )
    yield from _of_processors(world)
    if world.on("guest_bql") and world["guest_kernel"] == "6.1":
        yield (
            "guest_bql",
            "virtio-net has byte queue limits since Linux 6.11; set guest_bql=off with guest_kernel=6.1",
        )


def _of_steering(world: World) -> Iterable[tuple[str, str]]:
    """The same for the choice among the queues of a TAP."""
    if world["steering"] == "flow":
        return
    if world.number("queues") == 1:
        yield ("steering", "with one queue pair there is nothing to choose; set queues=2 or more, or steering=flow")
    if world["path"] not in ("vhost-net", "virtio-qemu"):
        yield (
            "steering",
            f"it is a TAP that is steered, and with path={world['path']} no TAP has several queues; set steering=flow",
        )
    if world["begin"] == "power-on":
        yield (
            "steering",
            "from power-on the driver only says how many pairs it uses; set steering=flow, or begin=running",
        )


def _of_processors(world: World) -> Iterable[tuple[str, str]]:
    """The same for what every data path runs on."""
    if world["cpu"] == "amd" and world.on("apicv"):
        yield ("apicv", "on an AMD processor posted interrupts are AVIC, which is not modelled; set apicv=off")


_NOT_OF_E1000 = {
    "transport": "an e1000 is a card on PCI, and no virtio device",
    "guest": "the program that polls, with DPDK, drives a virtio-net device",
    "ioeventfd": "a store to a register of an e1000 always has to go to QEMU",
    "features": "an e1000 is no virtio device, and agrees on no features",
    "queue.format": "the rings of an e1000 have a form of their own",
    "queue.start": "the rings of an e1000 are counted by slots, from 0, and have no indices that run on",
    "queues": "an e1000 has one ring for each direction",
    "steering": "an e1000 has one receive ring, so that there is nothing to choose",
    "rx_buffer": "Linux gives an e1000 receive buffers of 2048 bytes",
    "napi_tx": "the e1000 driver frees sent packets in its one NAPI poll, always",
    "tx_stop_threshold": "the e1000 driver stops below 24 free descriptors",
    "guest_bql": "the e1000 driver has used byte queue limits in every kernel here",
    "tx_batch": "QEMU sends the frames of an e1000 one by one",
    "weight": "QEMU sends all that is in the ring of an e1000, without giving way",
    "device_checks": "the rings of an e1000 are no virtqueues, and nobody checks them",
    "pv_eoi": "the end of an interrupt that comes from the IOAPIC always has to be told",
    "fast_mmio": "a store to a register of an e1000 has no eventfd to find",
    "device": "an e1000 sends and receives Ethernet frames, which only a TAP carries",
}
"""Knob of virtio-net or vhost-net -> why it means nothing for an e1000."""


def _of_e1000(world: World) -> Iterable[tuple[str, str]]:
    """Find settings that are about virtio: whoever sets one for an e1000 expects what will not happen."""
    for name, why in _NOT_OF_E1000.items():
        usual = world.usual(name)
        if world[name] != usual:
            usual = ",".join(sorted(usual)) if isinstance(usual, frozenset) else usual
            yield (name, f"{why}; leave {name} at {usual}, or set path=vhost-net or path=virtio-qemu")
    size = world.number("queue.size")
    if size < DESCRIPTORS_MIN:
        yield (
            "queue.size",
            (
                f"a ring of an e1000 has at least 48 descriptors on Linux, so {DESCRIPTORS_MIN} as a power of two; set "
                f"queue.size={DESCRIPTORS_MIN} or more"
            ),
        )
    yield from _of_processors(world)


def _of_shortcuts(world: World) -> Iterable[tuple[str, str]]:
    """The same for what spares exits and wake-ups."""
    if world.number("busy_poll_us") and world["path"] != "vhost-net":
        yield ("busy_poll_us", "it is vhost-net's worker that polls; set path=vhost-net, or busy_poll_us=0")
    if world.number("halt_poll_ns") and world["vcpu"] == "running":
        yield ("halt_poll_ns", "a vCPU that never halts is never polled for; set vcpu=halted, or halt_poll_ns=0")
    if world["sndbuf"] == "limited" and world["path"] != "vhost-net":
        yield ("sndbuf", "QEMU's own back-end sends each packet by itself anyway; set path=vhost-net, or unlimited")
    if world["sndbuf"] == "limited" and world.number("queues") > 1:
        yield ("sndbuf", "a limited send buffer goes together with one queue pair only; set queues=1, or unlimited")
    if world["sndbuf"] == "limited" and world.number("busy_poll_us"):
        yield ("sndbuf", "a vhost-net that polls and cannot batch is not there yet; set busy_poll_us=0, or unlimited")
    if not world.on("pv_eoi") and world.on("apicv"):
        yield ("pv_eoi", "with APICv an interrupt is ended without an exit anyway; set apicv=off, or pv_eoi=on")
    if not world.on("fast_mmio") and world["cpu"] == "amd":
        yield ("fast_mmio", "on an AMD processor KVM decodes every store; set cpu=intel, or fast_mmio=on")
    if not world.on("fast_mmio") and not world.on("ioeventfd"):
        yield ("fast_mmio", "without ioeventfds there is no eventfd to find; set ioeventfd=on, or fast_mmio=on")


def _of_beginnings(world: World) -> Iterable[tuple[str, str]]:
    """The same for where a run begins."""
    if world["begin"] == "running":
        if world.on("refuse_features"):
            yield ("refuse_features", "features are negotiated after power-on; set begin=power-on as well")
        if world["vhost_start"] != "ok":
            yield ("vhost_start", "vhost is started after power-on; set begin=power-on as well")
        return
    yield from _of_vhost_start(world)
    yield from _of_power_on(world)


def _of_power_on(world: World) -> Iterable[tuple[str, str]]:
    """The same for what cannot be followed from power-on."""
    if world["path"] in ("e1000", "program"):
        yield (
            "begin",
            "from power-on the paths of a virtio device can be followed; set path=vhost-net, or begin=running",
        )
    if world["path"] == "vhost-user" and world["launcher"] == "libvirt":
        yield ("launcher", "with path=vhost-user there is no TAP that libvirt would make; set launcher=hand")
    if world["guest"] != "kernel":
        yield ("begin", "from power-on the kernel's own driver can be followed; set guest=kernel, or begin=running")
    if world.number("vms") > 1:
        yield ("begin", "one virtual machine at a time can be followed from power-on; set vms=1, or begin=running")
    if world.number("queue.start"):
        yield ("queue.start", "a ring that has just been made begins at 0; set queue.start=0, or begin=running")
    if not world.on("ioeventfd"):
        yield ("ioeventfd", "from power-on kicks are tied to eventfds; set ioeventfd=on, or begin=running")


def _of_vhost_start(world: World) -> Iterable[tuple[str, str]]:
    """The same for what becomes of vhost."""
    if world["vhost_start"] != "ok" and world["path"] not in ("vhost-net", "vhost-user"):
        yield (
            "vhost_start",
            "only path=vhost-net and path=vhost-user start vhost; set vhost_start=ok, or one of these paths",
        )
    if world["vhost_start"] != "ok" and world["path"] == "vhost-user":
        yield from _of_fallback(world)
    if world["vhost_start"] == "missing" and world["launcher"] == "hand":
        yield (
            "vhost_start",
            (
                "QEMU that is told vhost=on by hand, and finds no /dev/vhost-net, does not start at all; set "
                "launcher=libvirt, which then asks for no vhost"
            ),
        )


def _of_fallback(world: World) -> Iterable[tuple[str, str]]:
    """The same where it is a vhost-user back-end that does not start."""
    if world["vhost_start"] == "missing":
        yield (
            "vhost_start",
            "vhost-user needs no /dev/vhost-net that could be missing; set vhost_start=fails, or path=vhost-net",
        )
    for name, only in (("queues", 1), ("queue.format", "split")):
        if world[name] != only:
            yield (
                name,
                (
                    "a vhost-user back-end that does not start has one pair of split rings here, as the recorded one; "
                    f"set {name}={only}, or vhost_start=ok"
                ),
            )


def _of_switches(world: World) -> Iterable[tuple[str, str]]:
    """The same for what connects the virtual machines."""
    if world["device"] == "tun" and world["path"] != "program":
        yield (
            "device",
            (
                "a TUN carries IP packets without an Ethernet header, and a virtual network card sends and expects "
                "whole frames: the kernel would take the first byte of one for an IP version and refuse it, and a "
                "bridge takes no TUN as a port; set device=tap, or path=program, where a program holds the TUN"
            ),
        )
    if world["tunnel"] != "none" and world["switch"] == "bridge":
        yield (
            "tunnel",
            (
                "a bridge's tunnel device decides by a table of its own where frames go, which is not modelled; set "
                "switch=ovs, or tunnel=none"
            ),
        )


def _of_guests(world: World) -> Iterable[tuple[str, str]]:
    """The same for a guest whose program polls."""
    if world["guest"] == "dpdk" and world.has(EVENT_IDX):
        yield ("features", "DPDK's virtio driver does not negotiate event_idx; set features=indirect,mergeable")
    if world["guest"] == "dpdk" and world["vcpu"] == "halted":
        yield ("vcpu", "a guest whose program polls is never idle, so its vCPU never halts; set vcpu=running")
    if world["guest"] == "dpdk" and world.number("queues") > 1:
        yield ("queues", "a guest whose program polls has one queue pair here, for one CPU; set queues=1")


def _of_dpdk(world: World) -> Iterable[tuple[str, str]]:
    """The same for vhost-user, whose other end is OVS-DPDK and nothing else."""
    by_socket, by_pmd = world["path"] == "vhost-user", world["switch"] == "ovs-dpdk"
    if by_socket and not by_pmd:
        yield (
            "switch",
            f"a vhost-user port is a port of OVS-DPDK, not of {world['switch']}; set switch=ovs-dpdk, or leave it out",
        )
    if by_pmd and not by_socket:
        yield ("switch", f"OVS-DPDK's ports are no TAPs, which path={world['path']} needs; set path=vhost-user")
    if by_socket and not world.on("ioeventfd"):
        yield (
            "ioeventfd",
            "QEMU hands a vhost-user device its kicks as eventfds only; set path=virtio-qemu, or ioeventfd=on",
        )
    if by_pmd and world["tunnel"] != "none":
        yield ("tunnel", "OVS-DPDK's own way of tunnelling, in its polling thread, is not modelled; set tunnel=none")
    if by_pmd and world["far_port"] != "nic":
        yield ("far_port", "the thread of OVS-DPDK drives a network card here, and no other device; set far_port=nic")
    if by_pmd and world.on("store_buffer") and world.number("vms") > world.number("hosts"):
        yield (
            "store_buffer",
            "one CPU polls both guests here, and its store buffer would be before two memories; set vms=1",
        )


def _of_offloads(world: World) -> Iterable[tuple[str, str]]:
    """The same for what the guest leaves to its device."""
    if world.has(TSO) and not world.has(CSUM):
        yield (
            "features",
            "tso needs csum: each frame that is cut off needs a checksum (virtio 5.1.3.1); set features=csum,tso",
        )
    if not (world.has(CSUM) or world.has(TSO)):
        return
    for wrong, who in (
        (world["guest"] != "kernel", "a guest with DPDK"),
        (world["path"] not in ("vhost-net", "virtio-qemu"), f"path={world['path']}"),
        (world["tunnel"] != "none", f"tunnel={world['tunnel']}"),
        (world["queue.format"] != "split", "a packed ring"),
    ):
        if wrong:
            yield ("features", f"csum and tso are not modelled for {who}; leave them out of features")


def _of_programs(world: World) -> Iterable[tuple[str, str]]:
    """The same for a program of the host in the place of a virtual machine."""
    if world["path"] != "program":
        return
    why = "with path=program there is no virtual machine"
    for knob, only in (("guest", "kernel"), ("vms", 1), ("queues", 1), ("store_buffer", "off")):
        if world[knob] != only:
            yield (knob, f"{why}, and a program has one descriptor and one thread here; set {knob}={only}")
    if world["far_port"] != "nic":
        yield ("far_port", f"{why}, and what the program sends leaves by a network card here; set far_port=nic")
    if world["tunnel"] != "none":
        yield ("tunnel", f"{why}, and a tunnel below a program's device is not modelled; set tunnel=none")


_ON_TWO_HOSTS = {
    "begin": ("running", "one host at a time can be followed from power-on"),
    "far_port": ("nic", "the hosts are joined by their network cards"),
    "device": ("tap", "it is virtual machines that two hosts have here"),
}
"""Knob -> the only value it has with two hosts, and why."""


def _of_hosts(world: World) -> Iterable[tuple[str, str]]:
    """The same for two hosts."""
    if world.number("hosts") == 1:
        return
    if world.number("vms") == 1:
        yield ("vms", "each of two hosts has one virtual machine; set vms=2, or hosts=1")
    if world["path"] == "program":
        yield ("path", "it is virtual machines that two hosts have here; set path=vhost-net, or hosts=1")
    for name, (only, why) in _ON_TWO_HOSTS.items():
        if world[name] != only:
            yield (name, f"{why}; set {name}={only}, or hosts=1")
    if world.has(CSUM) or world.has(TSO):
        yield ("features", "csum and tso are followed on one host; leave them out of features, or set hosts=1")
