"""Worlds, traffic and schedules for properties to be tried on, and what to ask of a run.

A schedule is a seed and three habits: how long a thread runs before another may, how long a held thread is held, how
often one is. With any of them every thread that can move moves at some time, so each is fair.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from virtviz.engine.effects import EffectKind
from virtviz.engine.schedule import Chosen
from virtviz.engine.trace import Step, Trace
from virtviz.paths.knobs import World, make_world
from virtviz.paths.traffic import Item, Pause, Traffic, make_traffic

if TYPE_CHECKING:
    from virtviz.engine.machine import Machine
    from virtviz.paths.wiring import Simulation

FEATURES = ("event_idx", "indirect", "mergeable")
STEPS_MAX = 60_000


@st.composite
def worlds(draw: st.DrawFn, **fixed: object) -> World:
    """Draw settings that go together; some are given. From a dummy far port nothing can come: it has its own test."""
    size = draw(st.sampled_from((4, 8, 16, 64, 256)))
    settings: dict[str, object] = {
        "features": sorted(draw(st.frozensets(st.sampled_from(FEATURES)))),
        "queue.size": size,
        "queue.start": draw(st.sampled_from((0, 65535, 65534, 65530, 65280))),
        "tx_stop_threshold": draw(st.integers(1, min(19, size - 1))),
        "napi_tx": draw(st.sampled_from(("on", "on", "off"))),
        "bql_limit_min": draw(st.sampled_from((65536, 0, 300))),
        "guest_bql": draw(st.sampled_from(("on", "off"))),
        "socket_sndbuf": draw(st.sampled_from((212992, 4096))),
        "cpu": draw(st.sampled_from(("intel", "amd"))),
        "vcpu": draw(st.sampled_from(("running", "halted"))),
        "guest_if": draw(st.sampled_from(("on", "on", "off"))),
        "tx_batch": draw(st.sampled_from((64, 1, 2))),
        "weight": draw(st.sampled_from((256, 1, 3))),
        "txqueuelen": draw(st.sampled_from((1000, 1, 4))),
        "switch": draw(st.sampled_from(("ovs", "ovs", "bridge"))),
        "flows": draw(st.sampled_from(("known", "unknown"))),
        "handlers": draw(st.integers(1, 3)),
        "far_port": draw(st.sampled_from(("nic", "nic", "veth"))),
        "nic_ring": draw(st.sampled_from((512, 8))),
        "nic_tx_frames": draw(st.sampled_from((64, 1, 3))),
        # Half a ring of buffers has to hold the longest frame: the guest refills no earlier.
        "rx_buffer": draw(st.sampled_from([n for n in (1536, 256, 64) if n * size // 2 > 1500])),
        "ovs_flow_count": draw(st.sampled_from(("fresh", "stale"))),
        "store_buffer": draw(st.sampled_from(("off", "off", "on"))),
        "path": draw(st.sampled_from(("vhost-net", "virtio-qemu", "vhost-user"))),
    } | fixed
    if settings["path"] == "vhost-user":
        settings |= {"switch": "ovs-dpdk", "far_port": "nic"}
        if fixed.get("vms") == 2:
            settings["store_buffer"] = "off"
    settings["ioeventfd"] = draw(st.sampled_from(("on", "off"))) if settings["path"] == "virtio-qemu" else "on"
    if settings["path"] == "vhost-net":
        settings["busy_poll_us"] = draw(st.sampled_from((0, 0, 50)))
        settings["sndbuf"] = (
            "unlimited" if settings["busy_poll_us"] else draw(st.sampled_from(("unlimited", "limited")))
        )
    if settings["vcpu"] == "halted":
        settings["halt_poll_ns"] = draw(st.sampled_from((0, 200000)))
    if settings["cpu"] == "intel" and settings["ioeventfd"] == "on":
        settings["fast_mmio"] = draw(st.sampled_from(("on", "on", "off")))
    if fixed.get("vms") == 2 and settings["switch"] == "bridge":
        # It would flood to the other machine, and that goes together with no more than one.
        settings["flows"] = "known"
    if "guest" not in fixed and draw(st.sampled_from((False, False, True))):
        known = sorted({*settings["features"]} - {"event_idx"})
        settings |= {"guest": "dpdk", "vcpu": "running", "halt_poll_ns": 0, "features": known}
        # DPDK's driver makes tables longer than its queue, and DPDK's other side looks at them again for ever.
        settings["queue.size"] = size = max(size, 8)
    chosen = settings | fixed
    if _can_be_packed(chosen) and draw(st.booleans()):
        # In a packed ring any number of descriptors goes. DPDK gives a table of as many as the ring has back unsent.
        size = max(size, 8) if chosen["path"] == "vhost-user" else size
        settings |= {"queue.format": "packed", "queue.size": size + draw(st.sampled_from((0, 0, 1, 2, 7)))}
    if settings["switch"] == "ovs":
        settings["tunnel"] = draw(st.sampled_from(("none", "none", "vxlan", "geneve")))
    settings["apicv"] = draw(st.sampled_from(("on", "off"))) if settings["cpu"] == "intel" else "off"
    settings["pv_eoi"] = draw(st.sampled_from(("on", "off"))) if settings["apicv"] == "off" else "on"
    return _without_lost_interrupts(make_world(settings | fixed))


def _without_lost_interrupts(world: World) -> World:
    """Leave out the worlds in which QEMU does lose one: `test_every_interleaving` has a test of its own of that."""
    loses_one = world["queue.format"] == "packed" and world["path"] == "virtio-qemu"
    return make_world(world.plain(), {"store_buffer": "off"}) if loses_one else world


def _can_be_packed(settings: dict[str, object]) -> bool:
    has_them = settings["path"] in ("virtio-qemu", "vhost-user") and settings.get("guest") != "dpdk"
    return has_them and settings.get("queue.format") != "split"


@st.composite
def traffics(draw: st.DrawFn, longest: int = 12) -> Traffic:
    """Draw a scenario: frames out, answered or not, frames in, of several flows and lengths, and pauses."""
    events: list[Item | Pause] = []
    items = 0
    for _ in range(draw(st.integers(1, longest))):
        what = draw(st.sampled_from(("out", "out", "echo", "in", "pause")))
        if what == "pause":
            events.append(Pause())
            continue
        kind, peer = draw(st.sampled_from(("icmp-echo", "udp"))), draw(st.integers(1, 3))
        length, fragments = draw(st.sampled_from((56, 0, 18, 200, 1400))), draw(st.sampled_from((1, 1, 2, 4)))
        if what == "in":
            events.append(Item(outgoing=False, kind=kind, length=length, peer=peer))
        else:
            events.append(Item(kind=kind, length=length, peer=peer, fragments=fragments))
        items += 1
        if what == "echo":
            events.append(Item(outgoing=False, kind=kind, length=length, peer=peer, answers=items - 1))
            items += 1
    return make_traffic(events, rounds=draw(st.sampled_from((1, 1, 2, 3))))


@st.composite
def traffics_of_two(draw: st.DrawFn, longest: int = 10, *, only_across: bool = False) -> Traffic:
    """Draw a scenario of two virtual machines: between them, answered or not, and to and from the wire.

    On two hosts nobody else is on the wire: with `only_across` all goes from one machine to the other.
    """
    kinds = ("across", "across", "asked", "pause")
    events: list[Item | Pause] = []
    items = 0
    for _ in range(draw(st.integers(1, longest))):
        what = draw(st.sampled_from(kinds if only_across else (*kinds, "out", "echo", "in")))
        if what == "pause":
            events.append(Pause())
            continue
        vm, kind = draw(st.integers(0, 1)), draw(st.sampled_from(("icmp-echo", "udp")))
        length, fragments = draw(st.sampled_from((56, 0, 18, 200, 1400))), draw(st.sampled_from((1, 1, 2, 4)))
        to_vm = 1 - vm if what in ("across", "asked") else -1
        asked = Item(
            vm=vm,
            to_vm=to_vm,
            outgoing=what != "in",
            kind=kind,
            length=length,
            fragments=fragments * (what != "in") or 1,
        )
        events.append(asked)
        items += 1
        if what in ("asked", "echo"):
            across = what == "asked"
            ends = {"vm": to_vm, "to_vm": vm} if across else {"vm": vm}
            events.append(Item(**ends, outgoing=across, kind=kind, length=length, answers=items - 1))
            items += 1
    return make_traffic(events, rounds=draw(st.sampled_from((1, 1, 2, 3))), vms=2)


@dataclass
class Habits:
    """A fair schedule, given by what a random generator is asked; it serves one run.

    Attributes:
        seed: of the generator.
        longest: steps a thread may take in a row.
        hold_one_in: a thread is held at one decision in so many; 0 for never.
        held_for: decisions for which it is held at most.
    """

    seed: int
    longest: int = 20
    hold_one_in: int = 0
    held_for: int = 100
    _left: int = 0
    _current: int = 0
    _held: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = Random(self.seed)

    def choose(self, machine: Machine) -> int:
        """Choose a thread that can move; -1 if none can."""
        movable = machine.movable()
        if not movable:
            return -1
        self._held = {index: left - 1 for index, left in self._held.items() if left}
        if self.hold_one_in and not self._random.randrange(self.hold_one_in):
            self._held[self._random.choice(movable)] = self._random.randrange(1, self.held_for + 1)
        # Where nothing but what is held could move, the hold ends: a pause of the others must not look like a stall.
        free = [index for index in movable if index not in self._held] or movable
        if not self._left or self._current not in free:
            self._current, self._left = self._random.choice(free), self._random.randrange(1, self.longest + 1)
        self._left -= 1
        return self._current

    def scheduler(self) -> Chosen:
        """Make a scheduler with these habits, from the beginning."""
        return Chosen(Habits(self.seed, self.longest, self.hold_one_in, self.held_for).choose)


def habits() -> st.SearchStrategy[Habits]:
    """Draw a fair schedule."""
    return st.builds(
        Habits,
        seed=st.integers(0, 2**32 - 1),
        longest=st.sampled_from((1, 3, 20, 200)),
        hold_one_in=st.sampled_from((0, 0, 10, 50)),
        held_for=st.sampled_from((10, 100, 500)),
    )


Flow = tuple[int, int, bool, int, str]
"""Sending machine, receiving one, direction, far host, kind."""


@dataclass
class Fates:
    """What became of the frames of a run.

    Attributes:
        arrived: frame -> how often it reached its end: the program that it is for, or the wire.
        order: for each flow (ends, kind), the frames in the order in which they arrived.
        began: the same for the order in which they set out: from the program, or from the wire.
        lost: frame -> how often it was dropped.
        drops: drops in all.
        up: frames that went up by upcall.
    """

    arrived: Counter[int] = field(default_factory=Counter)
    order: dict[Flow, list[int]] = field(default_factory=dict)
    began: dict[Flow, list[int]] = field(default_factory=dict)
    lost: Counter[int] = field(default_factory=Counter)
    drops: int = 0
    up: set[int] = field(default_factory=set)


def fates(simulation: Simulation) -> Fates:
    """Follow every frame of a run that has come to its end."""
    found = Fates()
    traffic = simulation.traffic
    trace = Trace(simulation.machine)
    for n in range(1, len(trace) + 1):
        step = trace.step(n)
        note_step(found, traffic, step)
    return found


def expected(traffic: Traffic, found: Fates) -> list[int]:
    """Give the frames that came into being: an answer does only if its question arrived.

    A virtual machine knows no better than by the frames it got whether to answer: what it did not send is none.
    """
    frames = range(1, traffic.packets + 1)
    questions = {traffic.answer_to(frame): frame for frame in frames}
    sent = {frame for began in found.began.values() for frame in began}
    answered = [frame for frame in frames if frame not in questions or found.arrived[questions[frame]]]
    return [frame for frame in answered if frame in sent or not _answers_another_machine(traffic, frame)]


def _answers_another_machine(traffic: Traffic, frame: int) -> bool:
    item = traffic.item_of(frame)[1]
    return item.to_vm >= 0 and item.answers >= 0


def note_step(found: Fates, traffic: Traffic, step: Step) -> None:
    """Add what one step means for its frame."""
    for effect in step.effects:
        if effect.kind is EffectKind.DROP:
            found.drops += 1
            found.lost[step.packet] += 1
        elif effect.kind is EffectKind.UPCALL:
            found.up.add(step.packet)
    if not step.packet:
        return
    item = traffic.item_of(step.packet)[1]
    flow = item.vm, item.receiver, item.outgoing, item.peer, item.kind
    if step.milestone == ("sent" if item.outgoing else "from-wire"):
        found.began.setdefault(flow, []).append(step.packet)
    if step.milestone == ("on-wire" if item.receiver < 0 else "received"):
        found.arrived[step.packet] += 1
        found.order.setdefault(flow, []).append(step.packet)
