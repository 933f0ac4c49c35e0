"""Two whole hosts: what goes over the cable, whose code runs, and what it costs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from driving import KNOWN, Driven, Item, burst

from virtviz.engine.trace import Trace
from virtviz.errors import KnobError
from virtviz.lesson.build import build
from virtviz.lesson.loader import load
from virtviz.paths.cable import ROOM
from virtviz.paths.capture import frames_at
from virtviz.paths.hosts import host_of
from virtviz.paths.knobs import make_world
from virtviz.paths.tunnel import HERE, THERE
from virtviz.spec.tunnels import OUTER_BYTES

LESSONS = Path(__file__).parents[2] / "lessons"
HOSTS = {"hosts": 2}
PING = [Item(to_vm=1), Item(vm=1, to_vm=0, answers=0)]
PATHS = {
    "vhost-net": {},
    "vhost-net, VXLAN": {"tunnel": "vxlan"},
    "vhost-net, Geneve": {"tunnel": "geneve"},
    "bridge": {"switch": "bridge"},
    "two pairs": {"queues": 2},
    "QEMU": {"path": "virtio-qemu"},
    "QEMU, packed, VXLAN": {"path": "virtio-qemu", "queue.format": "packed", "tunnel": "vxlan"},
    "e1000": {"path": "e1000"},
    "vhost-user": {"path": "vhost-user"},
    "vhost-user, packed": {"path": "vhost-user", "queue.format": "packed"},
    "vhost-user, DPDK guests": {"path": "vhost-user", "guest": "dpdk"},
    "virtio-mmio": {"transport": "mmio"},
}
COSTS = ("light_exits", "heavy_exits", "interrupts", "host_copies", "host_syscalls", "guest_copies", "dma_transfers")


@cache
def ping(name):
    return Driven(PING, HOSTS, KNOWN, PATHS[name]).run()


def steps_of(found, packet):
    return [step for step in found.steps() if step.packet == packet]


@pytest.mark.parametrize("name", PATHS)
def test_a_ping_goes_to_the_other_host_and_back(name):
    found = ping(name)
    assert found.simulation.dropped() == {}
    for packet in (1, 2):
        passed = [step.milestone for step in steps_of(found, packet) if step.milestone]
        assert passed.count("on-wire") == passed.count("from-wire") == passed.count("received") == 1


@pytest.mark.parametrize("name", PATHS)
def test_what_a_host_does_is_done_by_its_own_threads_in_its_own_places(name):
    for step in ping(name).steps():
        if step.domain.is_guest:
            continue
        on_second = host_of(step.thread) == 2 or step.thread.startswith(("vm2.", "vhost-4012", "qemu-4012"))
        assert (host_of(step.place) == 2) == on_second, (step.thread, step.place)


@pytest.mark.parametrize("name", PATHS)
def test_both_ways_go_through_both_hosts_once(name):
    """The answer costs what the question costs: each is sent by one host and received by the other."""
    found = ping(name)
    on_host = {packet: [host_of(step.place) for step in steps_of(found, packet) if step.milestone] for packet in (1, 2)}
    assert 2 in on_host[1]
    assert on_host[2][-1] == 1
    wire = {
        packet: [(s.milestone, s.place) for s in steps_of(found, packet) if "-wire" in s.milestone] for packet in (1, 2)
    }
    assert [host_of(place) for _, place in wire[1]] == [1, 2]
    assert [host_of(place) for _, place in wire[2]] == [2, 1]


@pytest.mark.parametrize(
    "settings", [{}, {"path": "virtio-qemu"}, {"path": "vhost-user"}, {"tunnel": "vxlan"}], ids=str
)
def test_a_packet_costs_what_it_costs_out_of_one_host_and_into_the_other(settings):
    rested = {"vcpu": "halted"}

    def costs(item, hosts):
        counted = Driven([item], {"hosts": hosts}, KNOWN, rested, settings).run().counters()
        return {name: counted[name] for name in COSTS if name in counted}

    across = costs(Item(kind="udp", length=18, to_vm=1), 2)
    out, into = costs(Item(kind="udp", length=18), 1), costs(Item(kind="udp", length=18, outgoing=False), 1)
    assert across == {name: out[name] + into[name] for name in out}


@pytest.mark.parametrize("tunnel", ["none", "vxlan", "geneve"])
def test_the_same_bytes_leave_one_card_and_reach_the_other(tunnel):
    found = Driven([Item(to_vm=1, kind="udp", length=40)], HOSTS, KNOWN, {"tunnel": tunnel}).run()
    trace = Trace(found.machine)
    left, came = (
        [frame for _, frame in frames_at(found.simulation, trace, place)] for place in ("eth0.hw", "host2.eth0.hw")
    )
    assert left == came
    (frame,) = left
    inner = found.simulation.traffic.frame(1)
    assert frame[-len(inner) :] == inner
    assert len(frame) == len(inner) + (0 if tunnel == "none" else OUTER_BYTES)
    if tunnel != "none":
        assert (frame[:6], frame[6:12]) == (THERE.mac, HERE.mac)
        assert (frame[26:30], frame[30:34]) == (HERE.ip, THERE.ip)


def test_the_way_back_through_a_tunnel_has_the_outer_addresses_turned_round():
    found = ping("vhost-net, VXLAN")
    _, answer = (frame for _, frame in frames_at(found.simulation, Trace(found.machine), "wire"))
    assert (answer[26:30], answer[30:34]) == (THERE.ip, HERE.ip)


def test_each_host_asks_its_own_vswitchd():
    found = Driven(PING[:1], HOSTS, {"flows": "unknown"}).run()
    asked = [step.place for step in found.steps() if any(effect.kind == "upcall" for effect in step.effects)]
    assert asked == ["ovs", "host2.ovs"]


def test_a_card_waits_where_the_cable_is_full():
    world = Driven(burst(4 * ROOM, to_vm=1), HOSTS, KNOWN, {"nic_ring": 512, "socket_sndbuf": 1 << 24})
    world.run(without=["host2.eth0"])
    assert world.cell("host2.wire.coming.put") == ROOM
    assert world.simulation.dropped() == {}
    world.run()
    assert world.cell("host2.wire.coming.put") == world.cell("host2.wire.coming.taken") == 4 * ROOM
    assert sum(step.milestone == "received" for step in world.steps()) == 4 * ROOM


def test_what_a_card_has_no_room_for_is_counted_on_its_host():
    world = Driven(burst(40, to_vm=1), HOSTS, KNOWN, {"nic_ring": 16, "socket_sndbuf": 1 << 24})
    world.run(without=["host2.softirq"])
    world.run()
    dropped = world.simulation.dropped()
    assert set(dropped) == {"host2.eth0.rx_missed"}
    assert dropped["host2.eth0.rx_missed"] + sum(step.milestone == "received" for step in world.steps()) == 40


def test_two_hosts_go_back_to_the_beginning():
    found = Driven(PING, HOSTS, {"tunnel": "geneve", "flows": "unknown"})
    digest = found.machine.digest()
    found.run()
    found.machine.seek(0)
    assert found.machine.digest() == digest


@pytest.mark.parametrize("name", ["1-first-packet", "3-vhost"])
def test_a_lesson_can_be_played_on_two_hosts(name):
    """Whoever was far is the machine on the other host."""
    world, traffic = build(load(LESSONS / f"{name}.yaml"), [{"hosts": 2}])
    assert world.number("vms") == 2
    assert all(item.outgoing and item.to_vm == 1 - item.vm for item in traffic.items)


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"vms": 1}, "set vms=2, or hosts=1"),
        ({"begin": "power-on"}, "hosts=1"),
        ({"far_port": "veth"}, "set far_port=nic"),
        ({"path": "program"}, "hosts=1"),
        ({"features": "csum"}, "leave them out of features"),
        ({"path": "vhost-user", "tunnel": "vxlan"}, "set tunnel=none"),
    ],
    ids=str,
)
def test_what_does_not_go_together_with_two_hosts_is_refused(settings, advice):
    with pytest.raises(KnobError, match=advice):
        make_world(HOSTS, settings)


@pytest.mark.parametrize("item", [Item("stranger", outgoing=False), Item(outgoing=False)])
def test_a_frame_from_nobody_on_the_cable_is_refused(item):
    with pytest.raises(KnobError, match="comes from neither virtual machine"):
        Driven([item], HOSTS)
