"""Every setting shows an effect in the trace, and what cannot be set together is refused with what to do.

A setting that has no entry here fails the tests: whoever adds one says what it changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from driving import IN, KNOWN, OUT, Driven, Item, Pause, burst

from virtviz.engine.trace import Trace
from virtviz.errors import KnobError
from virtviz.paths.capture import frames_at
from virtviz.paths.describe import describe
from virtviz.paths.knobs import KNOBS, PROFILES, make_world
from virtviz.paths.traffic import Poke

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PING = [Item(), Item(outgoing=False, answers=0)]
LARGE = [Item(kind="udp", length=900, fragments=3)]
NO_LIMIT = {"socket_sndbuf": 1 << 24}
QEMU = {"path": "virtio-qemu"}
NO_APICV = {"apicv": "off"}
OLD = {"guest_bql": "off"}
E1000 = {"path": "e1000"}
PROGRAM = {"path": "program"}
POWER_ON = {"begin": "power-on"}
OFFLOADS = {"features": "csum,tso"}
HALTED = {"vcpu": "halted"}
POLLED = {"path": "vhost-user", "switch": "ovs-dpdk"}
ACROSS = [Item(to_vm=1, kind="udp")]
BAD_HEAD = [OUT, Poke("transmitq1", "avail.ring[0]", 999)]


# What can be seen of a run


def counter(name):
    return lambda world: world.counters()[name]


def done(op, outcome=None):
    """Count how often an op was done, with an outcome or any."""
    return lambda world: sum(step.op == op and outcome in (None, step.outcome) for step in world.steps())


def milestones(name):
    return lambda world: sum(step.milestone == name for step in world.steps())


def written(field):
    """List the values that a field of a ring was given."""
    return lambda world: [write.new for step in world.steps() for write in step.writes if write.field == field]


def functions(*names):
    """Say which of some functions of the real system ran."""
    return lambda world: sorted({step.function for step in world.steps()} & {*names})


def places(*names):
    return lambda world: sorted({step.place for step in world.steps()} & {*names})


def threads(*beginnings):
    """Say which threads of some names ran."""
    return lambda world: sorted({step.thread for step in world.steps() if step.thread.startswith(beginnings)})


def last_time(world):
    """Give the simulated time at which the last step began."""
    return max(step.t_ns for step in world.steps())


def ran_back_end(world):
    """Name which back-end took the packet out of the guest, by the block of rows."""
    blocks = {"V-TX.7": "vhost", "Q-TX.7": "qemu"}
    return sorted({blocks[step.row] for step in world.steps() if step.row in blocks})


def vnis(world):
    """List the tunnel identifiers of the frames on the wire: bytes 46 to 48, behind 14 + 20 + 8 + 4 of headers."""
    frames = frames_at(world.simulation, Trace(world.machine), "wire")
    return [int.from_bytes(frame[1][46:49], "big") for frame in frames]


def workers(world):
    """Count the threads of vhost-net."""
    return sum(thread.name.startswith("vhost-") for thread in world.machine.threads)


def drawn_slots(world):
    """Say how many slots a reader of the header draws."""
    return describe(world.simulation).world["queue.show"]


@dataclass(frozen=True, slots=True)
class Effect:
    """What a setting changes.

    Attributes:
        first, second: two worlds that differ in the setting alone.
        items: what is sent in both.
        seen: what is looked at.
        values: what is seen in each.
        late_backend: the back-end does not move until nobody else can.
    """

    first: Mapping[str, object]
    second: Mapping[str, object]
    items: Sequence[Item | Pause | Poke]
    seen: Callable[[Driven], object]
    values: tuple[object, object]
    late_backend: bool = False


EFFECTS: dict[str, Effect] = {
    "path": Effect({}, QEMU, PING, places("vhost_net", "qemu"), (["vhost_net"], ["qemu"])),
    "transport": Effect({}, {"transport": "mmio"}, [OUT], counter("heavy_exits"), (0, 2)),
    "ioeventfd": Effect(QEMU, QEMU | {"ioeventfd": "off"}, [OUT], counter("heavy_exits"), (0, 1)),
    "features": Effect(
        {"features": "event_idx"}, {"features": "event_idx,indirect"}, LARGE, done("write_indirect_desc"), (0, 1)
    ),
    "queue.size": Effect(
        {"queue.size": 64} | NO_LIMIT,
        {"queue.size": 128} | NO_LIMIT,
        burst(200),
        milestones("notified"),
        (5, 2),
        late_backend=True,
    ),
    "queue.format": Effect(QEMU, QEMU | {"queue.format": "packed"}, [OUT], written("avail.idx"), ([1], [])),
    "queue.start": Effect({}, {"queue.start": 65535}, [OUT], written("avail.idx"), ([1], [0])),
    "queue.show": Effect({}, {"queue.show": 16}, [OUT], drawn_slots, (8, 16)),
    "begin": Effect({}, POWER_ON, [OUT], functions("vm_start"), ([], ["vm_start"])),
    "launcher": Effect(POWER_ON, POWER_ON | {"launcher": "hand"}, [OUT], places("libvirtd"), (["libvirtd"], [])),
    "qemu_version": Effect(POWER_ON, POWER_ON | {"qemu_version": "7.2"}, [OUT], done("probe_uso"), (1, 0)),
    "vhost_start": Effect(POWER_ON, POWER_ON | {"vhost_start": "fails"}, [OUT], ran_back_end, (["vhost"], ["qemu"])),
    "refuse_features": Effect(POWER_ON, POWER_ON | {"refuse_features": "on"}, [OUT], milestones("on-wire"), (1, 0)),
    "eventfd_programs": Effect(
        {}, {"eventfd_programs": "counter"}, [OUT], places("eventfd_object"), ([], ["eventfd_object"])
    ),
    "hosts": Effect({"vms": 2}, {"vms": 2, "hosts": 2}, ACROSS, done("put_on_wire"), (0, 1)),
    "vms": Effect({}, {"vms": 2}, PING, lambda world: len(world.simulation.vms), (1, 2)),
    "machine": Effect(E1000, E1000 | {"machine": "q35"}, [OUT], counter("host_syscalls"), (6, 10)),
    "guest": Effect(POLLED, POLLED | {"guest": "dpdk"}, [IN], counter("interrupts"), (1, 0)),
    "queues": Effect({}, {"queues": 2}, [OUT], workers, (1, 2)),
    "steering": Effect(
        {"queues": 2},
        {"queues": 2, "steering": "rss"},
        PING,
        functions("tun_flow_update", "tun_ebpf_select_queue"),
        (["tun_flow_update"], ["tun_ebpf_select_queue"]),
    ),
    "rx_buffer": Effect({}, {"rx_buffer": 64}, [Item(outgoing=False)], written("used.idx"), ([1], [2])),
    "napi_tx": Effect({}, {"napi_tx": "off"}, [OUT, Pause(), OUT], counter("interrupts"), (2, 1)),
    "tx_stop_threshold": Effect(
        {"queue.size": 64} | NO_LIMIT,
        {"queue.size": 64, "tx_stop_threshold": 40} | NO_LIMIT,
        burst(60),
        done("stop_if_full", "stopped"),
        (1, 2),
        late_backend=True,
    ),
    "guest_bql": Effect(
        {"bql_limit_min": 500},
        {"bql_limit_min": 500} | OLD,
        burst(40),
        milestones("notified"),
        (3, 1),
        late_backend=True,
    ),
    "bql_limit_min": Effect({}, {"bql_limit_min": 500}, burst(40), milestones("notified"), (1, 3), late_backend=True),
    "socket_sndbuf": Effect({}, {"socket_sndbuf": 4096}, burst(40), milestones("notified"), (1, 7), late_backend=True),
    "cpu": Effect(
        NO_APICV,
        NO_APICV | {"cpu": "amd"},
        [OUT],
        functions("vmx_deliver_interrupt", "svm_deliver_interrupt"),
        (["vmx_deliver_interrupt"], ["svm_deliver_interrupt"]),
    ),
    "apicv": Effect({}, NO_APICV, [OUT], counter("light_exits"), (1, 2)),
    "vcpu": Effect({}, {"vcpu": "halted"}, [IN], counter("vcpu_wakeups"), (0, 1)),
    "halt_poll_ns": Effect(HALTED, HALTED | {"halt_poll_ns": 200000}, [IN], counter("vcpu_wakeups"), (1, 0)),
    "pv_eoi": Effect(NO_APICV, NO_APICV | {"pv_eoi": "off"}, [OUT], counter("light_exits"), (2, 3)),
    "fast_mmio": Effect(
        {}, {"fast_mmio": "off"}, [OUT], functions("x86_emulate_instruction"), ([], ["x86_emulate_instruction"])
    ),
    "guest_if": Effect({}, {"guest_if": "off"}, [OUT], done("enable_interrupts"), (0, 1)),
    "host_kernel": Effect(
        {},
        {"host_kernel": "6.1"},
        [OUT],
        functions("vhost_worker", "vhost_run_work_list"),
        (["vhost_run_work_list"], ["vhost_worker"]),
    ),
    "guest_kernel": Effect(
        OLD,
        OLD | {"guest_kernel": "6.1"},
        [OUT],
        functions("free_old_xmit", "free_old_xmit_skbs"),
        (["free_old_xmit"], ["free_old_xmit_skbs"]),
    ),
    "sndbuf": Effect(
        {},
        {"sndbuf": "limited"},
        [OUT],
        functions("tun_xdp_one", "tun_get_user"),
        (["tun_xdp_one"], ["tun_get_user"]),
    ),
    "busy_poll_us": Effect(
        {}, {"busy_poll_us": 50}, [OUT], functions("vhost_net_busy_poll"), ([], ["vhost_net_busy_poll"])
    ),
    "tx_batch": Effect({}, {"tx_batch": 4}, burst(40), done("publish_used_idx"), (1, 10), late_backend=True),
    "weight": Effect({}, {"weight": 8}, burst(40), done("requeue"), (0, 5), late_backend=True),
    "txqueuelen": Effect({}, {"txqueuelen": 4}, burst(20, outgoing=False), counter("drops"), (0, 16)),
    "switch": Effect({}, {"switch": "bridge"}, [OUT], places("ovs", "bridge"), (["ovs"], ["bridge"])),
    "flows": Effect({"flows": "known"}, {"flows": "unknown"}, [OUT], counter("upcalls"), (0, 1)),
    "ovs_flow_count": Effect(
        {"flows": "unknown"}, {"flows": "unknown", "ovs_flow_count": "stale"}, [OUT], counter("host_syscalls"), (9, 11)
    ),
    "ovs_dispatch": Effect(
        {"flows": "unknown"},
        {"flows": "unknown", "ovs_dispatch": "per-vport"},
        PING,
        counter("host_syscalls"),
        (18, 20),
    ),
    "upcall_rcvbuf": Effect(
        {"flows": "unknown"}, {"flows": "unknown", "upcall_rcvbuf": 2048}, burst(20), counter("drops"), (0, 18)
    ),
    "handlers": Effect(
        {"flows": "unknown"},
        {"flows": "unknown", "handlers": 1},
        PING,
        threads("handler"),
        (["handler1", "handler2"], ["handler1"]),
    ),
    "far_port": Effect({}, {"far_port": "veth"}, PING, counter("hw_interrupts"), (1, 0)),
    "tunnel": Effect({}, {"tunnel": "vxlan"}, [OUT], places("vxlan_sys_4789"), ([], ["vxlan_sys_4789"])),
    "vni": Effect({"tunnel": "vxlan", "vni": 42}, {"tunnel": "vxlan", "vni": 43}, [OUT], vnis, ([42], [43])),
    "nic_ring": Effect({}, {"nic_ring": 8}, burst(40), done("write_desc", "stopped"), (0, 1), late_backend=True),
    "nic_tso": Effect(OFFLOADS, OFFLOADS | {"nic_tso": "off"}, [Item(kind="tcp", length=3000)], counter("dma"), (1, 3)),
    "nic_tx_frames": Effect({}, {"nic_tx_frames": 2}, burst(40), counter("hw_interrupts"), (0, 1)),
    "store_buffer": Effect({}, {"store_buffer": "on"}, [OUT], threads("vm1.vcpu0.stores"), ([], ["vm1.vcpu0.stores"])),
    "schedule": Effect({}, {"schedule": "time"}, burst(40), milestones("notified"), (1, 16)),
    "costs": Effect({}, {"costs": "cloud-vm-2026"}, [OUT], last_time, (5193, 42034)),
    "device": Effect(PROGRAM, PROGRAM | {"device": "tun"}, [OUT], places("ovs"), (["ovs"], [])),
    "device_checks": Effect({}, {"device_checks": "qemu"}, BAD_HEAD, done("give_up"), (0, 1)),
}
"""Setting -> what it changes."""


def test_every_knob_is_accounted_for():
    assert {*EFFECTS} == set(KNOBS), "say in EFFECTS what the setting changes in the trace"


@pytest.mark.parametrize("knob", EFFECTS)
def test_a_knob_has_the_effect_that_it_is_there_for(knob):
    effect = EFFECTS[knob]
    seen = []
    for settings in (effect.first, effect.second):
        world = Driven(effect.items, KNOWN, settings)
        if effect.late_backend:
            world.run(without=["-4002"])
        seen.append(effect.seen(world.run()))
    assert tuple(seen) == effect.values
    assert make_world(KNOWN, effect.first)[knob] != make_world(KNOWN, effect.second)[knob]


@pytest.mark.parametrize("knob", EFFECTS)
def test_nothing_but_the_knob_differs_between_its_two_worlds(knob):
    first, second = (make_world(KNOWN, settings) for settings in (EFFECTS[knob].first, EFFECTS[knob].second))
    follow = {name for name in KNOBS if knob in [leader for leader, _, _ in KNOBS[name].follows]}
    assert {name for name in KNOBS if first[name] != second[name]} - follow == {knob}


# What does not go together

REFUSED: Sequence[tuple[Mapping[str, object], str, str, Mapping[str, object]]] = (
    ({"queue.size": 16}, "queue.size", "set tx_stop_threshold below 16 (real Linux cannot)", {"tx_stop_threshold": 4}),
    (
        {"queue.size": 64, "tx_stop_threshold": 64},
        "queue.size",
        "set tx_stop_threshold below 64",
        {"tx_stop_threshold": 63},
    ),
    ({"cpu": "amd"}, "apicv", "set apicv=off", {"apicv": "off"}),
    ({"guest_kernel": "6.1"}, "guest_bql", "set guest_bql=off", {"guest_bql": "off"}),
    ({"ioeventfd": "off"}, "ioeventfd", "set path=virtio-qemu", {"path": "virtio-qemu"}),
    (
        {"busy_poll_us": 50, "path": "virtio-qemu"},
        "busy_poll_us",
        "set path=vhost-net, or busy_poll_us=0",
        {"busy_poll_us": 0},
    ),
    ({"sndbuf": "limited", "path": "virtio-qemu"}, "sndbuf", "set path=vhost-net", {"path": "vhost-net"}),
    ({"steering": "rss"}, "steering", "set queues=2", {"queues": 2}),
    ({"sndbuf": "limited", "queues": 2}, "sndbuf", "set queues=1", {"queues": 1}),
    ({"sndbuf": "limited", "busy_poll_us": 9}, "sndbuf", "set busy_poll_us=0", {"busy_poll_us": 0}),
    ({"halt_poll_ns": 200000}, "halt_poll_ns", "set vcpu=halted", {"vcpu": "halted"}),
    ({"pv_eoi": "off"}, "pv_eoi", "set apicv=off", {"apicv": "off"}),
    ({"profile": "recorded", "fast_mmio": "off"}, "fast_mmio", "fast_mmio=on", {"fast_mmio": "on"}),
    ({"switch": "bridge", "tunnel": "vxlan"}, "tunnel", "set switch=ovs, or tunnel=none", {"switch": "ovs"}),
    ({"switch": "ovs-dpdk"}, "switch", "set path=vhost-user", {"path": "vhost-user"}),
    ({"path": "vhost-user", "switch": "bridge"}, "switch", "set switch=ovs-dpdk", {"switch": "ovs-dpdk"}),
    ({"queue.size": 100}, "queue.size", "set a power of two, or queue.format=packed", {"queue.size": 128}),
    (
        {"queue.format": "packed", "path": "vhost-user", "guest": "dpdk"},
        "queue.format",
        "set guest=kernel",
        {"guest": "kernel"},
    ),
    ({"refuse_features": "on"}, "refuse_features", "set begin=power-on", {"begin": "power-on"}),
    ({"vhost_start": "fails"}, "vhost_start", "set begin=power-on", {"begin": "power-on"}),
    ({"begin": "power-on", "vms": 2}, "begin", "set vms=1", {"vms": 1}),
    ({"hosts": 2, "vms": 1}, "vms", "set vms=2", {"vms": 2}),
    ({"hosts": 2, "far_port": "dummy"}, "far_port", "set far_port=nic", {"far_port": "nic"}),
    ({"hosts": 2, "begin": "power-on"}, "begin", "set begin=running", {"begin": "running"}),
    ({"hosts": 2, "path": "program"}, "path", "set path=vhost-net", {"path": "vhost-net"}),
    ({"hosts": 2, "features": "csum"}, "features", "leave them out", {"features": "event_idx"}),
    ({"begin": "power-on", "path": "e1000"}, "begin", "begin=running", {"begin": "running"}),
    ({"transport": "mmio", "path": "vhost-user"}, "transport", "set path=vhost-net", {"path": "vhost-net"}),
    ({"transport": "mmio", "path": "program"}, "transport", "or transport=pci", {"transport": "pci"}),
    ({"transport": "mmio", "path": "e1000"}, "transport", "leave transport at pci", {"path": "virtio-qemu"}),
    ({"transport": "mmio", "guest": "dpdk", "path": "virtio-qemu"}, "guest", "set guest=kernel", {"guest": "kernel"}),
    ({"transport": "mmio", "queues": 2}, "queues", "set queues=1", {"queues": 1}),
    ({"transport": "mmio", "machine": "q35"}, "machine", "set machine=direct", {"machine": "direct"}),
    ({"transport": "mmio", "apicv": "off", "pv_eoi": "off"}, "pv_eoi", "set pv_eoi=on", {"pv_eoi": "on"}),
    ({"transport": "mmio", "fast_mmio": "off"}, "fast_mmio", "set fast_mmio=on", {"transport": "pci"}),
    (
        {"transport": "mmio", "begin": "power-on", "launcher": "libvirt"},
        "launcher",
        "set launcher=hand",
        {"launcher": "hand"},
    ),
    (
        {"transport": "mmio", "begin": "power-on", "qemu_version": "7.2"},
        "qemu_version",
        "set qemu_version=10.0",
        {"qemu_version": "10.0"},
    ),
    (
        {"transport": "mmio", "begin": "power-on", "vhost_start": "fails"},
        "vhost_start",
        "set vhost_start=ok",
        {"transport": "pci"},
    ),
    ({"device": "tun"}, "device", "set device=tap", {"device": "tap"}),
    ({"queue.format": "packed"}, "queue.format", "use split", {"queue.format": "split"}),
)
"""Settings that contradict each other, the one that is named, what is advised, and that advice as settings."""


@pytest.mark.parametrize(("settings", "knob", "advice", "followed"), REFUSED, ids=str)
def test_a_contradiction_is_refused_with_advice_that_can_be_followed(settings, knob, advice, followed):
    with pytest.raises(KnobError) as caught:
        make_world(settings)
    assert caught.value.knob == knob
    assert advice in str(caught.value)
    make_world(settings, followed)


@pytest.mark.parametrize("knob", KNOBS)
def test_each_value_that_a_knob_may_not_have_is_refused_with_those_it_may_have(knob):
    found = KNOBS[knob]
    numbers = [] if found.choices or found.members else [found.low - 1, found.high + 1]
    for wrong in ["certainly not", "", *numbers]:
        if found.members and not wrong:
            continue
        with pytest.raises(KnobError) as caught:
            make_world({knob: wrong})
        assert str(caught.value).startswith(f"{knob} is {found.allowed()}, not ")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("knob", KNOBS)
def test_each_value_that_a_knob_may_have_makes_a_world_or_is_refused_with_what_to_do(knob, profile):
    found = KNOBS[knob]
    values = found.choices or ([*found.members, "none"] if found.members else [found.low, found.high])
    for value in values:
        said = refusal_of({"profile": profile, knob: value})
        assert not said or any(word in said for word in ("set ", "use ", "add ")), said


def refusal_of(settings):
    """Give what is said to settings that are refused; empty if they are not."""
    try:
        make_world(settings)
    except KnobError as error:
        return str(error)
    return ""
