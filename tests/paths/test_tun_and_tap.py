"""A program of the host holds a TUN or a TAP: what it writes and reads, what that costs, and what is lost where."""

from __future__ import annotations

import struct

import pytest
from driving import Driven, Item, Pause, burst

from virtviz.engine.trace import Trace
from virtviz.errors import KnobError
from virtviz.paths.capture import frames_at
from virtviz.paths.host_forward import HOST
from virtviz.paths.knobs import make_world
from virtviz.paths.traffic import peer_endpoint, vm_endpoint
from virtviz.spec.frames import ETH_HEADER_BYTES, IPV4_HEADER_BYTES, checksum

PING = [Item("echo"), Item("answer", outgoing=False, answers=0)]
MANY = [*PING, Pause(), *burst(3), *burst(2, outgoing=False), Item("more")]
WAYS = [
    {"device": "tun"},
    {"device": "tap", "flows": "known"},
    {"device": "tap", "flows": "unknown"},
    {"device": "tap", "switch": "bridge"},
]
US, THEM = vm_endpoint(0), peer_endpoint(1)
TTL = 8


def ran(items, *settings, **more):
    world = Driven(items, {"path": "program"}, *settings, **more)
    world.machine.run(4000)
    return world


def written(world, packet=1):
    """Give the bytes that the program wrote last."""
    program = world.machine.threads[world.thread("program")].start
    return program.contents[packet - 1].handed_over(packet)


def memory(world, start, length):
    program = world.machine.threads[world.thread("program")].start
    return bytes(program.memory.bytes[start : start + length])


def sizes(world, op):
    return [effect.bytes for step in world.steps() if step.op == op for effect in step.effects]


# Bytes


def test_a_frame_has_14_bytes_more_than_the_packet_in_it():
    tun, tap = (ran(PING, {"device": device}) for device in ("tun", "tap"))
    assert sizes(tun, "copy_in") == sizes(tun, "read_packet") == [IPV4_HEADER_BYTES + 8 + 56]
    assert sizes(tap, "copy_in") == sizes(tap, "read_packet") == [ETH_HEADER_BYTES + IPV4_HEADER_BYTES + 8 + 56]


def test_what_is_written_to_a_tap_begins_with_an_ethernet_header_and_to_a_tun_with_ip():
    tun, tap = (ran(PING[:1], {"device": device}) for device in ("tun", "tap"))
    ethernet = THEM.mac + US.mac + b"\x08\x00"
    assert memory(tap, 0, 98) == ethernet + memory(tun, 0, 84)
    assert memory(tun, 0, 1) == b"\x45"
    assert memory(tun, 12, 8) == US.ip + THEM.ip


def test_what_is_read_has_an_ethernet_header_only_from_a_tap():
    tun, tap = (ran(PING, {"device": device}) for device in ("tun", "tap"))
    from_tap, from_tun = memory(tap, 4096, 98), memory(tun, 4096, 84)
    assert from_tap == tap.simulation.traffic.frame(2)
    assert from_tap[:12] == US.mac + THEM.mac
    # The host has forwarded it: the time to live is one less, and the checksum fits.
    assert from_tun[TTL] == from_tap[ETH_HEADER_BYTES + TTL] - 1
    assert checksum(from_tun[:IPV4_HEADER_BYTES]) == 0
    assert from_tun[12:] == from_tap[ETH_HEADER_BYTES + 12 :]


def test_on_the_wire_a_routed_packet_has_the_hosts_own_ethernet_address():
    world = ran(PING, {"device": "tun"})
    frames = [bytes(frame) for _, frame in frames_at(world.simulation, Trace(world.machine), "wire")]
    out, back = frames
    assert out[:ETH_HEADER_BYTES] == THEM.mac + HOST.mac + b"\x08\x00"
    assert back[:ETH_HEADER_BYTES] == HOST.mac + THEM.mac + b"\x08\x00"
    assert out[ETH_HEADER_BYTES + TTL] == 63
    assert checksum(out[ETH_HEADER_BYTES : ETH_HEADER_BYTES + IPV4_HEADER_BYTES]) == 0


