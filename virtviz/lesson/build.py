"""From a lesson to what a simulation is made of: the settings of its world, and its traffic.

A lesson may write settings with dots (`queue.size: 128`) or nested (`queue: {size: 128}`). An event with a `count`
becomes as many packets: `burst` with a count of 3 is `burst.1`, `burst.2` and `burst.3`; `burst` alone means any of
them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from virtviz.errors import CaptureError, KnobError
from virtviz.lesson.marks import did_you_mean, shown
from virtviz.lesson.model import PACKETS_MAX, Receive, Reply, Send
from virtviz.lesson.model import Link as LinkEvent
from virtviz.lesson.model import Poke as PokeEvent
from virtviz.paths.features import CSUM
from virtviz.paths.knobs import KNOBS, find_knob, make_world
from virtviz.paths.traffic import Item, Link, Pause, Poke, Reset, ends_of, make_traffic, to_other_host
from virtviz.ring.rings import layout_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from virtviz.lesson.marks import Marks, Path
    from virtviz.lesson.model import Event, KnobValue, Lesson
    from virtviz.paths.knobs import World
    from virtviz.paths.traffic import Traffic
    from virtviz.ring.rings import Layout

VMS: Final = tuple(f"vm{number}" for number in range(1, KNOBS["vms"].high + 1))
"""Virtual machines there can be; the setting `vms` says how many there are."""
PAYLOAD_MAX: Final = 1472
"""Longest payload of one frame: an MTU of 1500 less the headers of IPv4 and UDP or ICMP."""
FRAME_BYTES: Final = (14, 1514)
"""Shortest and longest frame that is taken from a capture: an Ethernet header, and that with an MTU of 1500."""


def build(
    lesson: Lesson,
    settings: Sequence[Mapping[str, object]] = (),
    *,
    frames: Sequence[bytes] | None = None,
    packets: int | None = None,
) -> tuple[World, Traffic]:
    """Make world and traffic of a lesson.

    Args:
        lesson: as it was read.
        settings: further settings by dotted names, later ones over earlier ones and all of them over the lesson's.
        frames: frames from a capture, instead of the lesson's scenario. What is addressed to a virtual machine comes in
            from the wire, unless it is from another one; the rest is sent by the machine that it is from, or the first.
        packets: repeat the scenario until there are at least so many packets.

    Raises:
        KnobError: a setting is unknown, out of range, or not allowed together with another, or the scenario is about
            more virtual machines than there are.
        CaptureError: there is no frame, or one that no network card would take.
    """
    world = make_world(dict(flat(lesson.world)), *settings)
    if frames is None:
        _fit_pokes(lesson, world)
        _fit_beginning(lesson, world)
    vms = world.number("vms")
    events = items_of(lesson.scenario) if frames is None else _captured(frames, vms)
    if world.number("hosts") > 1:
        events = to_other_host(events)
    needed = max((max(e.vm, getattr(e, "to_vm", 0)) for e in events if not isinstance(e, Pause)), default=0) + 1
    if needed > vms:
        raise KnobError("vms", f"the scenario is about {VMS[needed - 1]}, and vms is {vms}; set vms={needed}")
    vcpus = max((e.vcpu for e in events if isinstance(e, Item)), default=0) + 1
    if vcpus > world.number("queues"):
        queues = world.number("queues")
        raise KnobError(
            "queues",
            f"the scenario is about vCPU {vcpus - 1}, and with queues={queues} there are {queues}; set queues={vcpus}",
        )
    if any(isinstance(event, Link) for event in events):
        _check_link_can_change(world)
    _check_tcp_can_go(world, events)
    count = sum(isinstance(event, Item) for event in events)
    rounds = 1 if packets is None else max(1, -(-packets // count))
    return world, make_traffic(events, rounds, vms)


def _fit_beginning(lesson: Lesson, world: World) -> None:
    """See that what happens in the scenario can happen where the run begins."""
    is_early = world["begin"] == "power-on"
    if not is_early and any(isinstance(event.reset, str) for event in lesson.scenario):
        raise KnobError("begin", "the scenario has a reset, after which everything is set up anew; set begin=power-on")
    if is_early and any(isinstance(event.link, LinkEvent) for event in lesson.scenario):
        raise KnobError("begin", "a link that changes is followed where everything is set up; set begin=running")


def _check_link_can_change(world: World) -> None:
    """Refuse worlds in which a change of a virtual machine's link is not followed."""
    if world["path"] == "e1000":
        raise KnobError("path", "the link of an e1000 is always up here; set path=vhost-net or path=virtio-qemu")
    if world.number("queues") > 1:
        raise KnobError("queues", "a link can be changed with one queue pair only; set queues=1")
    if world["path"] == "vhost-user":
        raise KnobError(
            "path", "a link cannot be changed under vhost-user here; set path=vhost-net or path=virtio-qemu"
        )
    if world["transport"] == "mmio" and world["path"] == "vhost-net":
        raise KnobError(
            "transport",
            "with vhost-net a link is changed on PCI only here; set transport=pci, or path=virtio-qemu",
        )
    if world["guest"] == "dpdk":
        raise KnobError("guest", "a program that polls does not look at its link here; set guest=kernel")


