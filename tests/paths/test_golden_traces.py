"""The rings' indices at every moment of six packets, with event indices and with flags; a packet over three buffers."""

from __future__ import annotations

import pytest
from driving import FLAGS, IN, KNOWN, OUT, Driven, Item, Pause

FIELDS = ("avail_idx", "avail_event", "used_idx", "used_event")
SIX = [OUT, Pause(), OUT, Pause(), OUT, OUT, OUT, OUT]


def indices(world):
    return tuple(world.u16(field) for field in FIELDS)


def send(world):
    """Let the program send its next packet; answers whether it was kicked."""
    start = world.machine.position
    world.step_until("return_to_user", without=("vhost",))
    return ("kick", "done") in world.ops(start + 1)


def drain(world):
    """Let the worker run until it sleeps; answers whether it signalled."""
    start = world.machine.position
    world.move("vhost")
    return ("signal_call", "signalled") in world.ops(start + 1)


def poll(world):
    """Let the guest take its completion interrupt and poll."""
    world.move("vcpu0", "last_look")


def test_lone_packets_cost_a_kick_and_an_interrupt_each_and_a_burst_of_four_one_and_one():
    world = Driven(SIX, KNOWN)
    assert indices(world) == (0, 0, 0, 0)
    # P1
    assert send(world)
    assert indices(world) == (1, 0, 0, 0)
    assert drain(world)
    assert indices(world) == (1, 1, 1, 0)
    poll(world)
    assert indices(world) == (1, 1, 1, 1)
    # P2
    assert send(world)
    assert indices(world) == (2, 1, 1, 1)
    assert drain(world)
    assert indices(world) == (2, 2, 2, 1)
    poll(world)
    assert indices(world) == (2, 2, 2, 2)
    # P3 to P6, before the worker runs
    for kicked, expected in ((True, (3, 2, 2, 2)), (False, (4, 2, 2, 2)), (False, (5, 2, 2, 3)), (False, (6, 2, 2, 4))):
        assert send(world) is kicked
        assert indices(world) == expected
    assert drain(world)
    assert indices(world) == (6, 6, 6, 4)
    poll(world)
    assert indices(world) == (6, 6, 6, 6)
    counters = world.run().counters()
    assert (counters["light_exits"], counters["eventfd_signals"], counters["interrupts"]) == (3, 6, 3)


def test_without_event_indices_every_packet_of_the_burst_kicks_before_the_worker_runs():
    world = Driven(SIX, KNOWN, FLAGS)
    for _ in range(2):
        assert send(world)
        drain(world)
        poll(world)
    before = world.counters()
    assert world.u16("used_flags") == 0
    kick_before = world.cell("vm1.transmitq1.kick.counter")
    assert [send(world) for _ in range(4)] == [True] * 4
    after = world.counters()
    assert after["light_exits"] - before["light_exits"] == 4
    assert world.cell("vm1.transmitq1.kick.counter") - kick_before == 4
    assert after["wakeups"] - before["wakeups"] == 1
    assert drain(world)
    assert world.u16("used_flags") == 0
    assert world.u16("used_idx") == 6


def test_a_worker_that_is_awake_needs_no_kick_by_flags():
    world = Driven([OUT, OUT], KNOWN, FLAGS)
    assert send(world)
    world.move("vhost", "disable_kicks")
    assert world.u16("used_flags") == 1
    assert not send(world)


def big_packet(world):
    """Deliver one packet of 1514 bytes and give the three used elements and the first buffer's address."""
    world.move("vcpu0").run(without=("vcpu0",))
    layout, memory = world.vm.rx_layout, world.vm.memory
    used = [
        (memory.plain_u16[layout.used_ring(i) // 2], memory.plain_u16[(layout.used_ring(i) + 4) // 2]) for i in range(3)
    ]
    head = used[0][0]
    return used, int.from_bytes(memory.read(layout.desc + 16 * head, 8), "little")


BIG_IN = Item(kind="udp", length=1472, outgoing=False)


def test_a_packet_over_three_mergeable_buffers_is_published_in_one_store():
    world = Driven([BIG_IN], KNOWN, {"rx_buffer": 600})
    used, buffer = big_packet(world)
    assert used == [(0, 600), (1, 600), (2, 326)]
    assert world.vm.memory.read(buffer + 10, 2) == b"\x03\x00"
    writes = [write for step in world.steps() for write in step.writes if write.field == "used.idx"]
    assert [(write.old, write.new) for write in writes] == [(0, 3)]
    counters = world.run().counters()
    assert counters["interrupts"] == 1
    assert counters["drops"] == 0
    assert ("copy_to_user", "copied") in world.ops()


def test_without_mergeable_buffers_the_same_packet_is_thrown_away():
    world = Driven([BIG_IN], KNOWN, {"rx_buffer": 600, "features": "event_idx"}).run()
    assert world.simulation.dropped() == {"vhost_net.discarded": 1}
    assert world.u16("used_idx", "rx") == 0
    assert world.counters()["interrupts"] == 0


def test_without_mergeable_buffers_linux_builds_the_socket_buffer_around_the_buffer_and_copies_nothing():
    for features, copies, function in (("event_idx,mergeable", 2, "page_to_skb"), ("event_idx", 1, "receive_small")):
        world = Driven([IN], KNOWN, {"features": features}).run()
        assert world.counters()["guest_copies"] == copies
        assert {step.function for step in world.steps() if step.op == "build_skb"} == {function}
        assert ("copy_to_user", "copied") in world.ops()


@pytest.mark.parametrize("length", [18, 576, 1188, 1200, 1472])
def test_used_lengths_of_merged_buffers_add_up_to_packet_and_header(length):
    packet = Item(kind="udp", length=length, outgoing=False)
    world = Driven([packet], KNOWN, {"rx_buffer": 600})
    used, _ = big_packet(world)
    assert sum(written for _, written in used) == length + 42 + 12


def test_indices_wrap_at_65536_as_if_nothing_had_happened():
    world, plain = (
        Driven([OUT, IN, OUT, Pause(), OUT, OUT, IN, OUT, OUT, OUT], KNOWN, {"queue.start": start}).run()
        for start in (65533, 0)
    )
    assert world.u16("avail_idx") == world.u16("used_idx") == (65533 + 7) & 0xFFFF
    assert world.u16("used_idx", "rx") == (65533 + 2) & 0xFFFF
    assert world.simulation.dropped() == {}
    # Only the very first packet differs: used_event points at 0, and so is asked for early or late.
    assert [name for name, _ in world.ops()] == [name for name, _ in plain.ops()]
