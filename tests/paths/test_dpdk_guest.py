"""A guest whose program polls with DPDK: what a packet costs under each back-end, the rows, and a ring that is full."""

from __future__ import annotations

import pytest
from driving import IN, KNOWN, OUT, Driven, Item, Pause, burst

from virtviz.engine.counters import COUNTERS
from virtviz.engine.places import Domain
from virtviz.errors import KnobError
from virtviz.paths.knobs import make_world
from virtviz.paths.traffic import Poke

DPDK = KNOWN | {"guest": "dpdk"}
POLLED = DPDK | {"path": "vhost-user"}
NOTHING = dict.fromkeys(COUNTERS, 0)
PING = [Item(), Item(outgoing=False, answers=0)]
BIG_IN = Item(kind="udp", length=1400, outgoing=False)

KICKED = {"light_exits": 1, "guest_host": 2, "wakeups": 1, "eventfd_signals": 1}
OUT_COSTS = {
    "vhost-user": {"host_copies": 1, "dma": 1},
    "vhost-net": KICKED | {"host_copies": 1, "dma": 1},
    "virtio-qemu": KICKED | {"host_copies": 1, "dma": 1, "host_syscalls": 4, "user_kernel.host": 8},
}
IN_COSTS = {
    "vhost-user": {"host_copies": 1, "dma": 1},
    "vhost-net": {"host_copies": 1, "dma": 1, "wakeups": 1, "hw_interrupts": 1},
    "virtio-qemu": {
        "host_copies": 2,
        "dma": 1,
        "wakeups": 1,
        "hw_interrupts": 1,
        "host_syscalls": 3,
        "user_kernel.host": 6,
    },
}


def costs(items, *settings):
    return Driven(items, *settings).run().counters()


def outcomes(world, op):
    return [outcome for name, outcome in world.ops() if name == op]


@pytest.mark.parametrize("path", OUT_COSTS)
def test_a_lone_packet_out(path):
    assert costs([OUT], DPDK, {"path": path}) == NOTHING | OUT_COSTS[path]


@pytest.mark.parametrize("path", IN_COSTS)
def test_a_lone_packet_in(path):
    assert costs([IN], DPDK, {"path": path}) == NOTHING | IN_COSTS[path]


def test_from_one_machine_to_another_nothing_is_told_to_anybody():
    across = Item(kind="udp", length=18, to_vm=1)
    assert costs([across], POLLED, {"vms": 2}) == NOTHING | {"host_copies": 2}


def test_the_guests_kernel_takes_no_part():
    world = Driven(PING, POLLED).run()
    assert {step.domain for step in world.steps() if step.thread == "vm1.vcpu0"} == {Domain.GUEST_USER}
    assert world.u16("avail_flags") == world.u16("avail_flags", "rx") == 1


def test_the_rows_come_in_their_order():
    world = Driven(PING, POLLED).run()
    rows = [step.row for step in world.steps() if step.thread == "vm1.vcpu0"]
    rows = [row for i, row in enumerate(rows) if i == 0 or rows[i - 1] != row]
    # Row 3 is taking sent buffers back, row 9 the kick: neither is needed. The program polls in row 1 of P-RX.
    assert rows[:7] == [f"P-TX.{n}" for n in (1, 2, 4, 5, 6, 7, 8)]
    # A buffer is offered in rows 4 and 5, and row 4 finds then that no more can be.
    assert rows[7:] == [f"P-RX.{n}" for n in (1, 2, 3, 4, 5, 4, 6, 7, 9, 1)]


def test_a_packet_in_takes_the_ten_rows_of_the_host_and_a_poll():
    world = Driven([IN], POLLED).run()
    host = {step.row for step in world.steps() if step.thread != "vm1.vcpu0"}
    assert host == {f"U-RX.{n}" for n in range(1, 11)}
    assert outcomes(world, "check_call") == ["no call"]


def test_sent_buffers_are_taken_back_when_few_are_left():
    world = Driven(burst(300), POLLED).run()
    # Of 256 descriptors, 32 are to be free.
    assert outcomes(world, "take_back").count("room") >= 1
    assert not world.simulation.dropped()
    assert [step.packet for step in world.steps() if step.milestone == "on-wire"] == list(range(1, 301))


def test_a_full_ring_makes_the_program_try_again():
    world = Driven(burst(20), POLLED, {"queue.size": 16, "tx_stop_threshold": 8}).run(without=["pmd"])
    assert outcomes(world, "read_used_idx")[-1] == "full"
    world.run()
    assert outcomes(world, "try_again")
    assert sum(step.milestone == "on-wire" for step in world.steps()) == 20


def test_a_slot_that_says_the_right_head_already_is_not_written():
    world = Driven([OUT, Pause(), OUT], POLLED).run()
    assert outcomes(world, "enter_head") == ["there", "written"]