def test_on_the_wire_a_switched_frame_is_what_was_written():
    world = ran(PING[:1], {"device": "tap", "flows": "known"})
    ((_, frame),) = frames_at(world.simulation, Trace(world.machine), "wire")
    assert bytes(frame) == memory(world, 0, 98)


# Costs


@pytest.mark.parametrize("settings", [WAYS[0], WAYS[1], WAYS[3]], ids=str)
def test_each_packet_is_a_system_call_and_a_copy_and_nothing_of_a_guest(settings):
    counted = ran(PING, settings).counters()
    # One each to write, to wait, and to read.
    assert counted["host_syscalls"] == 3
    assert counted["host_copies"] == 2
    assert counted["wakeups"] == 1
    assert not [name for name in counted if counted[name] and ("exit" in name or "guest" in name)]


@pytest.mark.parametrize("settings", WAYS, ids=str)
def test_no_place_of_a_guest_or_of_its_hypervisor_is_there(settings):
    places = {step.place for step in ran(MANY, settings).steps()}
    assert not {place for place in places if place.startswith("vm") or place in ("kvm", "vhost_net", "qemu")}


def test_a_tun_is_routed_and_a_tap_is_switched():
    tun, tap = ({step.place for step in ran(PING, settings).steps()} for settings in WAYS[:2])
    assert "host_ip" in tun
    assert "ovs" not in tun
    assert "ovs" in tap
    assert "host_ip" not in tap


# Order


def test_rows_come_in_order():
    rows = [step.row for step in ran(PING, {"device": "tun"}).steps()]
    out = [row for row in dict.fromkeys(rows) if row.startswith("TUN-TX")]
    back = [row for row in dict.fromkeys(rows[rows.index("N-IN.1") :]) if row.startswith("TUN-RX")]
    assert out == [f"TUN-TX.{n}" for n in range(1, 7)]
    assert back == [f"TUN-RX.{n}" for n in range(1, 6)]


@pytest.mark.parametrize("settings", WAYS, ids=str)
def test_everything_that_is_sent_arrives_in_order(settings):
    world = ran(MANY, settings)
    received = [step.packet for step in world.steps() if step.milestone == "received"]
    on_wire = [step.packet for step in world.steps() if step.milestone == "on-wire"]
    assert received == [2, 6, 7]
    assert on_wire == [1, 3, 4, 5, 8]
    assert not world.simulation.dropped()
    assert world.simulation.pools["host"].cells.free_count >= world.simulation.pools["host"].slots - 5


# Queues and drops


@pytest.mark.parametrize(("device", "length"), [("tun", 500), ("tap", 1000)])
def test_the_queue_to_the_program_is_as_long_as_linux_makes_it(device, length):
    world = Driven(PING, {"path": "program", "device": device})
    assert world.machine.threads[world.thread("program")].start.device.queue.capacity == length


@pytest.mark.parametrize("device", ["tun", "tap"])
def test_what_finds_the_queue_full_is_dropped_and_counted(device):
    world = Driven(burst(6, outgoing=False), {"path": "program", "device": device, "txqueuelen": 4, "flows": "known"})
    world.machine.run(4000, held={world.thread("program")})
    assert world.simulation.dropped() == {f"{'tun0' if device == 'tun' else 'tap0'}.tx_dropped": 2}
    world.machine.run(4000)
    assert [step.packet for step in world.steps() if step.milestone == "received"] == [1, 2, 3, 4]


def test_a_program_that_waits_for_what_was_dropped_gives_up():
    items = [*burst(6, outgoing=False), Item("last")]
    world = Driven(items, {"path": "program", "device": "tun", "txqueuelen": 4})
    world.machine.run(4000, held={world.thread("program")})
    world.machine.run(4000)
    assert ("wait", "timeout") in world.ops()
    assert [step.packet for step in world.steps() if step.milestone == "on-wire"] == [7]


def raw(ethertype, behind, target=THEM.mac):
    return Item(kind="raw", raw=target + US.mac + struct.pack("!H", ethertype) + behind)


