"""vhost-user: what a lone packet costs where OVS-DPDK polls, its rows, and what happens if things go wrong."""

from __future__ import annotations

import pytest
from driving import FLAGS, IN, KNOWN, OUT, Driven, Item, Pause, burst

from virtviz.engine.counters import COUNTERS
from virtviz.errors import KnobError
from virtviz.paths.knobs import make_world
from virtviz.paths.traffic import Poke

POLLED = KNOWN | {"path": "vhost-user"}
FRESH = {"path": "vhost-user", "flows": "unknown"}
SILENT = FLAGS | {"napi_tx": "off"}
"""The guest wants no interrupt for what it sends, and says so before the first packet."""
NOTHING = dict.fromkeys(COUNTERS, 0)
PING = [Item(), Item(outgoing=False, answers=0)]
ACROSS = Item(kind="udp", length=18, to_vm=1)
TWO = POLLED | {"vms": 2}

LONE_OUT = NOTHING | {
    "host_syscalls": 1,
    "user_kernel.host": 2,
    "guest_syscalls": 1,
    "user_kernel.guest": 2,
    "host_copies": 1,
    "guest_copies": 1,
    "interrupts": 1,
    "eventfd_signals": 1,
    "dma": 1,
}
SILENT_OUT = LONE_OUT | {"host_syscalls": 0, "user_kernel.host": 0, "interrupts": 0, "eventfd_signals": 0}
LONE_IN = LONE_OUT | {"guest_copies": 2}


def costs(items, *settings):
    return Driven(items, *settings).run().counters()


def outcomes(world, op):
    return [outcome for name, outcome in world.ops() if name == op]


def rows(world):
    """Give the rows as they came, each once in a row."""
    found = [step.row for step in world.steps()]
    return [row for i, row in enumerate(found) if i == 0 or found[i - 1] != row]


# Costs


def test_a_lone_packet_out_costs_no_exit_and_no_wakeup():
    assert costs([OUT], POLLED) == LONE_OUT


def test_a_lone_packet_out_costs_no_system_call_if_the_guest_wants_no_interrupt():
    assert costs([OUT], POLLED, SILENT) == SILENT_OUT


def test_a_lone_packet_in_costs_one_system_call_and_no_hardware_interrupt():
    assert costs([IN], POLLED) == LONE_IN


def test_without_event_indices_it_costs_the_same():
    assert costs([OUT], POLLED, FLAGS) == LONE_OUT
    assert costs([IN], POLLED, FLAGS) == LONE_IN


def test_from_one_machine_to_another_it_costs_two_copies_and_no_exit():
    called = {"host_syscalls": 1, "user_kernel.host": 2, "interrupts": 1, "eventfd_signals": 1}
    both_ends = {"guest_syscalls": 2, "user_kernel.guest": 4, "guest_copies": 3}
    assert costs([ACROSS], TWO, SILENT) == NOTHING | called | both_ends | {"host_copies": 2}


def test_a_miss_is_a_function_call():
    assert costs([OUT], FRESH) == LONE_OUT | {"upcalls": 1}


def test_a_burst_is_taken_published_and_told_once():
    world = Driven(burst(4), POLLED).run(without=["pmd"]).run()
    assert world.counters()["host_syscalls"] == 1
    assert [w.new for s in world.steps() for w in s.writes if w.field == "used.idx"] == [5]
    assert len(outcomes(world, "ring_doorbell")) == 1


def test_at_most_32_are_taken_at_a_time():
    world = Driven(burst(70), POLLED, {"queue.size": 256, "guest_bql": "off"}).run(without=["pmd"]).run()
    taken = [w.new - w.old for s in world.steps() for w in s.writes if w.field == "used.idx"]
    assert taken == [32, 32, 6]


# Rows


def wanted(block, count):
    return {f"{block}.{n}" for n in range(1, count + 1)}


def test_every_row_of_both_directions_happens():
    happened = {step.row for step in Driven(PING, POLLED).run().steps()}
    assert {row for row in happened if row.startswith("U-")} == wanted("U-TX", 11) | wanted("U-RX", 10)


def test_out_is_23_rows():
    happened = {step.row for step in Driven([OUT], POLLED).run().steps()}
    # The interrupt that tells of the used buffer comes on top.
    assert happened - wanted("IRQ", 6) - wanted("G-TXC", 4) == wanted("G-TX", 12) | wanted("U-TX", 11)


def test_in_is_25_rows():
    happened = {step.row for step in Driven([IN], POLLED).run().steps()} - {"G-TX.1"}
    assert happened == wanted("U-RX", 10) | wanted("IRQ", 6) | wanted("G-RX", 9) - {"G-RX.6", "G-RX.7"}