def _check_tcp_can_go(world: World, events: Sequence[Item | Pause | Poke | Link | Reset]) -> None:
    """Refuse worlds in which a TCP packet's way is not followed."""
    tcp = [event for event in events if isinstance(event, Item) and event.kind == "tcp"]
    if not tcp:
        return
    for wrong, knob, message in (
        (world["guest"] == "dpdk", "guest", "a program with DPDK has no TCP of its own; set guest=kernel"),
        (world["path"] not in ("vhost-net", "virtio-qemu"), "path", "set path=vhost-net or path=virtio-qemu"),
        (world["queue.format"] != "split", "queue.format", "set queue.format=split"),
        (world.number("queues") > 1, "queues", "set queues=1"),
        (world["tunnel"] != "none", "tunnel", "set tunnel=none"),
        (world.number("busy_poll_us") > 0, "busy_poll_us", "set busy_poll_us=0"),
        (world["sndbuf"] != "unlimited", "sndbuf", "set sndbuf=unlimited"),
        (world.on("store_buffer"), "store_buffer", "set store_buffer=off"),
        (
            world.has(CSUM) and world["switch"] == "ovs" and world["flows"] == "unknown",
            "flows",
            "an upcall would cut the packet or finish its checksum; set flows=known, or leave csum and tso out",
        ),
    ):
        if wrong:
            raise KnobError(knob, f"the scenario sends tcp, whose way is not followed here: {message}")
    if any(item.to_vm >= 0 for item in tcp):
        raise KnobError("vms", "the scenario sends tcp to another virtual machine; only to a far host it is followed")
    if any(isinstance(event, Link | Poke | Reset) for event in events):
        raise KnobError(
            "features", "tcp cannot be sent in a scenario that changes links, rings or resets; use kind: udp there"
        )


def _fit_pokes(lesson: Lesson, world: World) -> None:
    """See that every field that the scenario changes exists in queues of the size that they have now."""
    layout = _layout(world)
    for event in lesson.scenario:
        if isinstance(event.poke, PokeEvent):
            if world["path"] == "e1000":
                raise KnobError(
                    "path",
                    f"the scenario changes {shown(event.poke.field)} of a virtqueue, and an e1000 has no virtqueues; "
                    "set path=vhost-net or path=virtio-qemu",
                )
            try:
                layout.field_place(event.poke.field)
            except ValueError as error:
                raise KnobError("queue.size", f"the scenario changes {shown(event.poke.field)}: {error}") from error


def flat(world: Mapping[str, KnobValue | dict[str, KnobValue]]) -> Iterator[tuple[str, KnobValue]]:
    """Give settings by their dotted names."""
    for name, value in world.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", more) for inner, more in value.items())
        else:
            yield name, value


