"""A program that chooses among the queues of a TAP: receive-side scaling."""

from __future__ import annotations

import socket

import pytest
from driving import KNOWN, OUT, Driven, Item

from virtviz.paths.tap_steering import TABLE, rss_input
from virtviz.spec.toeplitz import toeplitz

RSS = KNOWN | {"queues": 2, "steering": "rss"}
PUBLISHED = [
    ("66.9.149.187", 2794, "161.142.100.80", 1766, 0x323E8FC2, 0x51CCC178),
    ("199.92.111.2", 14230, "65.69.140.83", 4739, 0xD718262A, 0xC626B0EA),
    ("24.19.198.95", 12898, "12.22.207.184", 38024, 0xD2D0A5DE, 0x5C2B394A),
    ("38.27.205.30", 48228, "209.142.163.6", 2217, 0x82989176, 0xAFC7327F),
    ("153.39.163.191", 44251, "202.188.127.2", 1303, 0x5D1809C5, 0x10E828A2),
]
"""Source, destination, and the hashes without and with ports, as published with receive-side scaling."""


@pytest.mark.parametrize(("source", "from_port", "target", "to_port", "addresses", "all_four"), PUBLISHED)
def test_the_hash_is_the_published_one(source, from_port, target, to_port, addresses, all_four):
    places = socket.inet_aton(source) + socket.inet_aton(target)
    assert toeplitz(places) == addresses
    assert toeplitz(places + from_port.to_bytes(2, "big") + to_port.to_bytes(2, "big")) == all_four


def ipv4(protocol, part=0):
    """Make a frame with an IPv4 header and four bytes of ports."""
    header = bytes((0x45, 0, 0, 28, 0, 0)) + part.to_bytes(2, "big") + bytes((64, protocol, 0, 0)) + bytes(range(8))
    return bytes(12) + b"\x08\x00" + header + b"\x11\x22\x33\x44" + bytes(20)


def test_ports_belong_to_the_flow_of_whole_tcp_and_udp_packets_only():
    addresses = bytes(range(8))
    assert rss_input(ipv4(17)) == rss_input(ipv4(6)) == addresses + b"\x11\x22\x33\x44"
    # Echo requests, a first part, and a later one.
    assert rss_input(ipv4(1)) == rss_input(ipv4(17, 0x2000)) == rss_input(ipv4(17, 3)) == addresses
    assert rss_input(b"\xff" * 12 + b"\x08\x06" + bytes(46)) == b""


@pytest.mark.parametrize("path", ["vhost-net", "virtio-qemu"])
@pytest.mark.parametrize("queues", [2, 3, 4])
def test_a_frame_goes_where_its_hash_says(path, queues):
    items = [Item(kind="udp", length=18, outgoing=False, peer=n) for n in range(1, 9)]
    world = Driven(items, RSS, {"queues": queues, "path": path})
    world.run()
    traffic = world.simulation.traffic
    chosen = {step.packet: step.outcome for step in world.steps() if step.op == "select_queue"}
    for packet in range(1, 9):
        frame = traffic.frame(packet)
        assert chosen[packet] == f"queue {toeplitz(rss_input(frame)) % TABLE % queues + 1}"
    assert len({*chosen.values()}) > 1
    assert not world.simulation.dropped()


@pytest.mark.parametrize(
    ("kind", "hashed"), [("udp", "hashes addresses and ports"), ("icmp-echo", "hashes the addresses")]
)
def test_what_is_said_to_be_hashed_is_what_is(kind, hashed):
    world = Driven([Item(kind=kind, length=56, outgoing=False)], RSS).run()
    (said,) = [step.text for step in world.steps() if step.op == "select_queue"]
    assert hashed in said


def test_an_answer_goes_where_its_hash_says_and_not_where_the_question_came_from():
    def queues(settings):
        found = set()
        for vcpu in (0, 1):
            items = [Item(kind="udp", length=18, vcpu=vcpu), Item(kind="udp", length=18, outgoing=False, answers=0)]
            steps = Driven(items, settings).run().steps()
            found |= {(vcpu, step.queue) for step in steps if step.milestone == "in-guest-buffer"}
        return found

    assert queues(RSS | {"steering": "flow"}) == {(0, "vm1.receiveq1"), (1, "vm1.receiveq2")}
    # The same packets, so the same queue, whoever asked.
    assert len({queue for _, queue in queues(RSS)}) == 1


def test_the_tap_remembers_no_flow():
    steps = Driven([OUT, OUT], RSS).run().steps()
    assert "tun_flow_update" not in {step.function for step in steps}


def test_going_back_undoes_everything():
    machine = Driven([OUT, Item(outgoing=False), OUT], RSS).machine
    begin = machine.digest()
    machine.run()
    machine.seek(0)
    assert machine.digest() == begin