def test_from_one_machine_to_another_is_44_rows():
    happened = {step.row for step in Driven([ACROSS], TWO).run().steps()}
    dequeue, enqueue = wanted("U-TX", 10), wanted("U-RX", 10) - wanted("U-RX", 3)
    delivered = wanted("IRQ", 6) | wanted("G-RX", 9) - {"G-RX.6", "G-RX.7"}
    # What the sender's own interrupt is about comes on top.
    assert happened - wanted("G-TXC", 4) == wanted("G-TX", 12) | dequeue | enqueue | delivered


def test_rows_come_in_their_order():
    world = Driven(PING, POLLED).run()
    assert [row for row in rows(world) if row.startswith("U-TX")] == [
        *(f"U-TX.{n}" for n in range(1, 9)),
        # Row 8 again: back from the system call.
        "U-TX.8",
        "U-TX.9",
        "U-TX.10",
        "U-TX.11",
        "U-TX.10",
        "U-TX.11",
    ]
    assert [row for row in rows(world) if row.startswith("U-RX")] == [
        *(f"U-RX.{n}" for n in range(1, 11)),
        "U-RX.10",
        "U-RX.4",
        "U-RX.3",
    ]


def test_the_buffer_is_given_back_before_the_switch_has_seen_the_packet():
    milestones = [step.milestone for step in Driven([OUT], POLLED, SILENT).run().steps() if step.milestone]
    assert milestones == ["sent", "in-ring", "backend-awake", "fetched", "used", "at-switch", "on-wire"]


def test_every_text_can_be_filled():
    for settings in (POLLED, FRESH, TWO | FLAGS):
        for step in Driven(PING, settings).run().steps():
            assert step.text
            assert "{" not in step.text


@pytest.mark.parametrize("settings", [POLLED, FRESH], ids=["known", "looked up"])
def test_the_packets_of_a_burst_are_counted_from_one(settings):
    steps = Driven(burst(3), settings).run(without=["pmd"]).run().steps()
    told = [step.text for step in steps if step.op in ("queue_to_flow", "next_packet")]
    assert [text[: len("Packet 1 of 3")] for text in told] == [f"Packet {n} of 3" for n in (1, 2, 3)]


def test_what_a_text_says_of_a_ring_is_no_read_of_the_library():
    steps = Driven([OUT, Pause(), OUT], POLLED).run().steps()
    readers = {s.op for s in steps if s.thread == "pmd0" for read in s.reads if read.field == "used_event"}
    assert readers == {"check_call"}


# Kicks and calls


def test_the_thousandth_packet_kicks_nobody_and_the_one_at_entry_0_somebody_who_is_not_there():
    world = Driven([item for _ in range(4) for item in (OUT, Pause())], POLLED, {"queue.start": 65534}).run()
    assert outcomes(world, "check_kick") == ["no kick", "no kick", "kick", "no kick"]
    assert outcomes(world, "find_nobody") == ["done"]
    assert world.cell("vm1.transmitq1.kick.counter") == 1
    counters = world.counters()
    assert (counters["light_exits"], counters["wakeups"]) == (1, 0)
    assert world.u16("avail_event") == 0


def test_the_very_first_packet_of_a_ring_is_kicked():
    assert costs([OUT], POLLED, {"queue.start": 0}) == LONE_OUT | {
        "light_exits": 1,
        "guest_host": 2,
        "eventfd_signals": 2,
    }


def test_without_event_indices_no_kick_is_ever_wanted():
    settings = POLLED | FLAGS | {"queue.start": 65534}
    world = Driven([item for _ in range(4) for item in (OUT, Pause())], settings).run()
    assert outcomes(world, "check_kick") == ["no kick"] * 4
    assert world.u16("used_flags") == 1


def test_the_guest_is_called_inside_the_system_call():
    steps = Driven([IN], POLLED).run().steps()
    called = next(i for i, step in enumerate(steps) if step.op == "check_call")
    assert [step.place for step in steps[called + 1 : called + 8]] == ["callfd", *["kvm"] * 5, "callfd"]


# The switch


def test_the_packet_is_acted_on_before_its_flow_is_installed():
    steps = Driven([OUT], FRESH).run().steps()
    ops = [step.op for step in steps if step.place in ("ovs_dpdk", "vswitchd", "dpdk0")]
    assert ops[ops.index("begin", 3) :] == [
        *("begin", "translate", "execute", "install", "next_packet", "carry_out"),
        *("flush", "write_desc", "ring_doorbell", "flush"),
    ]


