"""A tunnel to the far host: what it adds to a packet's way, and the bytes that it puts in front of a frame."""

from __future__ import annotations

import struct

import dpkt
import pytest
from driving import KNOWN, Driven, Item, Pause, burst

from virtviz.engine.trace import Trace
from virtviz.errors import KnobError
from virtviz.paths.capture import frame_bytes, frames_at
from virtviz.paths.knobs import make_world
from virtviz.spec.frames import Endpoint
from virtviz.spec.tunnels import (
    GENEVE,
    INNER_MTU,
    OUTER_BYTES,
    VXLAN,
    must_stay_whole,
    outer_headers,
    source_port,
    vni_of,
)

PING = [Item("echo"), Item("reply", outgoing=False, answers=0)]
KINDS = {"vxlan": (4789, bytes.fromhex("0800000000002a00")), "geneve": (6081, bytes.fromhex("0000655800002a00"))}
HERE, THERE = b"\x0a\0\1\1", b"\x0a\0\1\2"
WAYS = [{}, {"path": "virtio-qemu"}, {"vcpu": "halted"}]
BIG = Item("big", kind="udp", length=INNER_MTU - 28 + 1)
FITS = Item("fits", kind="udp", length=INNER_MTU - 28)


def ran(items, *settings, tunnel="vxlan", **more):
    return Driven(items, {"tunnel": tunnel}, *settings, **more).run()


def wire_frames(world):
    return [frame for _, frame in frames_at(world.simulation, Trace(world.machine), "wire")]


def rows(world, block):
    found = [step.row for step in world.steps() if step.row.startswith(f"{block}.")]
    return [row for i, row in enumerate(found) if i == 0 or found[i - 1] != row]


# What it costs


@pytest.mark.parametrize("tunnel", KINDS)
@pytest.mark.parametrize("settings", WAYS, ids=["vhost-net", "virtio-qemu", "halted"])
def test_a_tunnel_costs_no_crossing_no_copy_and_no_wake_up(tunnel, settings):
    assert ran(PING, KNOWN, settings, tunnel=tunnel).counters() == Driven(PING, KNOWN, settings).run().counters()


@pytest.mark.parametrize("tunnel", KINDS)
@pytest.mark.parametrize("far_port", ["nic", "veth"])
def test_it_adds_three_rows_out_and_four_in(tunnel, far_port):
    world = ran(PING, KNOWN, {"far_port": far_port}, tunnel=tunnel)
    assert rows(world, "TUNNEL-TX") == [f"TUNNEL-TX.{n}" for n in (1, 2, 3)]
    assert rows(world, "TUNNEL-RX") == [f"TUNNEL-RX.{n}" for n in (1, 2, 3, 4)]


def test_of_a_flow_with_a_tunnel_two_actions_are_carried_out_and_of_another_one():
    steps = [step for step in ran(PING, KNOWN).steps() if step.row == "O-FWD.4"]
    assert [(step.packet, step.function) for step in steps] == [
        (1, "ovs_execute_actions"),
        (1, "execute_set_action"),
        (1, "ovs_execute_actions"),
        (2, "ovs_execute_actions"),
    ]


def test_all_of_it_runs_in_the_thread_that_sends_and_in_one_softirq():
    steps = ran(PING, KNOWN).steps()
    assert {step.thread for step in steps if step.row.startswith("TUNNEL-TX")} == {"vhost-4002"}
    assert {step.thread for step in steps if step.row.startswith("TUNNEL-RX")} == {"softirq/cpu1"}
    assert {step.thread for step in steps if step.row.startswith("O-FWD") and step.packet == 2} == {"softirq/cpu1"}


def test_the_switch_runs_in_the_second_poll_and_not_in_the_cards():
    ops = [(step.op, step.place) for step in ran(PING, KNOWN).steps() if step.packet == 2]
    queued, polled = ops.index(("queue_frame", "vxlan_sys_4789")), ops.index(("begin", "vxlan_sys_4789"))
    assert queued < polled < ops.index(("enter", "ovs"))


@pytest.mark.parametrize("far_port", ["nic", "veth"])
def test_frames_that_come_together_share_a_second_poll(far_port):
    world = Driven(burst(8, outgoing=False), KNOWN, {"tunnel": "vxlan", "far_port": far_port})
    world.move("vcpu0").run(without=["vcpu0", "vhost"])
    ops = [op for op, _ in world.ops()]
    assert ops.count("queue_frame") == 8
    assert ops.count("begin") - (far_port == "veth") * ops.count("next_frame") <= 8
    assert world.run().simulation.dropped() == {}
    assert world.vm.program.cells.received == 8


# Upcalls


