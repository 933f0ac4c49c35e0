"""The settings of a simulated world: their names, what they do, and what they may be.

A world is a set of values for all knobs: a profile, then what a lesson's `world:` says, then what `--set` says. Values
are checked here once; everything below reads them from `World` and checks nothing again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct

from virtviz.errors import KnobError
from virtviz.paths.contradictions import contradictions
from virtviz.paths.costs import BASE, ENDING, load_costs, profile_names
from virtviz.paths.features import CSUM, EVENT_IDX, INDIRECT, MERGEABLE, TSO
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
    follows: tuple[tuple[str, Value, Value], ...] = ()

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
            "transport",
            "pci",
            "What carries a virtio device's registers, kicks and interrupts: PCI with MSI-X, or virtio-mmio, which "
            "has one register for all kicks and one interrupt line for everything.",
            choices=("pci", "mmio"),
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
            follows=(("path", "vhost-user", "hand"), ("transport", "mmio", "hand")),
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
        Knob(
            "queue.size",
            256,
            "Descriptors in each virtqueue; in a split one a power of two. On virtio-mmio 1024 unless set: QEMU offers "
            "so many there (QueueNumMax), and Linux takes what is offered.",
            low=4,
            high=1024,
            follows=(("transport", "mmio", 1024),),
        ),
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
        Knob(
            "hosts",
            1,
            "Hosts that are there whole: with 2, each has one virtual machine, and a cable joins their network cards.",
            low=1,
            high=2,
        ),
        Knob(
            "vms",
            1,
            "Virtual machines, each behind a TAP of its own: on one host, or one on each of two.",
            low=1,
            high=2,
            follows=(("hosts", 2, 2),),
        ),
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
            "machines pc and q35, which tell KVM of each change two and three times. virtio-net has no line on PCI; "
            "with transport=mmio its line goes to the IOAPIC alone.",
            choices=("direct", "pc", "q35"),
            recorded="q35",
            follows=(("transport", "mmio", "direct"),),
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
            "steering",
            "flow",
            "How a TAP with several queues chooses one for the guest: the queue that a flow was last sent on, or by a "
            "hash (RSS, VIRTIO_NET_F_RSS), with a program that QEMU loads into the kernel.",
            choices=("flow", "rss"),
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

    def usual(self, name: str) -> Value:
        """Give what a knob is in the profile that this world began with."""
        return PROFILES[self.profile][name]

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
    for name, message in contradictions(world):
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


def parse_setting(text: str) -> tuple[str, str]:
    """Split `knob=value` as given on the command line.

    Raises:
        KnobError: there is no `=`.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise KnobError(text, f"write --set knob=value, such as --set queue.size=128, not {_shown(text)}")
    return name.strip(), value.strip()