def test_the_second_packet_of_a_flow_is_found_by_the_classifier():
    world = Driven([OUT, Pause(), OUT], FRESH).run()
    assert outcomes(world, "look_in_dpcls") == ["miss", "hit"]
    assert world.cell("ovs_dpdk.misses") == 1


def test_one_packet_in_a_hundred_gets_its_flow_into_the_exact_match_cache():
    flows = 400
    world = Driven([Item(kind="udp", length=18, peer=1 + i) for i in range(40)], POLLED, rounds=10).run()
    looked_up, cached = (world.cell(f"ovs_dpdk.{name}") for name in ("masked_hits", "emc.used"))
    hits = world.cell("ovs_dpdk.exact_hits")
    assert looked_up + hits == flows
    assert cached == outcomes(world, "look_in_dpcls").count("hit and cached")
    assert 1 <= cached <= 12
    assert hits


def test_a_frame_for_everybody_is_copied_for_each_port_but_the_last():
    frame = b"\xff" * 6 + b"\x02\x00\x00\x00\x00\x01" + b"\x08\x06" + bytes(46)
    for flows in ("known", "unknown"):
        world = Driven([Item(kind="raw", raw=frame, length=len(frame))], TWO, {"flows": flows}).run()
        assert world.counters()["host_copies"] == 3
        assert not world.simulation.dropped()
        assert world.cell("host.pool.free_count") >= world.simulation.pools["host"].slots - 1


def test_packets_of_one_flow_leave_in_their_order_and_all_by_one_doorbell():
    world = Driven([Item(kind="udp", length=18, peer=1 + i % 2) for i in range(6)], POLLED)
    world.run(without=["pmd"]).run()
    assert [step.packet for step in world.steps() if step.milestone == "on-wire"] == [1, 3, 5, 2, 4, 6]
    assert outcomes(world, "ring_doorbell") == ["all"]


# When things go wrong


def test_a_guest_without_buffers_loses_what_finds_none():
    settings = POLLED | {"queue.size": 4, "tx_stop_threshold": 2, "rx_buffer": 1536}
    world = Driven(burst(6, outgoing=False), settings).run(without=["vcpu0"]).run()
    assert outcomes(world, "settle").count("dropped") == 2
    assert world.simulation.dropped() == {"vhost-user0.tx_failure_drops": 2}
    assert world.vm.program.cells.received == 4


def test_a_batch_is_tried_again_only_if_some_of_it_was_delivered():
    settings = POLLED | {"queue.size": 4, "tx_stop_threshold": 2, "rx_buffer": 1536}
    world = Driven(burst(6, outgoing=False), settings).run(without=["pmd", "vcpu0"]).run(without=["vcpu0"])
    # Four are delivered, the try after that delivers none.
    assert outcomes(world, "settle") == ["again", "dropped", "dropped", "sent"]
    assert [op for op, _ in world.ops()].count("begin_send") == 1


def test_a_frame_fills_several_buffers_and_is_published_at_once():
    world = Driven([Item(kind="udp", length=1400, outgoing=False)], POLLED, {"rx_buffer": 600}).run()
    assert outcomes(world, "read_desc")[-3:] == ["needs more", "needs more", "fits"]
    used = [w for s in world.steps() for w in s.writes if w.field == "used.idx" and w.owner == "vm1.receiveq1"]
    assert [w.new - w.old for w in used] == [3]
    assert world.vm.program.cells.received == 1


def test_a_frame_too_large_for_one_buffer_is_dropped_where_buffers_are_not_merged():
    big = Item(kind="udp", length=1400, outgoing=False)
    world = Driven([big, Pause(), IN], POLLED, {"rx_buffer": 600, "features": "event_idx"}).run()
    assert world.simulation.dropped() == {"vhost-user0.tx_failure_drops": 1}
    assert world.vm.program.cells.received == 1


def test_a_card_that_does_not_send_fills_up_and_the_rest_is_dropped():
    settings = POLLED | {"nic_ring": 8, "queue.size": 64}
    world = Driven(burst(12), settings).run(without=["dpdk0"]).run()
    assert world.simulation.dropped() == {"dpdk0.tx_failure_drops": 4}
    assert [step.packet for step in world.steps() if step.milestone == "on-wire"] == list(range(1, 9))


def test_a_card_that_nobody_polls_misses_frames():
    world = Driven(burst(12, outgoing=False), POLLED, {"nic_ring": 8}).run(without=["pmd"]).run()
    assert world.simulation.dropped() == {"dpdk0.rx_missed": 4}