@pytest.mark.parametrize("tunnel", KINDS)
def test_each_direction_of_a_flow_asks_once_and_the_question_carries_the_tunnel_key(tunnel):
    world = ran([*PING, Pause(), *PING[:1], Item("again", outgoing=False, answers=2)], {"vni": 77}, tunnel=tunnel)
    assert world.counters()["upcalls"] == 2
    tunnels = [world.cell(f"ovs.flows.tunnel[{slot}]") for slot in range(256)]
    assert sorted(key for key in tunnels if key) == [78]
    assert world.vm.program.cells.received == 2


def test_a_frame_of_another_virtual_network_is_another_flow():
    world = Driven(PING, KNOWN, {"tunnel": "vxlan"})
    world.simulation.machine.run(held={world.thread("eth0")})
    world.machine.threads[world.thread("eth0")].start.nic.wire.vni = 43
    world.run()
    assert world.counters()["upcalls"] == 1


# Bytes


@pytest.mark.parametrize("tunnel", KINDS)
@pytest.mark.parametrize("settings", [*WAYS, {"flows": "unknown"}, {"far_port": "veth"}])
def test_an_independent_decoder_finds_the_frame_inside(tunnel, settings):
    world = ran(PING, KNOWN, settings, tunnel=tunnel)
    port, header = KINDS[tunnel]
    ends = [(HERE, THERE), (THERE, HERE)]
    frames = wire_frames(world)
    assert len(frames) == len(PING)
    for number, (frame, (source, target)) in enumerate(zip(frames, ends, strict=True), 1):
        outer = dpkt.ethernet.Ethernet(frame)
        ip, datagram = outer.data, outer.data.data
        assert (ip.src, ip.dst, ip.ttl, ip.df, ip.mf, ip.offset) == (source, target, 64, 1, 0, 0)
        assert ip.id != 0
        assert ip.len == len(frame) - 14
        assert sum(struct.unpack("!10H", frame[14:34])) % 0xFFFF == 0
        assert (datagram.dport, datagram.sum, datagram.ulen) == (port, 0, len(frame) - 34)
        assert 32768 <= datagram.sport <= 60999
        assert datagram.data[:8] == header
        assert datagram.data[8:] == world.simulation.traffic.frame(number)
        assert len(frame) == world.simulation.traffic.length(number) + OUTER_BYTES


def test_packets_of_one_flow_have_one_source_port_and_those_of_others_another():
    world = ran([*burst(3), Item(kind="udp", length=18, peer=2)], KNOWN)
    ports = [dpkt.ethernet.Ethernet(frame).data.data.sport for frame in wire_frames(world)]
    assert ports[0] == ports[1] == ports[2] != ports[3]


def test_outer_packets_are_numbered():
    idents = [dpkt.ethernet.Ethernet(frame).data.id for frame in wire_frames(ran(burst(3), KNOWN))]
    assert idents == [1, 2, 3]


def test_the_guest_gets_what_was_sent_and_the_switch_sees_only_that():
    world = ran(PING, KNOWN)
    for place in ("tap0", "ovs", "vm1.virtio_net"):
        seen = [frame for _, frame in frames_at(world.simulation, Trace(world.machine), place)]
        assert seen == [world.simulation.traffic.frame(n) for n in (1, 2)], place


def test_every_step_of_a_packet_knows_its_bytes_with_or_without_the_tunnel():
    world = ran(PING, {"flows": "unknown"})
    trace = Trace(world.machine)
    for n in range(1, len(trace) + 1):
        step = trace.step(n)
        if step.packet:
            frame = world.simulation.traffic.frame(step.packet)
            found = frame_bytes(world.simulation, step)
            assert found[-len(frame) :] == frame, (n, step.op)
            assert len(found) - len(frame) in (0, OUTER_BYTES), (n, step.op)


# The largest frame


@pytest.mark.parametrize("tunnel", KINDS)
def test_the_largest_frame_that_fits_fills_the_network_below(tunnel):
    world = ran([FITS], KNOWN, tunnel=tunnel)
    assert [len(frame) for frame in wire_frames(world)] == [1514]
    assert world.simulation.dropped() == {}


@pytest.mark.parametrize(("tunnel", "device"), [("vxlan", "vxlan_sys_4789"), ("geneve", "genev_sys_6081")])
def test_a_frame_that_is_larger_by_a_byte_ends_at_the_tunnel_and_is_counted(tunnel, device):
    world = ran([BIG], KNOWN, tunnel=tunnel)
    assert world.simulation.dropped() == {f"{device}.too_big": 1}
    assert ("find_route", "dropped") in world.ops()
    assert wire_frames(world) == []
    # The guest's buffer comes back all the same.
    assert world.u16("used_idx") == 1