def items_of(scenario: Sequence[Event]) -> list[Item | Pause | Poke | Link | Reset]:
    """Turn the events of a scenario into packets, pauses changes from outside and resets, in order."""
    made: list[Item | Pause | Poke | Link | Reset] = []
    items: list[Item] = []
    sent: dict[str, list[int]] = {}
    for event in scenario:
        new: list[Item] = []
        if isinstance(event.send, Send):
            send = event.send
            vm = VMS.index(send.from_)
            to_vm = -1 if send.to is UNSET else VMS.index(send.to)
            sent[send.id] = list(range(len(items), len(items) + send.count))
            new = [
                Item(
                    name,
                    vm,
                    outgoing=True,
                    to_vm=to_vm,
                    kind=send.kind,
                    length=send.bytes,
                    fragments=send.fragments,
                    vcpu=send.vcpu,
                )
                for name in names_of(send.id, send.count)
            ]
        elif isinstance(event.receive, Receive):
            receive = event.receive
            vm = VMS.index(receive.to)
            new = [
                Item(name, vm, outgoing=False, kind=receive.kind, length=receive.bytes, vcpu=receive.vcpu)
                for name in names_of(receive.id, receive.count)
            ]
        elif isinstance(event.reply, Reply):
            asked = sent[event.reply.to]
            new = [
                _answer(name, i, items[i])
                for name, i in zip(names_of(reply_id(event.reply), len(asked)), asked, strict=True)
            ]
        elif isinstance(event.poke, PokeEvent):
            poke = event.poke
            made.append(Poke(poke.queue, poke.field, poke.value, VMS.index(poke.vm)))
        elif isinstance(event.link, LinkEvent):
            made.append(Link(event.link.state == "up", VMS.index(event.link.vm)))
        elif isinstance(event.reset, str):
            made.append(Reset(VMS.index(event.reset)))
        else:
            made.append(Pause())
        items += new
        made += new
    return made


def _answer(name: str, asked: int, item: Item) -> Item:
    """Make the answer to a packet: from the far host, or from the virtual machine that it was sent to."""
    if item.to_vm < 0:
        return Item(name, item.vm, outgoing=False, kind=item.kind, length=item.length, answers=asked, vcpu=item.vcpu)
    return Item(name, item.to_vm, to_vm=item.vm, kind=item.kind, length=item.length, answers=asked)


def names_of(name: str, count: int) -> list[str]:
    """Name the packets of one event."""
    return [name] if count == 1 else [f"{name}.{i}" for i in range(1, count + 1)]


def reply_id(reply: Reply) -> str:
    """Name an answer."""
    return reply.id if isinstance(reply.id, str) else f"{reply.to}-reply"


def _captured(frames: Sequence[bytes], vms: int) -> list[Item | Pause | Poke | Link | Reset]:
    if not frames:
        raise CaptureError("the capture holds no frame; give one with at least one Ethernet frame")
    shortest, longest = FRAME_BYTES
    made: list[Item | Pause | Poke | Link | Reset] = []
    for number, frame in enumerate(frames, 1):
        if not shortest <= len(frame) <= longest:
            message = f"frame {number} of the capture has {len(frame)} bytes; a frame here has {shortest} to {longest}"
            raise CaptureError(message)
        vm, to_vm, outgoing = ends_of(frame, vms)
        made.append(Item(f"frame-{number}", vm, outgoing, to_vm, kind="raw", length=len(frame), raw=frame))
    return made


# What a file can get wrong here


