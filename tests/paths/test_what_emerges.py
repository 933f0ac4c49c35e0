"""Batching, budgets, limits and drops come about by themselves, where the real ones do."""

from __future__ import annotations

from collections import Counter

import pytest
from driving import IN, KNOWN, OUT, Driven, Item, Pause, burst

from virtviz.engine.trace import Trace
from virtviz.paths.capture import frames_at
from virtviz.spec.virtio import VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT

ROOM = {"queue.size": 1024, "guest_bql": "off", "socket_sndbuf": 1 << 23}
"""A guest that never stops sending for want of room."""
FAR_FROM = {"nic_ring": 4096}


def arcs(world):
    return Counter(world.ops())


def used_idx_writes(world, queue="transmitq1"):
    return [
        write.new
        for step in world.steps()
        for write in step.writes
        if write.field == "used.idx" and write.owner.endswith(queue)
    ]


# Suppression


def test_the_first_packet_of_a_burst_kicks_for_all():
    world = Driven(burst(64), KNOWN)
    world.run(without=["vhost"])
    assert world.counters()["light_exits"] == 1
    assert arcs(world)["check_kick", "no kick"] == 63


def test_a_worker_at_work_is_not_kicked_and_finds_what_came_meanwhile():
    world = Driven([OUT, OUT], KNOWN)
    world.move("vcpu0", "return_to_user").move("vhost", "enable_kicks")
    # Between the worker's wish for a kick and its second look.
    world.move("vcpu0", "publish_avail_idx").move("vhost", "recheck_avail_idx")
    assert world.ops()[-1] == ("recheck_avail_idx", "more")
    world.run()
    assert used_idx_writes(world) == [2]


def test_a_receiver_at_work_is_not_interrupted():
    world = Driven(burst(8, outgoing=False), KNOWN)
    world.move("vcpu0").run(without=["vcpu0", "vhost"])
    world.move("vhost", "signal_call").move("vhost").move("vcpu0", "vring_interrupt")
    assert world.run().counters()["interrupts"] == 1


# NAPI


def test_a_poll_ends_at_64_packets_and_goes_on_later():
    world = Driven(burst(100, outgoing=False), KNOWN)
    world.move("vcpu0").run(without=["vcpu0"])
    world.step_until("finish")
    assert (world.ops()[-1], world.cell("vm1.receiveq1.rx.done")) == (("finish", "again"), 64)
    world.step_until("mb_before_last_look")
    assert world.cell("vm1.receiveq1.rx.done") == 36
    assert world.run().counters()["interrupts"] == 1


@pytest.mark.parametrize(("packets", "refills"), [(32, 0), (33, 1)])
def test_the_receive_queue_is_refilled_when_more_than_half_of_a_polls_buffers_are_gone(packets, refills):
    world = Driven(burst(packets, outgoing=False), KNOWN)
    world.move("vcpu0").run(without=["vcpu0"]).run()
    assert arcs(world)["read_used_idx", "refill"] == refills
    assert world.u16("avail_idx", "rx") == 256 + refills * packets
    # The device never ran out of buffers, so it never asked to be told.
    assert arcs(world)["check_kick", "kick"] == 0


def test_a_device_that_ran_out_of_buffers_is_kicked_by_the_refill():
    world = Driven(burst(40, outgoing=False), KNOWN, {"queue.size": 32, "tx_stop_threshold": 8})
    world.move("vcpu0").run(without=["vcpu0"])
    assert arcs(world)["recheck_avail_idx", "still empty"] == 1
    world.run()
    assert arcs(world)["next_work", "handle_rx_kick"] == 1
    assert world.counters()["light_exits"] == 1
    assert world.cell("vm1.program.received") == 40


def test_a_poll_that_is_asked_for_while_it_ends_stays_on_the_list():
    world = Driven([OUT, OUT], KNOWN, {"tx_batch": 1})
    world.step_until("own_work", without=["vhost"])
    world.move("vcpu0").move("vhost", "signal_call").move("vhost", "remember_head")
    world.move("vcpu0", "enable_callbacks").move("vhost").move("vcpu0", "leave_poll_list")
    assert ("schedule_poll", "scheduled already") in world.ops()
    assert world.ops()[-1] == ("leave_poll_list", "missed")
    world.move("vcpu0", "disable_again").move("vcpu0", "last_look")
    assert world.ops()[-1] == ("last_look", "nothing")


# vhost's batches and weights