@pytest.mark.parametrize(
    ("field", "value"),
    [("avail.ring[1]", 999), ("desc[0].len", 1 << 31), ("desc[0].addr", 1 << 40)],
)
def test_an_entry_that_leads_nowhere_stops_the_queue_and_nothing_else(field, value):
    # The change comes when the packet is in the ring and the thread has not looked yet.
    world = Driven([OUT, Poke("transmitq1", field, value), IN], POLLED).run()
    refused = [outcome for op, outcome in world.ops() if outcome == "tries again at every poll"]
    # It is polled again and again, which is not shown; what comes in is still delivered.
    assert len(refused) == 1
    assert world.simulation.dropped() == {"vhost-user0.errors": 1}
    assert world.vm.program.cells.received == 1
    assert world.u16("used_idx") == 1


def test_an_entry_that_is_mended_is_taken_after_all():
    events = [OUT, Poke("transmitq1", "avail.ring[1]", 999), Pause(), Poke("transmitq1", "avail.ring[1]", 0)]
    world = Driven(events, POLLED).run()
    assert outcomes(world, "read_head") == ["tries again at every poll", "head"]
    assert [step.packet for step in world.steps() if step.milestone == "on-wire"] == [1]


def test_an_index_that_has_jumped_is_believed():
    events = [OUT, Pause(), Poke("transmitq1", "avail.idx", 50), Pause()]
    world = Driven(events, POLLED, {"queue.size": 64}).run()
    # Old entries are taken again, in bursts, and given back; the driver finds that it has not got such buffers out.
    assert world.u16("used_idx") == 50
    assert world.cell("vm1.transmitq1.broken") == 1


@pytest.mark.parametrize(("length", "problem"), [(12, "nothing to send"), (5, "header incomplete")])
def test_a_buffer_without_a_frame_is_given_back_unsent(length, problem):
    world = Driven([OUT, Poke("transmitq1", "desc[0].len", length)], POLLED).run()
    assert world.u16("used_idx") == world.u16("avail_idx")
    step = next(step for step in world.steps() if step.op == "copy_packet")
    assert step.outcome == "given back unsent"
    assert step.text.startswith(problem)
    assert world.simulation.dropped() == {"vhost-user0.errors": 1}


# Knobs


def test_the_switch_follows_the_path():
    world = make_world({"path": "vhost-user"})
    assert (world["switch"], world["far_port"], world["queue.start"]) == ("ovs-dpdk", "nic", 1)
    assert make_world({"path": "vhost-user", "profile": "recorded"})["far_port"] == "nic"
    assert make_world({"path": "vhost-user", "queue.start": 0})["queue.start"] == 0
    assert make_world({"path": "vhost-net"})["switch"] == "ovs"


@pytest.mark.parametrize(
    ("settings", "knob", "says"),
    [
        ({"path": "vhost-user", "switch": "ovs"}, "switch", "set switch=ovs-dpdk"),
        ({"path": "vhost-user", "switch": "bridge"}, "switch", "not of bridge"),
        ({"switch": "ovs-dpdk"}, "switch", "set path=vhost-user"),
        ({"path": "virtio-qemu", "switch": "ovs-dpdk"}, "switch", "path=virtio-qemu needs"),
        ({"path": "vhost-user", "far_port": "veth"}, "far_port", "set far_port=nic"),
        ({"path": "vhost-user", "ioeventfd": "off"}, "ioeventfd", "ioeventfd=on"),
        ({"path": "vhost-user", "store_buffer": "on", "vms": 2}, "store_buffer", "vms=1"),
        ({"path": "vhost-user", "tunnel": "vxlan"}, "tunnel", "set tunnel=none"),
    ],
)
def test_what_does_not_go_together_says_what_to_set(settings, knob, says):
    with pytest.raises(KnobError, match=says) as error:
        make_world(settings)
    assert error.value.knob == knob


# Both ways of running, and back


def test_going_back_undoes_everything():
    machine = Driven(PING, FRESH).machine
    begin = machine.digest()
    taken = machine.run()
    end = machine.digest()
    machine.seek(0)
    assert machine.digest() == begin
    machine.seek(taken)
    assert machine.digest() == end


def test_counting_counts_what_recording_shows():
    for settings in (POLLED, FRESH, TWO):
        items = [*PING, *burst(5), IN]
        recorded = Driven(items, settings, rounds=3).run()
        counted = Driven(items, settings, rounds=3, recording=False).run()
        assert counted.counters() == recorded.counters()


def test_a_long_run_gives_every_mbuf_back():
    world = Driven(PING, POLLED, {"nic_ring": 32}, rounds=400, recording=False).run()
    pool = world.simulation.pools["host"]
    # What is still in the card's transmit ring has been sent, and is cleaned up by the next burst that needs room.
    assert pool.slots - pool.cells.free_count <= 32
    assert world.counters()["drops"] == 0
    assert world.vm.program.cells.received == 400