def test_a_tun_refuses_what_is_no_ip_and_a_tap_takes_it():
    arp = raw(0x0806, b"\0\1\x08\0\6\4\0\1" + bytes(20))
    tun, tap = (ran([arp], {"device": device, "flows": "known"}) for device in ("tun", "tap"))
    assert ("find_protocol", "dropped") in tun.ops()
    assert tun.simulation.dropped() == {"tun0.refused": 1}
    assert [step.milestone for step in tap.steps()].count("on-wire") == 1


@pytest.mark.parametrize(
    ("change", "counter"),
    [
        ({0: 0x60}, "host_ip.in_errors"),
        ({10: 0xFF}, "host_ip.in_errors"),
        ({TTL: 1}, "host_ip.expired"),
        ({16: 192}, "host_ip.no_route"),
    ],
    ids=str,
)
def test_the_hosts_ip_drops_what_it_cannot_forward(change, counter):
    packet = bytearray(ran(PING, {"device": "tun"}).simulation.traffic.frame(1)[ETH_HEADER_BYTES:])
    for at, value in change.items():
        packet[at] = value
    if 10 not in change:
        packet[10:12] = b"\0\0"
        packet[10:12] = checksum(bytes(packet[:IPV4_HEADER_BYTES])).to_bytes(2, "big")
    world = ran([raw(0x0800, bytes(packet))], {"device": "tun"})
    assert world.simulation.dropped() == {counter: 1}
    assert world.simulation.pools["host"].cells.free_count == world.simulation.pools["host"].slots


def test_a_frame_for_another_station_is_not_forwarded():
    world = ran(
        [Item(kind="raw", outgoing=False, raw=b"\xff" * 6 + THEM.mac + b"\x08\x00" + bytes(40))], {"device": "tun"}
    )
    assert world.simulation.dropped() == {"host_ip.in_errors": 1}


# Undo, and the two ways to run


@pytest.mark.parametrize("settings", WAYS, ids=str)
def test_undo_is_exact(settings):
    world = Driven(MANY, {"path": "program"}, settings)
    state = world.machine.state

    def everything():
        cells = [int(state.value(number)) for number in range(len(state.names))]
        return cells, [bytes(region.bytes) for region in state.regions]

    before = everything()
    world.machine.run(4000)
    after, length = everything(), world.machine.length
    world.machine.seek(0)
    assert everything() == before
    world.machine.seek(length)
    assert everything() == after


@pytest.mark.parametrize("settings", WAYS, ids=str)
def test_counting_gives_the_numbers_of_a_recording(settings):
    recorded, counted = (ran(MANY, settings, rounds=3, recording=recording) for recording in (True, False))
    assert counted.counters() == recorded.counters()


# What does not go together


@pytest.mark.parametrize(
    ("settings", "knob", "advice"),
    [
        ({"path": "vhost-net", "device": "tun"}, "device", "path=program"),
        ({"path": "virtio-qemu", "device": "tun"}, "device", "set device=tap"),
        ({"guest": "dpdk"}, "guest", "set guest=kernel"),
        ({"vms": 2}, "vms", "set vms=1"),
        ({"queues": 2}, "queues", "set queues=1"),
        ({"store_buffer": "on"}, "store_buffer", "set store_buffer=off"),
        ({"far_port": "veth"}, "far_port", "set far_port=nic"),
        ({"tunnel": "vxlan"}, "tunnel", "set tunnel=none"),
        ({"switch": "ovs-dpdk"}, "switch", "set path=vhost-user"),
        ({"ioeventfd": "off"}, "ioeventfd", ""),
    ],
    ids=str,
)
def test_what_a_program_cannot_have_is_refused_with_what_to_do(settings, knob, advice):
    if knob == "ioeventfd":
        # It says how a guest kicks: without effect here.
        assert ran(PING, settings).counters() == ran(PING).counters()
        return
    with pytest.raises(KnobError) as caught:
        make_world({"path": "program"}, settings)
    assert caught.value.knob == knob
    assert advice in str(caught.value)