def test_vhost_sends_at_most_64_frames_at_a_time():
    world = Driven(burst(100), KNOWN, ROOM)
    world.run(without=["vhost"]).run()
    assert arcs(world)["remember_head", "batch full"] == 1
    assert used_idx_writes(world) == [64, 100]


@pytest.mark.parametrize(
    ("items", "settings", "round_one"),
    [
        (burst(300), {}, 256),
        (burst(50), {"weight": 20}, 20),
        # 512 KiB in frames of 1514 bytes.
        ([Item(kind="udp", length=1472)] * 400, {"weight": 1000}, -(-0x80000 // 1514)),
    ],
    ids=["256 packets", "weight 20", "512 KiB"],
)
def test_vhost_lets_other_work_have_a_turn(items, settings, round_one):
    world = Driven(items, KNOWN, ROOM | FAR_FROM, settings)
    world.run(without=["vhost"])
    world.move("vhost", "requeue")
    assert world.cell("vhost-4002.tx.packets") == round_one
    world.run()
    assert world.u16("used_idx") == len(items)
    assert world.simulation.dropped() == {}


def test_the_other_queue_is_served_between_two_rounds():
    world = Driven([*burst(30), IN], KNOWN, {"weight": 20})
    world.run(without=["vhost"]).run()
    work = [outcome for name, outcome in world.ops() if name == "next_work" and outcome.startswith("handle")]
    assert work[:3] == ["handle_tx_kick", "handle_rx_net", "handle_tx_kick"]


# Full queues that push back


def test_the_guest_stops_its_queue_below_19_free_descriptors_and_opens_it_again():
    world = Driven(burst(100), KNOWN, {"queue.size": 64, "guest_bql": "off"})
    world.run(without=["vhost"])
    assert world.cell("vm1.transmitq1.num_free") == 18
    assert world.cell("vm1.txq.driver_off") == 1
    assert arcs(world)["enqueue", "enqueue"] == 100 - 46
    world.run()
    assert world.cell("vm1.txq.driver_off") == 0
    assert arcs(world)["wake_queue", "opened"] >= 1
    assert world.u16("used_idx") == 100
    assert world.simulation.dropped() == {}


def test_byte_queue_limits_hold_packets_back_and_join_their_kicks():
    world = Driven(burst(64), KNOWN, {"bql_limit_min": 600})
    world.run(without=["vhost"]).run()
    assert arcs(world)["enqueue", "enqueue"] > 0
    assert arcs(world)["decide_flush", "later"] > 0
    assert world.u16("used_idx") == 64


def test_a_full_send_buffer_lets_the_sender_sleep():
    world = Driven(burst(20), KNOWN, {"socket_sndbuf": 4096, "guest_bql": "off"})
    world.run(without=["vhost"])
    assert world.ops()[-1] == ("allocate", "full")
    world.run()
    assert world.u16("used_idx") == 20


def test_the_guests_queueing_discipline_drops_when_it_is_full():
    settings = ROOM | {"queue.size": 32, "socket_sndbuf": 1 << 24}
    world = Driven([OUT], KNOWN, settings, rounds=1100)
    world.run(without=["vhost"])
    assert world.simulation.dropped() == {"vm1.qdisc": 1100 - 14 - 1000}


# Drops where they really happen


def test_the_tap_drops_what_its_queue_has_no_room_for():
    world = Driven(burst(1100, outgoing=False), KNOWN, FAR_FROM)
    world.run(without=["vhost"])
    assert world.simulation.dropped() == {"tap0.tx_dropped": 100}
    assert Driven(burst(15, outgoing=False), KNOWN, {"txqueuelen": 10}).run(without=["vhost"]).simulation.dropped() == {
        "tap0.tx_dropped": 5
    }


def test_the_card_misses_what_its_ring_has_no_descriptor_for():
    world = Driven(burst(600, outgoing=False), KNOWN)
    world.run(without=["softirq"])
    assert world.simulation.dropped() == {"eth0.rx_missed": 600 - 512}


def test_a_full_card_holds_frames_back_and_then_drops_them():
    world = Driven([OUT], KNOWN, {"nic_ring": 8}, rounds=1010)
    world.run(without=["eth0"])
    # 5 descriptors are used when fewer than 4 are left; 1000 frames wait.
    assert world.cell("eth0.driver_off") == 1
    assert world.simulation.dropped() == {"eth0.qdisc": 1010 - 5 - 1000}
    world.run()
    assert world.cell("eth0.sent") == 1005


def test_the_switch_loses_packets_when_a_handlers_socket_is_full():
    world = Driven(burst(100), {"upcall_rcvbuf": 1 << 16})
    world.run(without=["handler"])
    # Of twice the buffer each message takes 2304 bytes; the last one may go over.
    assert world.simulation.dropped() == {"ovs.lost": 100 - (2 * (1 << 16) // 2304 + 1)}
    assert world.counters()["upcalls"] == 100
    world.run()
    assert world.cell("eth0.sent") == 57


def test_a_socket_drops_what_its_program_does_not_read():
    world = Driven(burst(300, outgoing=False), KNOWN)
    # The program has not begun; interrupts come first. 256 packets fill the guest's buffers, and then the socket.
    world.run(without=["vcpu0"]).move("vcpu0", "iret")
    assert world.simulation.dropped() == {}
    world.run(without=["vcpu0"]).move("vcpu0", "iret")
    assert world.simulation.dropped() == {"vm1.socket": 300 - 256}


def test_one_sendmsg_of_a_handler_carries_at_most_50_operations():
    world = Driven(burst(40))
    world.run(without=["handler"]).run()
    done = arcs(world)
    assert (done["install_flow", "message done"], done["install_flow", "done"]) == (1, 1)
    assert done["rebuild_packet", "copied"] == 40
    # poll(1), poll(0), 40 + 1 recvmsg, two sendmsg with a recvmsg each, poll(0) twice, recvmsg.
    assert world.counters()["host_syscalls"] == 1 + 1 + 41 + 4 + 2 + 1
    assert world.cell("eth0.sent") == 40


# Bytes


def sent_and_seen(items, *settings):
    world = Driven(items, *settings).run()
    traffic = world.simulation.traffic
    wire = [frame for _, frame in frames_at(world.simulation, Trace(world.machine), "wire")]
    return [traffic.frame(n) for n in range(1, traffic.packets + 1)], wire


@pytest.mark.parametrize(
    "settings",
    [{}, {"features": "event_idx"}, {"features": "none"}, {"far_port": "veth"}, {"profile": "recorded"}],
    ids=str,
)
def test_the_bytes_on_the_wire_are_the_bytes_the_guest_sent(settings):
    items = [Item(kind="udp", length=n, fragments=f) for n, f in ((0, 1), (18, 2), (600, 5), (1472, 16))]
    sent, seen = sent_and_seen(items, settings)
    assert seen == sent


def descriptors(world):
    memory, layout = world.vm.memory, world.vm.tx_layout
    for slot in range(layout.size):
        raw = memory.read(layout.desc + 16 * slot, 16)
        yield int.from_bytes(raw[8:12], "little"), int.from_bytes(raw[12:14], "little")


def test_a_packet_in_pieces_takes_one_descriptor_with_indirect_tables():
    world = Driven([Item(kind="udp", length=100, fragments=3)], KNOWN)
    world.move("vcpu0", "publish_avail_idx")
    length, flags = next(iter(descriptors(world)))
    assert (length, flags) == (3 * 16, VIRTQ_DESC_F_INDIRECT)
    assert world.cell("vm1.transmitq1.num_free") == 255


def test_a_packet_in_pieces_takes_a_chain_without_indirect_tables():
    world = Driven([Item(kind="udp", length=100, fragments=3)], KNOWN, {"features": "event_idx"})
    world.move("vcpu0", "publish_avail_idx")
    found = list(descriptors(world))[:3]
    assert [flags & VIRTQ_DESC_F_NEXT for _, flags in found] == [1, 1, 0]
    assert sum(length for length, _ in found) == 142 + 12
    assert world.cell("vm1.transmitq1.num_free") == 253


def test_a_chain_longer_than_the_free_descriptors_is_dropped_with_a_kick():
    settings = {"queue.size": 4, "tx_stop_threshold": 1, "features": "event_idx"}
    world = Driven([Item(kind="udp", length=100, fragments=5)], KNOWN, settings).run()
    assert world.simulation.dropped() == {"vm1.virtio_net.tx_dropped": 1}
    assert world.counters()["light_exits"] == 1


def test_a_frame_shorter_than_ethernet_is_dropped_by_the_tap():
    world = Driven([Item(kind="raw", raw=b"tiny", length=4), Pause(), OUT], {"flows": "unknown"}).run()
    assert world.simulation.dropped() == {"tap0.rx_errors": 1}
    assert world.cell("eth0.sent") == 1
