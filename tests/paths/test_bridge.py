"""A Linux bridge in place of Open vSwitch: it learns where everybody is, and asks nobody."""

from __future__ import annotations

import pytest
from driving import IN, KNOWN, OUT, Driven, Item

from virtviz.engine.state import State
from virtviz.paths.bridge import ADDRESSES, Bridge
from virtviz.paths.packets import PacketPool
from virtviz.paths.traffic import peer_endpoint, vm_endpoint

BRIDGE = {"switch": "bridge"}
PING = [Item("echo"), Item("reply", outgoing=False, answers=0)]
VM, PEER = vm_endpoint(0).mac, peer_endpoint(1).mac
PAYLOAD = b"\x08\x00" + bytes(46)
TAP, FAR = 1, 2
OPS = ("enter", "learn", "look_up", "forward", "flood", "push_xmit")


def ran(items, *settings):
    return Driven(items, BRIDGE, *settings).run()


def bridge_ops(world):
    return [(op, outcome) for op, outcome in world.ops() if op in OPS]


def raw(target, source=VM, **fields):
    return Item(kind="raw", raw=target + source + PAYLOAD, length=60, **fields)


def test_what_is_not_known_goes_everywhere_and_the_answer_to_one_port():
    assert bridge_ops(ran(PING)) == [
        *[("enter", "frame"), ("learn", "new"), ("look_up", "unknown"), ("flood", "done"), ("push_xmit", "eth0")],
        *[("enter", "frame"), ("learn", "new"), ("look_up", "known"), ("forward", "out"), ("push_xmit", "tap0")],
    ]


def test_with_known_addresses_nothing_is_flooded():
    ops = bridge_ops(ran(PING, KNOWN))
    assert {outcome for op, outcome in ops if op in ("learn", "look_up")} == {"known"}
    assert "flood" not in dict(ops)


@pytest.mark.parametrize("flows", ["known", "unknown"])
def test_nobody_in_user_space_is_asked(flows):
    world = ran(PING, {"flows": flows})
    counters = world.counters()
    assert counters["upcalls"] == counters["host_syscalls"] == 0
    assert not [thread for thread in world.machine.threads if thread.name.startswith("handler")]


def test_it_costs_what_a_known_flow_costs_in_crossings():
    assert ran(PING, KNOWN).counters() == Driven(PING, KNOWN).run().counters()


def test_what_it_has_learned_can_be_read():
    world = ran(PING)
    ports = {
        world.cell(f"bridge.fdb.address[{slot}]").to_bytes(6): world.cell(f"bridge.fdb.port[{slot}]")
        for slot in range(ADDRESSES)
    }
    assert ports.pop(bytes(6)) == 0
    assert ports == {VM: TAP, PEER: FAR}
    assert world.cell("bridge.fdb.count") == 2


def test_an_address_that_moves_is_behind_its_new_port():
    world = ran([OUT, raw(VM, source=VM, outgoing=False)])
    assert ("learn", "moved") in world.ops()


def test_a_frame_for_the_port_it_came_from_is_dropped():
    neighbour = bytes.fromhex("525400000099")
    world = ran([raw(PEER, source=neighbour), raw(neighbour)])
    assert ("forward", "dropped") in world.ops()
    assert world.simulation.dropped() == {"bridge.dropped": 1}


@pytest.mark.parametrize(
    ("frame", "outcome"),
    [
        (raw(PEER, source=b"\xff" * 6), "dropped"),
        (raw(PEER, source=bytes(6)), "dropped"),
        (raw(bytes.fromhex("0180c200000e")), "dropped"),
        (raw(bytes.fromhex("0180c2000000")), "frame"),
        (raw(b"\xff" * 6), "frame"),
    ],
    ids=["from a group", "from nobody", "for this link alone", "spanning tree, which is off", "broadcast"],
)
def test_what_no_bridge_forwards_ends_at_the_port(frame, outcome):
    world = ran([frame, OUT])
    assert bridge_ops(world)[0] == ("enter", outcome)
    assert world.simulation.dropped() == ({"bridge.dropped": 1} if outcome == "dropped" else {})
    assert world.cell("eth0.sent") == (1 if outcome == "dropped" else 2)


def test_a_group_is_reached_by_every_other_port():
    assert bridge_ops(ran([raw(b"\xff" * 6)]))[2:] == [("look_up", "group"), ("flood", "done"), ("push_xmit", "eth0")]


def test_what_comes_from_the_far_end_enters_by_its_port():
    assert bridge_ops(ran([IN]))[-2:] == [("flood", "done"), ("push_xmit", "tap0")]


def test_an_address_without_room_is_not_learned():
    state = State(recording=False)
    memory = state.region("host.skb", 2048)
    bridge = Bridge(state, "bridge", PacketPool(state, "pool", memory, 0, 1, 2048), ["tap0", "eth0"])
    stations = [bytes((2, 0, 0, 0, n // 256, n % 256)) for n in range(ADDRESSES + 1)]
    assert {bridge.learn(station, TAP) for station in stations[:-1]} == {"new"}
    assert bridge.learn(stations[-1], TAP) == "full"
    assert bridge.port_of(stations[-1]) == 0
    assert bridge.port_of(stations[0]) == TAP
    assert bridge.learn(stations[0], FAR) == "moved"
    assert bridge.port_of(stations[0]) == FAR