def check_world(value: object, marks: Marks) -> None:
    """Note what is wrong with the settings in a file, given as plain values; what is no setting is left to others."""
    world = value.get("world") if isinstance(value, dict) else None
    if not isinstance(world, dict):
        return
    places: dict[str, Path] = {}
    settings: dict[str, object] = {}
    for name, outer in world.items():
        for key, inner in outer.items() if isinstance(outer, dict) else [("", outer)]:
            dotted, at = (f"{name}.{key}", ("world", name, key)) if key else (name, ("world", name))
            if dotted in places:
                marks.add(at, f"{shown(dotted)} is set twice; keep one of them", key=True)
            places[dotted] = at
            if isinstance(inner, str | list) or (isinstance(inner, int) and not isinstance(inner, bool)):
                settings[dotted] = inner
    good = {}
    for name, inner in settings.items():
        if name in KNOBS and KNOBS[name].ending and str(inner).endswith(KNOBS[name].ending):
            what = f"a lesson names one of {', '.join(KNOBS[name].choices)}; a file is for --set {name}=FILE"
            marks.add(places[name], what)
            continue
        try:
            make_world({name: inner} if name == "profile" else {"profile": "default"})
            good[name] = inner if name == "profile" else find_knob(name).parse(inner)
        except KnobError as error:
            marks.add(places[name], str(error), key=name not in KNOBS and name != "profile")
    try:
        make_world({name: inner if name == "profile" else settings[name] for name, inner in good.items()})
    except KnobError as error:
        marks.add(places.get(error.knob, ("world",)), str(error))


def check_scenario(lesson: Lesson, marks: Marks) -> None:
    """Note what keeps a scenario from being built."""
    machines = _machines(lesson)
    _check_pokes(lesson, machines, marks)
    _check_links(lesson, machines, marks)
    _check_payloads(lesson, marks)
    counts: dict[str, int] = {}
    answered: set[str] = set()
    total = 0
    for number, event in enumerate(lesson.scenario):
        at: Path = ("scenario", number)
        if isinstance(event.reply, Reply):
            at, name, count = (*at, "reply"), reply_id(event.reply), 0
            if event.reply.to in answered:
                marks.add((*at, "to"), f"{shown(event.reply.to)} is answered already; a packet has one answer")
            elif event.reply.to in counts and event.reply.to not in _answers(lesson):
                count = counts[event.reply.to]
            else:
                sends = [e.send.id for e in lesson.scenario if isinstance(e.send, Send)]
                later = event.reply.to in sends
                hint = "; send it first" if later else did_you_mean(event.reply.to, sends, "; send it first")
                marks.add((*at, "to"), f"no packet {shown(event.reply.to)} is sent before this{hint}")
            answered.add(event.reply.to)
            key = "id" if event.reply.id is not UNSET else "to"
        elif isinstance(event.send, Send):
            at, name, count, key = (*at, "send"), event.send.id, event.send.count, "id"
            _check_ends(event.send, at, machines, marks)
            _check_vcpu(event.send.vcpu, at, lesson, marks)
        elif isinstance(event.receive, Receive):
            at, name, count, key = (*at, "receive"), event.receive.id, event.receive.count, "id"
            _check_machine(event.receive.to, (*at, "to"), machines, marks)
            _check_vcpu(event.receive.vcpu, at, lesson, marks)
        else:
            continue
        if name in counts:
            marks.add((*at, key), f"a packet is called {shown(name)} already; give this one another id")
        counts[name] = count
        total += count
    if not counts:
        marks.add(("scenario",), "no packet is sent or received; add `send` or `receive`")
    if total > PACKETS_MAX:
        marks.add(
            ("scenario",), f"{total} packets; a scenario has at most {PACKETS_MAX}, and `run --packets N` repeats it"
        )


def _answers(lesson: Lesson) -> set[str]:
    """Name the packets that the virtual machine does not send, and that nobody can answer."""
    return {reply_id(e.reply) for e in lesson.scenario if isinstance(e.reply, Reply)} | {
        e.receive.id for e in lesson.scenario if isinstance(e.receive, Receive)
    }


def _machines(lesson: Lesson) -> Sequence[str]:
    """Name the virtual machines of a lesson's own world; what is wrong with its settings is said elsewhere."""
    try:
        return VMS[: make_world(dict(flat(lesson.world))).number("vms")]
    except KnobError:
        return VMS


