"""Which socket the switch asks by, who is woken for it, and what becomes of questions that do not fit in."""

from __future__ import annotations

import pytest
from driving import Driven, Item

from virtviz.paths.ovs import Question, charge

PING = [Item("echo"), Item("reply", outgoing=False, answers=0)]
BY_PORT = {"ovs_dispatch": "per-vport"}


def flows(count):
    """Give packets that are each the first of a flow."""
    return [Item(kind="udp", length=18, peer=peer) for peer in range(1, count + 1)]


def askers(world):
    return [(step.packet, step.into) for step in world.steps() if step.op == "send_message"]


def woken(world):
    return [step.effects[0].target for step in world.steps() if step.op == "wake_handler" and step.outcome == "woke"]


# Dispatch


def test_per_cpu_the_cpu_that_sends_decides():
    world = Driven(PING).run()
    # The worker runs on CPU 0, the softirq on CPU 1.
    assert askers(world) == [(1, "ovs.upcalls1"), (2, "ovs.upcalls2")]
    assert woken(world) == ["handler1", "handler2"]


def test_per_vport_the_port_decides_and_every_handler_is_woken():
    world = Driven(PING, BY_PORT).run()
    assert askers(world) == [(1, "ovs.upcalls1"), (2, "ovs.upcalls2")]
    assert woken(world) == ["handler1", "handler2"] * 2
    assert world.vm.program.cells.received == 1


def test_per_vport_all_packets_of_a_port_have_one_socket():
    world = Driven(flows(3), BY_PORT, {"handlers": 3}).run()
    assert {socket for _, socket in askers(world)} == {"ovs.upcalls1"}


@pytest.mark.parametrize(("settings", "calls"), [({}, 9), (BY_PORT, 10)])
def test_what_an_upcall_costs(settings, calls):
    assert Driven(flows(1), settings, {"handlers": 1}).run().counters()["host_syscalls"] == calls


def test_per_vport_epoll_takes_the_place_of_the_reads_that_find_nothing():
    per_cpu, per_vport = (Driven(flows(1), s, {"handlers": 1}).run() for s in ({}, BY_PORT))
    epolls = [op for op in per_vport.ops() if op == ("pick", "ask")]
    assert len(epolls) == 3
    reads = [outcome for op, outcome in per_cpu.ops() if op == "receive"]
    assert (reads, [o for op, o in per_vport.ops() if op == "receive"]) == (["copied", "EAGAIN", "EAGAIN"], ["copied"])


def test_a_handler_that_comes_too_late_finds_nothing():
    world = Driven(flows(1), BY_PORT)
    world.run(without=["handler1", "handler2"])
    world.move("handler2", "check_latch").move("handler1")
    world.run()
    assert ("wait", "none") in world.ops()
    assert world.counters()["host_copies"] == 4
    assert world.simulation.dropped() == {}


@pytest.mark.parametrize("settings", [{}, BY_PORT])
@pytest.mark.parametrize("tunnel", ["none", "vxlan"])
def test_counting_gives_what_recording_gives(settings, tunnel):
    counted, recorded = (
        Driven([*PING, *flows(12)], settings, {"tunnel": tunnel}, rounds=3, recording=recording).run()
        for recording in (False, True)
    )
    assert counted.counters() == recorded.counters()
    assert counted.simulation.dropped() == recorded.simulation.dropped() == {}


# A full socket

SMALL = {"upcall_rcvbuf": 4096, "handlers": 1}
"""The kernel doubles it: three messages of 2304 bytes fit, and the one that goes over the limit."""


def test_a_message_is_charged_with_the_buffer_it_lies_in():
    assert [charge(60), charge(500), charge(1514)] == [2304, 2304, 4352]


def full(count):
    world = Driven(flows(count), SMALL)
    return world.run(without=["handler1"])


@pytest.mark.parametrize(("sent", "lost"), [(4, 0), (5, 1), (40, 36)])
def test_what_does_not_fit_into_the_socket_is_lost_and_counted(sent, lost):
    world = full(sent)
    assert world.simulation.dropped() == ({"ovs.lost": lost} if lost else {})
    assert world.counters()["upcalls"] == sent


def test_the_reader_learns_of_it_once_and_reads_on():
    world = full(6).run()
    reads = [outcome for op, outcome in world.ops() if op == "receive"]
    assert reads == ["ENOBUFS", "copied", "copied", "copied", "copied", "EAGAIN", "EAGAIN"]


def test_once_full_a_socket_takes_nothing_until_it_is_empty():
    world = full(5)
    assert world.cell("ovs.upcalls1.socket.congested") == 1
    world.move("handler1", "receive").move("handler1", "receive")
    assert world.ops()[-1] == ("receive", "copied")
    assert world.cell("ovs.upcalls1.socket.congested") == 1
    world.run()
    assert world.cell("ovs.upcalls1.socket.congested") == world.cell("ovs.upcalls1.socket.charged") == 0


def test_the_guest_gets_its_buffers_back_all_the_same():
    world = full(40)
    assert world.u16("used_idx") == world.u16("avail_idx") == 40


def test_with_the_usual_room_nothing_is_lost():
    assert Driven(flows(40), {"handlers": 1}).run(without=["handler1"]).simulation.dropped() == {}


def test_what_an_upcall_carries_can_be_packed_and_unpacked():
    for question in (Question(1, 2), Question((1 << 24) - 1, 255, 1 << 24), Question(7, 3, 43)):
        assert Question.unpacked(question.packed()) == question
