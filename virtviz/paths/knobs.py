"""The settings of a simulated world: their names, what they do, what they may be, and which go together.

A world is a set of values for all knobs: a profile, then what a lesson's `world:` says, then what `--set` says. Values
are checked here once; everything below reads them from `World` and checks nothing again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from virtviz.errors import KnobError
from virtviz.paths.costs import BASE, ENDING, load_costs, profile_names
from virtviz.spec.e1000 import DESCRIPTORS_MIN
from virtviz.spec.tunnels import VNI_MAX

Value = int | str | frozenset[str]


class Knob(Struct, frozen=True):
    """One setting.

    Attributes:
        name: dotted, as in `--set queue.size=128`.
        default: its value in the profile `default`.
        what: one sentence for the person who sets it.
        choices: the words it may be; empty for a number or a set.
        low, high: the range of a number.
        power_of_two: a number must be one.
        members: the words a set may contain; makes it a set.
        recorded: its value in the profile `recorded`; None if the same.
        ending: instead of one of the words, it may be the path of a file that ends so; empty if it may not.
        follows: another knob, a value of it, and what this knob then is unless it was set itself.
    """

    name: str
    default: Value
    what: str
    choices: tuple[str, ...] = ()
    low: int = 0
    high: int = 0
    power_of_two: bool = False
    members: tuple[str, ...] = ()
    recorded: Value | None = None
    ending: str = ""
    follows: tuple[tuple[str, str, Value], ...] = ()

    def allowed(self) -> str:
        """Say in words what the knob may be."""
        if self.choices:
            file = f", or the path of a {self.ending} file" if self.ending else ""
            return "one of " + ", ".join(self.choices) + file
        if self.members:
            return "any of " + ", ".join(self.members) + ", separated by commas, or none"
        power = "a power of two " if self.power_of_two else "a whole number "
        return f"{power}from {self.low} to {self.high}"

    def parse(self, text: object) -> Value:
        """Check a value given as text, number or list.

        Raises:
            KnobError: it is not what the knob may be.
        """
        value = self._parsed(text)
        if value is None:
            raise KnobError(self.name, f"{self.name} is {self.allowed()}, not {_shown(text)}")
        return value

    def _parsed(self, text: object) -> Value | None:
        if self.members:
            words = text if isinstance(text, list | tuple | frozenset) else str(text).split(",")
            found = frozenset(str(word).strip() for word in words) - {"", "none"}
            return found if found <= set(self.members) else None
        if self.choices:
            is_file = bool(self.ending) and str(text).endswith(self.ending)
            return str(text) if is_file or str(text) in self.choices else None
        try:
            number = int(str(text), 0)
        except ValueError:
            return None
        if not self.low <= number <= self.high or (self.power_of_two and number & (number - 1)):
            return None
        return number


def _shown(text: object) -> str:
    shown = str(text)
    return repr(shown if len(shown) <= 40 else shown[:37] + "...")


ON_OFF = ("on", "off")
EVENT_IDX, INDIRECT, MERGEABLE = "event_idx", "indirect", "mergeable"
CSUM, TSO = "csum", "tso"

KNOBS: dict[str, Knob] = {
    knob.name: knob
    for knob in (
        Knob(
            "path",
            "vhost-net",
            "The data path between the guest and the switch: virtio in the kernel (vhost-net), in QEMU's main loop, or "
            "in a polling thread of OVS-DPDK (vhost-user); a network card that QEMU emulates (e1000); or, in a guest's "
            "place, a program of the host that holds the TAP or TUN.",
            choices=("vhost-net", "virtio-qemu", "vhost-user", "e1000", "program"),
        ),
        Knob(
            "guest",
            "kernel",
            "What drives the device in the guest: the kernel's driver, or a program that polls, with DPDK.",
            choices=("kernel", "dpdk"),
        ),
        Knob(
            "ioeventfd",
            "on",
            "Whether a kick becomes an eventfd signal inside KVM; otherwise it has to go through QEMU's vCPU thread.",
            choices=ON_OFF,
        ),
        Knob(
            "features",
            frozenset((EVENT_IDX, INDIRECT, MERGEABLE)),
            "Which optional features driver and device agreed on; with guest=dpdk, which knows no event_idx, the other "
            "two unless set. With csum the guest leaves checksums of TCP to the device, with tso cutting it, too.",
            members=(EVENT_IDX, INDIRECT, MERGEABLE, CSUM, TSO),
            follows=(("guest", "dpdk", frozenset((INDIRECT, MERGEABLE))),),
        ),
        Knob(
            "begin",
            "running",
            "Where a run begins: with everything set up, or at power-on, before the TAP exists.",
            choices=("running", "power-on"),
        ),
        Knob(
            "launcher",
            "libvirt",
            "From power-on: who makes the TAP and starts QEMU, libvirt, or a person by hand with a TAP made before.",
            choices=("libvirt", "hand"),
            recorded="hand",
            follows=(("path", "vhost-user", "hand"),),
        ),
        Knob(
            "qemu_version",
            "10.0",
            "Version of QEMU; decides the order in which it sets a back-end up, and what it tries first.",
            choices=("7.2", "10.0"),
            recorded="7.2",
        ),
        Knob(
            "vhost_start",
            "ok",
            "From power-on: whether vhost starts, has no /dev/vhost-net, or fails; then QEMU serves the queues.",
            choices=("ok", "missing", "fails"),
        ),
        Knob(
            "refuse_features",
            "off",
            "From power-on: the device insists on ACCESS_PLATFORM, which an old driver does not know.",
            choices=ON_OFF,
        ),
        Knob(
            "eventfd_programs",
            "off",
            "Three programs on the host that share an eventfd of their own: to see what one is.",
            choices=("off", "counter", "semaphore"),
        ),
        Knob("queue.size", 256, "Descriptors in each virtqueue; in a split one a power of two.", low=4, high=1024),
        Knob(
            "queue.format",
            "split",
            "Layout of the virtqueues; in-kernel vhost-net serves split rings only.",
            choices=("split", "packed"),
        ),
        Knob(
            "queue.show",
            8,
            "How many slots of a ring are drawn, where the size of the screen does not decide.",
            low=4,
            high=64,
        ),
        Knob(
            "queue.start",
            0,
            "Buffers that have gone through the rings already, to see a wrap soon: the index at which split rings "
            "begin; in packed ones it gives slot and wrap counters. Under vhost-user it is 1 unless set (0 from "
            "power-on): nobody moves avail_event there, so entry 0, the first of all, is the one in 65536 that is "
            "kicked.",
            low=0,
            high=65535,
            follows=(("path", "vhost-user", 1), ("begin", "power-on", 0)),
        ),
        Knob("vms", 1, "Virtual machines on this host, each behind a TAP of its own.", low=1, high=2),
        Knob(
            "queues",
            1,
            "Queue pairs of the device, and as many vCPUs; the TAP has a queue for each, and vhost-net a worker.",
            low=1,
            high=4,
        ),
        Knob(
            "rx_buffer",
            1536,
            "Bytes of each receive buffer; Linux takes 1536 or more, smaller ones show how frames are merged.",
            low=64,
            high=4096,
        ),
        Knob("napi_tx", "on", "Whether the guest frees sent packets from NAPI, by interrupt.", choices=ON_OFF),
        Knob(
            "tx_stop_threshold",
            19,
            "Free descriptors below which the guest stops its transmit queue; Linux always uses 19.",
            low=1,
            high=64,
        ),
        Knob(
            "guest_bql",
            "on",
            "Byte queue limits in the guest's transmit queue; since 6.11 in virtio-net.",
            choices=ON_OFF,
            recorded="off",
        ),
        Knob(
            "bql_limit_min",
            65536,
            "Lowest byte queue limit, as in byte_queue_limits/limit_min; Linux begins with 0.",
            low=0,
            high=1 << 20,
        ),
        Knob("socket_sndbuf", 212992, "Send buffer of the guest's socket in bytes.", low=4096, high=1 << 24),
        Knob(
            "cpu",
            "intel",
            "Whose processor; decides how a store to a device leaves the guest.",
            choices=("intel", "amd"),
            recorded="amd",
        ),
        Knob(
            "apicv",
            "on",
            "Whether interrupts are posted into the guest without an exit.",
            choices=ON_OFF,
            recorded="off",
        ),
        Knob(
            "vcpu",
            "running",
            "What an idle vCPU does: poll in guest mode, or halt and let its thread sleep.",
            choices=("running", "halted"),
        ),
        Knob(
            "halt_poll_ns",
            0,
            "Nanoseconds that KVM polls for an interrupt before a halted vCPU's thread sleeps; Linux: 200000.",
            low=0,
            high=10_000_000,
        ),
        Knob(
            "guest_if",
            "on",
            "Whether the guest has interrupts enabled when it kicks.",
            choices=ON_OFF,
        ),
        Knob(
            "machine",
            "direct",
            "How an e1000's interrupt line is wired: to the IOAPIC alone, as costs are counted here, or as on QEMU's "
            "machines pc and q35, which tell KVM of each change two and three times. virtio-net has no line.",
            choices=("direct", "pc", "q35"),
            recorded="q35",
        ),
        Knob(
            "pv_eoi",
            "on",
            "Whether a guest without APICv may end an interrupt in memory, without an exit, if no other one waits.",
            choices=ON_OFF,
        ),
        Knob(
            "fast_mmio",
            "on",
            "Whether KVM on Intel finds a kick's eventfd by the address alone; before Linux 4.4 it decodes the store.",
            choices=ON_OFF,
        ),
        Knob(
            "host_kernel",
            "6.12",
            "Version of the host's kernel; since 6.4 vhost's worker is a thread of QEMU's process.",
            choices=("6.1", "6.3", "6.4", "6.12"),
            recorded="6.1",
        ),
        Knob("guest_kernel", "6.12", "Version of the guest's kernel.", choices=("6.1", "6.12"), recorded="6.1"),
        Knob(
            "sndbuf",
            "unlimited",
            "The TAP's send buffer (sndbuf of QEMU's tap): with a limit vhost-net sends each packet by itself.",
            choices=("unlimited", "limited"),
        ),
        Knob("tx_batch", 64, "Frames vhost-net collects before it hands them to the TAP.", low=1, high=64),
        Knob("weight", 256, "Frames vhost-net handles before it lets other work have a turn.", low=1, high=65536),
        Knob(
            "busy_poll_us",
            0,
            "Microseconds that vhost-net polls before it asks for a kick and sleeps (poll-us of QEMU's tap); 0: never.",
            low=0,
            high=10000,
        ),
        Knob(
            "device",
            "tap",
            "The guest's, or the program's, device on the host: a TAP carries Ethernet frames, a TUN only IP packets.",
            choices=("tap", "tun"),
        ),
        Knob(
            "txqueuelen",
            1000,
            "Packets the TAP's queue holds before it drops; a TUN's holds 500 unless set.",
            low=1,
            high=1000,
            follows=(("device", "tun", 500),),
        ),
        Knob(
            "switch",
            "ovs",
            "What connects the guest with the far port: Open vSwitch in the kernel, a plain Linux bridge, or Open "
            "vSwitch with DPDK in user space, which it is under vhost-user unless set.",
            choices=("ovs", "bridge", "ovs-dpdk"),
            follows=(("path", "vhost-user", "ovs-dpdk"),),
        ),
        Knob(
            "flows",
            "unknown",
            "Whether the switch's kernel part already knows the flows; a bridge, the addresses.",
            choices=("unknown", "known"),
        ),
        Knob(
            "ovs_flow_count",
            "fresh",
            "Whether ovs-vswitchd's count of kernel flows is younger than 100 ms at the first upcall.",
            choices=("fresh", "stale"),
            recorded="stale",
        ),
        Knob("handlers", 2, "Upcall handler threads of ovs-vswitchd.", low=1, high=4),
        Knob(
            "ovs_dispatch",
            "per-cpu",
            "By which socket the switch asks: the one of the handler for this CPU, or the one of the input port.",
            choices=("per-cpu", "per-vport"),
        ),
        Knob(
            "upcall_rcvbuf",
            4 << 20,
            "Receive buffer that ovs-vswitchd asks for its upcall sockets; what does not fit in is lost.",
            low=2048,
            high=4 << 20,
        ),
        Knob(
            "far_port",
            "nic",
            (
                "What is behind the switch: a network card, a veth pair into another network namespace, or a "
                "dummy that drops."
            ),
            choices=("nic", "veth", "dummy"),
            recorded="veth",
            follows=(("path", "vhost-user", "nic"), ("path", "program", "nic")),
        ),
        Knob(
            "tunnel",
            "none",
            "What carries frames to the far host: its own network, or a tunnel over UDP between the two hosts.",
            choices=("none", "vxlan", "geneve"),
        ),
        Knob("vni", 42, "The virtual network's number in the tunnel's header.", low=0, high=VNI_MAX),
        Knob("nic_ring", 512, "Descriptors in each ring of the network card.", low=8, high=4096, power_of_two=True),
        Knob(
            "nic_tx_frames",
            64,
            "Sent frames after which the card interrupts for them alone (tx-frames of ethtool -C, where it has that).",
            low=1,
            high=512,
        ),
        Knob(
            "nic_tso",
            "on",
            "Whether the network card cuts long TCP packets into frames; otherwise the host's kernel does, just before "
            "its driver (ethtool -K eth0 tso off).",
            choices=ON_OFF,
        ),
        Knob(
            "store_buffer",
            "off",
            "Whether CPUs have store buffers, so that a missing barrier shows.",
            choices=ON_OFF,
        ),
        Knob(
            "schedule",
            "readable",
            (
                "Who moves next: one thread until it has to wait, which reads well, or the thread whose clock is "
                "furthest behind, as costs are assumed to be."
            ),
            choices=("readable", "time"),
        ),
        Knob(
            "costs",
            BASE,
            "The cost profile behind simulated time; all of it is assumption, and `virtviz costs` shows it.",
            choices=profile_names(),
            ending=ENDING,
        ),
        Knob(
            "device_checks",
            "vhost",
            "Whose checks vhost-net makes of its rings; that it checks as QEMU or strictly is a comparison, and not "
            "real. QEMU's own back-end checks as QEMU, vhost-user as DPDK.",
            choices=("vhost", "qemu", "strict"),
        ),
    )
}

PROFILES: dict[str, dict[str, Value]] = {
    "default": {name: knob.default for name, knob in KNOBS.items()},
    "recorded": {name: knob.default if knob.recorded is None else knob.recorded for name, knob in KNOBS.items()},
}


class World(Mapping[str, Value]):
    """A checked set of values for all knobs, under the name of the profile that they began with."""

    def __init__(self, chosen: Mapping[str, Value], profile: str) -> None:
        self.chosen = chosen
        self.profile = profile

    def __getitem__(self, name: str) -> Value:
        return self.chosen[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.chosen)

    def __len__(self) -> int:
        return len(self.chosen)

    def __repr__(self) -> str:
        """Name what differs from the profile."""
        profile = PROFILES[self.profile]
        differing = {name: value for name, value in self.chosen.items() if value != profile[name]}
        return f"World({differing}, {self.profile!r})"

    def number(self, name: str) -> int:
        """Give a numeric knob."""
        value = self.chosen[name]
        assert isinstance(value, int), name
        return value

    def word(self, name: str) -> str:
        """Give a word knob."""
        return str(self.chosen[name])

    def on(self, name: str) -> bool:
        """Say whether an on/off knob is on."""
        return self.chosen[name] == "on"

    def has(self, feature: str) -> bool:
        """Say whether a feature was agreed on."""
        features = self.chosen["features"]
        return isinstance(features, frozenset) and feature in features

    def plain(self) -> dict[str, int | str | list[str]]:
        """Give the values in a form that can be written out."""
        return {
            "profile": self.profile,
            **{k: sorted(v) if isinstance(v, frozenset) else v for k, v in self.chosen.items()},
        }

    def departures(self) -> list[str]:
        """Name the settings that no real Linux has, so that a screen can say so."""
        said = []
        if self.number("tx_stop_threshold") != KNOBS["tx_stop_threshold"].default:
            said.append(f"tx_stop_threshold {self['tx_stop_threshold']} (Linux: 19)")
        if self.number("rx_buffer") < 1536:
            said.append(f"rx_buffer {self['rx_buffer']} (Linux: 1536 or more)")
        if self["device_checks"] != "vhost":
            said.append(f"device_checks {self['device_checks']} (in-kernel vhost-net: vhost)")
        return said


def make_world(*settings: Mapping[str, object], profile: str = "default") -> World:
    """Check settings and lay them over a profile, later ones over earlier ones.

    Args:
        settings: dotted knob names and values; `profile` among them chooses the profile.
        profile: the profile to begin with.

    Raises:
        KnobError: an unknown knob, a value it may not have, or a combination that does not exist.
    """
    for given in settings:
        profile = str(given.get("profile", profile))
    if profile not in PROFILES:
        raise KnobError("profile", f"profile is one of {', '.join(PROFILES)}, not {_shown(profile)}")
    chosen: dict[str, Value] = {}
    for given in settings:
        for name, value in given.items():
            if name != "profile":
                chosen[name] = find_knob(name).parse(value)
    values = PROFILES[profile] | chosen
    world = World(values | _followers(values, chosen), profile)
    for name, message in (
        *_contradictions(world),
        *_contradictions_of_beginnings(world),
        *_contradictions_of_shortcuts(world),
        *_contradictions_of_switches(world),
        *_contradictions_of_guests(world),
        *_contradictions_of_dpdk(world),
        *_contradictions_of_offloads(world),
        *_contradictions_of_programs(world),
    ):
        raise KnobError(name, message)
    if world.word("costs").endswith(ENDING):
        # What is wrong in a person's file is said before anything runs.
        load_costs(world.word("costs"))
    return world


def _followers(values: Mapping[str, Value], chosen: Mapping[str, Value]) -> dict[str, Value]:
    """Give the knobs that follow others, because nobody has set them."""
    return {
        knob.name: value
        for knob in KNOBS.values()
        if knob.name not in chosen
        for leader, word, value in knob.follows
        if values[leader] == word
    }


def find_knob(name: str) -> Knob:
    """Give a knob by name.

    Raises:
        KnobError: there is none of that name; the message names the nearest.
    """
    if name in KNOBS:
        return KNOBS[name]
    from difflib import get_close_matches  # noqa: PLC0415 - only what is misspelled needs it

    near = get_close_matches(name, [*KNOBS, "profile"], 1)
    hint = f"did you mean {near[0]}?" if near else f"the knobs are {', '.join(KNOBS)}"
    raise KnobError(name, f"there is no knob {_shown(name)}; {hint}")


def _contradictions(world: World) -> Iterable[tuple[str, str]]:
    """Find combinations that do not exist, with the reason and the way out."""
    if world["path"] == "e1000":
        yield from _contradictions_of_e1000(world)
        return
    if world["queue.format"] == "packed" and world["path"] == "vhost-net":
        yield (
            "queue.format",
            (
                "in-kernel vhost-net does not offer VIRTIO_F_RING_PACKED, so packed rings cannot be negotiated; use "
                "split, or path=virtio-qemu"
            ),
        )
    elif world["queue.format"] == "packed" and (world["path"] != "virtio-qemu" or world["guest"] != "kernel"):
        yield (
            "queue.format",
            (
                "packed rings are between the guest's kernel and QEMU's own back-end only; use split, or set "
                "path=virtio-qemu and guest=kernel"
            ),
        )
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
    yield from _contradictions_of_processors(world)
    if world.on("guest_bql") and world["guest_kernel"] == "6.1":
        yield (
            "guest_bql",
            "virtio-net has byte queue limits since Linux 6.11; set guest_bql=off with guest_kernel=6.1",
        )


def _contradictions_of_processors(world: World) -> Iterable[tuple[str, str]]:
    """The same for what every data path runs on."""
    if world["cpu"] == "amd" and world.on("apicv"):
        yield ("apicv", "on an AMD processor posted interrupts are AVIC, which is not modelled; set apicv=off")


_NOT_OF_E1000 = {
    "guest": "the program that polls, with DPDK, drives a virtio-net device",
    "ioeventfd": "a store to a register of an e1000 always has to go to QEMU",
    "features": "an e1000 is no virtio device, and agrees on no features",
    "queue.format": "the rings of an e1000 have a form of their own",
    "queue.start": "the rings of an e1000 are counted by slots, from 0, and have no indices that run on",
    "queues": "an e1000 has one ring for each direction",
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


def _contradictions_of_e1000(world: World) -> Iterable[tuple[str, str]]:
    """Find settings that are about virtio: whoever sets one for an e1000 expects what will not happen."""
    for name, why in _NOT_OF_E1000.items():
        usual = PROFILES[world.profile][name]
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
    yield from _contradictions_of_processors(world)


def _contradictions_of_shortcuts(world: World) -> Iterable[tuple[str, str]]:
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


def _contradictions_of_beginnings(world: World) -> Iterable[tuple[str, str]]:
    """The same for where a run begins."""
    if world["begin"] == "running":
        if world.on("refuse_features"):
            yield ("refuse_features", "features are negotiated after power-on; set begin=power-on as well")
        if world["vhost_start"] != "ok":
            yield ("vhost_start", "vhost is started after power-on; set begin=power-on as well")
        return
    yield from _contradictions_of_vhost_start(world)
    yield from _contradictions_of_power_on(world)


def _contradictions_of_power_on(world: World) -> Iterable[tuple[str, str]]:
    """The same for what cannot be followed from power-on."""
    if world["path"] in ("e1000", "program"):
        yield (
            "begin",
            "from power-on the paths of a virtio device can be followed; set path=vhost-net, or begin=running",
        )
    if world["path"] == "vhost-user" and world["launcher"] == "libvirt":
        yield ("launcher", "with path=vhost-user there is no TAP that libvirt would make; set launcher=hand")
    if world["queue.format"] != "split":
        yield ("begin", "from power-on split rings can be followed; set queue.format=split, or begin=running")
    if world["guest"] != "kernel":
        yield ("begin", "from power-on the kernel's own driver can be followed; set guest=kernel, or begin=running")
    if world.number("queues") > 1:
        yield ("begin", "from power-on one queue pair can be followed; set queues=1, or begin=running")
    if world.number("vms") > 1:
        yield ("begin", "one virtual machine at a time can be followed from power-on; set vms=1, or begin=running")
    if world.number("queue.start"):
        yield ("queue.start", "a ring that has just been made begins at 0; set queue.start=0, or begin=running")
    if not world.on("ioeventfd"):
        yield ("ioeventfd", "from power-on kicks are tied to eventfds; set ioeventfd=on, or begin=running")


def _contradictions_of_vhost_start(world: World) -> Iterable[tuple[str, str]]:
    """The same for what becomes of vhost."""
    if world["vhost_start"] != "ok" and world["path"] != "vhost-net":
        yield ("vhost_start", "only path=vhost-net starts vhost; set vhost_start=ok")
    if world["vhost_start"] == "missing" and world["launcher"] == "hand":
        yield (
            "vhost_start",
            (
                "QEMU that is told vhost=on by hand, and finds no /dev/vhost-net, does not start at all; set "
                "launcher=libvirt, which then asks for no vhost"
            ),
        )


def _contradictions_of_switches(world: World) -> Iterable[tuple[str, str]]:
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


def _contradictions_of_guests(world: World) -> Iterable[tuple[str, str]]:
    """The same for a guest whose program polls."""
    if world["guest"] == "dpdk" and world.has(EVENT_IDX):
        yield ("features", "DPDK's virtio driver does not negotiate event_idx; set features=indirect,mergeable")
    if world["guest"] == "dpdk" and world["queue.format"] == "packed":
        yield (
            "queue.format",
            "DPDK's driver has packed rings as well, but only split ones are modelled here; use split",
        )
    if world["guest"] == "dpdk" and world["vcpu"] == "halted":
        yield ("vcpu", "a guest whose program polls is never idle, so its vCPU never halts; set vcpu=running")
    if world["guest"] == "dpdk" and world.number("queues") > 1:
        yield ("queues", "a guest whose program polls has one queue pair here, for one CPU; set queues=1")


def _contradictions_of_dpdk(world: World) -> Iterable[tuple[str, str]]:
    """The same for vhost-user, whose other end is OVS-DPDK and nothing else."""
    by_socket, by_pmd = world["path"] == "vhost-user", world["switch"] == "ovs-dpdk"
    if by_socket and world["queue.format"] == "packed":
        yield ("queue.format", "DPDK serves packed rings as well, but only split ones are modelled here; use split")
    if by_socket and world.number("queues") > 1:
        yield ("queues", "a vhost-user port has one queue pair here; set queues=1, or path=vhost-net")
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
    if by_pmd and world.on("store_buffer") and world.number("vms") > 1:
        yield (
            "store_buffer",
            "one CPU polls both guests here, and its store buffer would be before two memories; set vms=1",
        )


def _contradictions_of_offloads(world: World) -> Iterable[tuple[str, str]]:
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


def _contradictions_of_programs(world: World) -> Iterable[tuple[str, str]]:
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


def parse_setting(text: str) -> tuple[str, str]:
    """Split `knob=value` as given on the command line.

    Raises:
        KnobError: there is no `=`.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise KnobError(text, f"write --set knob=value, such as --set queue.size=128, not {_shown(text)}")
    return name.strip(), value.strip()