def _check_ends(send: Send, at: Path, machines: Sequence[str], marks: Marks) -> None:
    _check_machine(send.from_, (*at, "from"), machines, marks)
    if isinstance(send.to, str):
        _check_machine(send.to, (*at, "to"), machines, marks)
        if send.to == send.from_:
            marks.add((*at, "to"), f"{send.to} sends to itself, and nothing would leave it; name the other machine")


def _check_payloads(lesson: Lesson, marks: Marks) -> None:
    """Note payloads that do not fit into their kind of packet, and answers to TCP data."""
    streams: set[str] = set()
    for number, event in enumerate(lesson.scenario):
        send, reply, at = event.send, event.reply, ("scenario", number)
        if isinstance(reply, Reply) and reply.to in streams:
            what = f"{shown(reply.to)} is tcp, which nobody answers here; answer an icmp-echo or a udp packet"
            marks.add((*at, "reply", "to"), what)
        if not isinstance(send, Send):
            continue
        place: Path = (*at, "send", "bytes")
        if send.kind != "tcp":
            if send.bytes > PAYLOAD_MAX:
                hint = "or kind: tcp, whose data is cut into frames"
                marks.add(place, f"{send.bytes} bytes do not fit into one frame; give at most {PAYLOAD_MAX}, {hint}")
            continue
        streams.add(send.id)
        if not send.bytes:
            marks.add(place, "a tcp packet without data would be an acknowledgement; give 1 to 65000 bytes")


def _check_machine(name: str, at: Path, machines: Sequence[str], marks: Marks) -> None:
    if name not in machines:
        hint = f"; for that one, set `vms: {VMS.index(name) + 1}` in `world`" if name in VMS else ""
        marks.add(at, f"there is no virtual machine {shown(name)}; there is {', '.join(machines)}{hint}")


def _check_vcpu(vcpu: int, at: Path, lesson: Lesson, marks: Marks) -> None:
    queues = _number(lesson, "queues")
    if vcpu >= queues:
        there = "only vCPU 0" if queues == 1 else f"vCPU 0 to {queues - 1}"
        hint = f"for that one, set `queues: {vcpu + 1}` in `world`"
        marks.add((*at, "vcpu"), f"there is no vCPU {vcpu}; with `queues: {queues}` there is {there}; {hint}")


def _number(lesson: Lesson, knob: str) -> int:
    """Give a setting of a lesson; see `_world_or_usual`."""
    return _world_or_usual(lesson).number(knob)


def _world_or_usual(lesson: Lesson) -> World:
    """Give the lesson's world; where its settings are wrong, which is said elsewhere, the usual one."""
    try:
        return make_world(dict(flat(lesson.world)))
    except KnobError:
        return make_world()


def _layout(world: World) -> Layout:
    """Give the layout of a queue of the world; where it lies does not matter."""
    return layout_at(0, world.number("queue.size"), packed=world["queue.format"] == "packed")


def _check_links(lesson: Lesson, machines: Sequence[str], marks: Marks) -> None:
    """Note links of virtual machines that are not there."""
    for number, event in enumerate(lesson.scenario):
        if isinstance(event.link, LinkEvent):
            _check_machine(event.link.vm, ("scenario", number, "link", "vm"), machines, marks)


def _check_pokes(lesson: Lesson, machines: Sequence[str], marks: Marks) -> None:
    """Note changes of fields that do not exist, or do not hold the value."""
    layout = _layout(_world_or_usual(lesson))
    for number, event in enumerate(lesson.scenario):
        poke, at = event.poke, ("scenario", number, "poke")
        if not isinstance(poke, PokeEvent):
            continue
        _check_machine(poke.vm, (*at, "vm"), machines, marks)
        try:
            length = layout.field_place(poke.field)[1]
        except ValueError as error:
            marks.add((*at, "field"), f"{shown(poke.field)}: {error}")
            continue
        if poke.value >> 8 * length:
            most = (1 << 8 * length) - 1
            marks.add((*at, "value"), f"{poke.value} does not fit into {poke.field}; the largest value is {most}")