def test_several_pieces_go_into_a_table_or_a_chain():
    pieces = Item(kind="udp", length=1400, fragments=4)
    assert outcomes(Driven([pieces], POLLED).run(), "write_desc")[0] == "table"
    chained = Driven([pieces], POLLED, {"features": "none"}).run()
    assert outcomes(chained, "write_desc")[0] == "chain"
    assert sum(step.milestone == "on-wire" for step in chained.steps()) == 1


@pytest.mark.parametrize("path", OUT_COSTS)
def test_a_packet_in_several_buffers_is_chained_and_not_copied(path):
    world = Driven([BIG_IN, BIG_IN], DPDK, {"path": path, "rx_buffer": 600}).run()
    assert world.vm.program.cells.received == 2
    assert world.vm.program.cells.copied == len(world.simulation.traffic.frame(1))
    assert world.counters()["guest_copies"] == 0
    pool = world.simulation.pools["vm1.rx_buffers"]
    assert pool.slots - pool.cells.free_count == 256


def test_it_stops_at_the_end_of_a_cache_line():
    world = Driven(burst(10, outgoing=False), POLLED).run(without=["vcpu0"]).run()
    # From entry 1: to entry 7, then the three that are left.
    published = [w.new - w.old for s in world.steps() for w in s.writes if w.field == "avail.idx"]
    assert published == [7, 3]
    assert world.vm.program.cells.received == 10


def test_a_used_ring_that_lies_is_polled_no_further():
    # The index says that a buffer has come back, and the element, never written, that it is one that is not out.
    events = [IN, Pause(), Poke("receiveq1", "used.ring[2].id", 999), Poke("receiveq1", "used.idx", 3), Pause(), OUT]
    world = Driven(events, POLLED).run()
    assert outcomes(world, "take_used") == ["first", "broken"]
    assert world.cell("vm1.receiveq1.broken") == 1
    assert [step.packet for step in world.steps() if step.milestone == "on-wire"] == [2]


def test_a_program_that_waits_for_what_was_lost_goes_on():
    events = [BIG_IN, Item("after")]
    world = Driven(events, POLLED, {"features": "indirect", "rx_buffer": 600}).run()
    assert world.simulation.dropped() == {"vhost-user0.tx_failure_drops": 1}
    assert [step.packet for step in world.steps() if step.milestone == "on-wire"] == [2]


def test_every_text_can_be_filled():
    for path in OUT_COSTS:
        for step in Driven(PING, DPDK, {"path": path, "rx_buffer": 64}).run().steps():
            assert step.text
            assert "{" not in step.text


def test_going_back_undoes_everything():
    for path in OUT_COSTS:
        machine = Driven([*PING, *burst(3)], DPDK, {"path": path}).machine
        begin = machine.digest()
        taken = machine.run()
        end = machine.digest()
        machine.seek(0)
        assert machine.digest() == begin
        machine.seek(taken)
        assert machine.digest() == end


def test_counting_counts_what_recording_shows():
    for path in OUT_COSTS:
        settings = DPDK | {"path": path}
        recorded = Driven(PING, settings, rounds=5).run()
        assert Driven(PING, settings, rounds=5, recording=False).run().counters() == recorded.counters()


def test_a_long_run_gives_every_buffer_back():
    world = Driven(PING, POLLED, rounds=1000, recording=False).run()
    skbs, buffers = (world.simulation.pools[f"vm1.{name}"] for name in ("skb", "rx_buffers"))
    assert skbs.slots - skbs.cells.free_count <= 256
    assert buffers.slots - buffers.cells.free_count == 256
    assert world.vm.program.cells.received == 1000


@pytest.mark.parametrize(
    ("settings", "knob", "says"),
    [
        ({"guest": "dpdk", "features": "event_idx"}, "features", "set features=indirect,mergeable"),
        ({"guest": "dpdk", "vcpu": "halted"}, "vcpu", "set vcpu=running"),
        ({"guest": "dpdk", "queues": 2}, "queues", "set queues=1"),
        ({"guest": "dpdk", "path": "virtio-qemu", "queue.format": "packed"}, "queue.format", "use split"),
    ],
)
def test_what_does_not_go_together_says_what_to_set(settings, knob, says):
    with pytest.raises(KnobError, match=says) as error:
        make_world(settings)
    assert error.value.knob == knob


def test_a_packet_of_more_pieces_than_the_ring_has_descriptors_is_given_up_and_counted():
    small = DPDK | {"features": [], "queue.size": 4, "tx_stop_threshold": 1}
    driven = Driven([Item(kind="udp", length=56, fragments=4), Item(kind="udp", length=56)], small).run()
    assert driven.simulation.dropped() == {"vm1.program.tx_dropped": 1}