def test_a_large_packet_that_may_be_cut_fails_at_the_hosts_ip_because_the_outer_one_may_not():
    frame = bytearray(Driven([BIG]).simulation.traffic.frame(1))
    frame[20:22] = b"\0\0"
    world = ran([Item("raw", kind="raw", raw=bytes(frame), length=len(frame))], KNOWN)
    assert world.simulation.dropped() == {"host_ip.frag_fails": 1}


# What comes in and is no tunnel's


def damaged(change):
    """Run a ping whose answer is damaged on the wire."""
    world = Driven(PING, KNOWN, {"tunnel": "vxlan"})
    world.step_until("hard_interrupt")
    pool = world.simulation.pools["host"]
    slot = next(s for s, packet in enumerate(pool.cells.packet) if packet == 2 and pool.cells.length[s])
    at = pool.at[slot] - OUTER_BYTES
    offset, value = change
    pool.memory.write(at + offset, value)
    return world.run().simulation.dropped()


@pytest.mark.parametrize(
    ("change", "counter"),
    [
        ((0, b"\x02"), "host_ip.not_for_us"),
        ((30, b"\x0b"), "host_ip.not_for_us"),
        ((24, b"\xff"), "host_ip.not_for_us"),
        ((36, b"\0\x35"), "host_ip.no_port"),
        ((42, b"\0"), "vxlan_sys_4789.rx_dropped"),
        ((43, b"\1"), "vxlan_sys_4789.rx_dropped"),
    ],
)
def test_a_damaged_packet_is_dropped_where_the_damage_is_seen(change, counter):
    assert damaged(change) == {counter: 1}


# The engine


@pytest.mark.parametrize("settings", [{}, {"far_port": "veth"}, {"path": "virtio-qemu"}])
def test_counting_gives_what_recording_gives(settings):
    items = [*PING, Pause(), *burst(20), *burst(20, outgoing=False)]
    counted = ran(items, settings, rounds=5, recording=False)
    recorded = ran(items, settings, rounds=5)
    assert counted.counters() == recorded.counters()
    assert counted.simulation.dropped() == recorded.simulation.dropped() == {}


def test_every_step_can_be_taken_back_exactly():
    world = Driven(PING, {"tunnel": "vxlan"})
    seen = [world.machine.checkpoint()]
    while world.machine.step():
        seen.append(world.machine.checkpoint(seen[-1]))
    for before in seen[-2::-1]:
        assert world.machine.back()
        assert world.machine.checkpoint(before) == before


def test_two_machines_reach_each_other_without_and_the_far_host_with_the_tunnel():
    items = [
        Item("across", to_vm=1, kind="udp"),
        Pause(),
        Item("out", vm=1),
        Item("back", vm=1, outgoing=False, answers=1),
    ]
    world = ran(items, {"vms": 2})
    tunnelled = {step.packet for step in world.steps() if step.row.startswith("TUNNEL")}
    assert tunnelled == {2, 3}
    assert world.simulation.dropped() == {}


def test_a_frame_for_everybody_goes_to_the_other_machine_plain_and_to_the_far_host_in_the_tunnel():
    plain = Driven([Item()]).simulation.traffic.frame(1)
    everybody = Item("all", kind="raw", raw=b"\xff" * 6 + plain[6:], length=len(plain))
    world = ran([everybody], {"vms": 2})
    assert [len(frame) for frame in wire_frames(world)] == [len(plain) + OUTER_BYTES]
    taps = [frame for _, frame in frames_at(world.simulation, Trace(world.machine), "tap1")]
    assert taps == [b"\xff" * 6 + plain[6:]]


# The header's form


@pytest.mark.parametrize("kind", [VXLAN, GENEVE])
@pytest.mark.parametrize("vni", [0, 1, 42, (1 << 24) - 1])
def test_a_network_number_is_found_again(kind, vni):
    headers = outer_headers(kind, vni, Endpoint.numbered(1, 1), Endpoint.numbered(1, 2), 7, bytes(60))
    assert len(headers) == OUTER_BYTES
    assert vni_of(kind, headers[-8:]) == vni


def test_a_short_header_names_no_network():
    assert vni_of(VXLAN, bytes(7)) == -1


def test_what_is_not_ipv4_is_a_flow_by_its_ethernet_header():
    arp = bytes(12) + b"\x08\x06" + bytes(46)
    assert source_port(arp) == source_port(arp[:14] + b"\1" * 46)
    assert not must_stay_whole(arp)


def test_a_bridge_has_no_such_tunnel():
    with pytest.raises(KnobError, match="switch=ovs"):
        make_world({"tunnel": "vxlan", "switch": "bridge"})
