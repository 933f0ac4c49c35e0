"""Capture files come in as traffic and go out again, and broken ones are refused with what to do."""

from __future__ import annotations

import shutil
import struct
import subprocess

import pytest

from virtviz.engine.trace import Trace
from virtviz.errors import CaptureError
from virtviz.paths.capture import frame_bytes, frames_at, read_capture, write_capture
from virtviz.paths.knobs import make_world
from virtviz.paths.traffic import Item, make_traffic, peer_endpoint, vm_endpoint
from virtviz.paths.wiring import simulate
from virtviz.spec.frames import ETH_FRAME_MAX, udp

PING = [Item("echo"), Item("reply", outgoing=False, answers=0)]
VM, PEER = vm_endpoint(0), peer_endpoint(1)


def ran(items=PING, **settings):
    simulation = simulate(make_world(settings), make_traffic(items))
    simulation.machine.run()
    return simulation, Trace(simulation.machine)


def test_what_was_written_is_read_back(tmp_path):
    frames = [(5, udp(VM, PEER, (1, 2), b"out")), (1_000_000_007, udp(PEER, VM, (2, 1), b"in"))]
    write_capture(tmp_path / "a.pcap", frames)
    items = read_capture(tmp_path / "a.pcap")
    assert [item.raw for item in items] == [frame for _, frame in frames]
    assert [(item.kind, item.outgoing, item.answers) for item in items] == [("raw", True, -1), ("raw", False, 0)]


def test_time_stamps_are_exact_to_the_nanosecond(tmp_path):
    write_capture(tmp_path / "a.pcap", [(1_700_000_000_123_456_789, bytes(60))])
    magic, seconds, nanoseconds = struct.unpack_from("=I20xII", (tmp_path / "a.pcap").read_bytes())
    assert (magic, seconds, nanoseconds) == (0xA1B23C4D, 1_700_000_000, 123_456_789)


def test_an_answer_to_nobody_comes_by_itself(tmp_path):
    write_capture(tmp_path / "a.pcap", [(0, udp(PEER, VM, (2, 1), b"in"))])
    (item,) = read_capture(tmp_path / "a.pcap")
    assert not item.outgoing
    assert item.answers == -1


def test_captured_frames_pass_through_a_world_unchanged(tmp_path):
    frames = [udp(VM, PEER, (1, 2), bytes(n)) for n in (0, 18, 1472)] + [udp(PEER, VM, (2, 1), b"answer")]
    write_capture(tmp_path / "a.pcap", enumerate(frames))
    simulation, trace = ran(read_capture(tmp_path / "a.pcap"))
    assert sorted(frame for _, frame in frames_at(simulation, trace, "wire")) == sorted(frames)
    assert [frame for _, frame in frames_at(simulation, trace, "tap0.queue")] == frames[3:]


def test_every_step_of_a_packet_knows_its_bytes():
    heavy = {"path": "virtio-qemu", "ioeventfd": "off", "rx_buffer": 600}
    for settings in (
        {},
        {"rx_buffer": 600, "far_port": "veth"},
        {"profile": "recorded"},
        {"path": "virtio-qemu"},
        heavy,
    ):
        items = [Item("a", kind="udp", length=1472, fragments=3), Item("b", outgoing=False, answers=0, length=1400)]
        simulation, trace = ran(items, **settings)
        for n in range(1, len(trace) + 1):
            step = trace.step(n)
            want = simulation.traffic.frame(step.packet) if step.packet else b""
            assert frame_bytes(simulation, step) == want, (settings, n, step.op)


@pytest.mark.parametrize(
    "place",
    ["vm1.stack", "vm1.virtio_net", "kvm", "vhost_net", "tap0", "ovs", "vswitchd", "eth0", "eth0.hw", "wire"],
)
def test_both_frames_of_a_ping_are_seen_at_each_place(place):
    simulation, trace = ran()
    assert [frame for _, frame in frames_at(simulation, trace, place)] == [simulation.traffic.frame(n) for n in (1, 2)]


def test_tshark_reads_what_passed_the_tap(tmp_path):
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    simulation, trace = ran()
    write_capture(tmp_path / "tap.pcap", frames_at(simulation, trace, "tap0"))
    told = subprocess.run(
        ["tshark", "-r", tmp_path / "tap.pcap", "-o", "ip.check_checksum:TRUE", "-T", "fields", "-e", "icmp.type"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == ["8", "0"]


def test_pcapng_is_read(tmp_path):
    if shutil.which("editcap") is None:
        pytest.skip("editcap is not installed")
    write_capture(tmp_path / "a.pcap", [(7, udp(VM, PEER, (1, 2), b"out"))])
    subprocess.run(["editcap", "-F", "pcapng", tmp_path / "a.pcap", tmp_path / "a.pcapng"], check=True)
    assert [item.raw for item in read_capture(tmp_path / "a.pcapng")] == [udp(VM, PEER, (1, 2), b"out")]


def refused(path) -> str:
    with pytest.raises(CaptureError) as caught:
        read_capture(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    assert "No such file" in refused(tmp_path / "none.pcap")


def test_a_folder_is_no_capture(tmp_path):
    assert "Is a directory" in refused(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\xd4\xc3", b"hello, this is a text of some length\n" * 9, b"\x0a\x0d\x0d\x0a" * 9]
)
def test_what_is_no_capture_is_refused(tmp_path, content):
    path = tmp_path / "a.pcap"
    path.write_bytes(content)
    assert "not a whole pcap" in refused(path)


@pytest.mark.parametrize("keep", range(1, 66, 5))
def test_a_file_cut_short_anywhere_is_refused(tmp_path, keep):
    path = tmp_path / "a.pcap"
    write_capture(path, [(0, udp(VM, PEER, (1, 2), b"out"))])
    path.write_bytes(path.read_bytes()[:keep])
    refused(path)


def test_an_empty_capture_is_refused(tmp_path):
    write_capture(tmp_path / "a.pcap", [])
    assert "no frame" in refused(tmp_path / "a.pcap")


def test_another_link_type_is_refused(tmp_path):
    path = tmp_path / "a.pcap"
    path.write_bytes(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 113))
    assert "link type 113 is not Ethernet" in refused(path)


def test_an_oversized_frame_is_named_with_what_to_do(tmp_path):
    write_capture(tmp_path / "a.pcap", [(0, bytes(60)), (1, bytes(ETH_FRAME_MAX + 1))])
    told = refused(tmp_path / "a.pcap")
    assert "frame 2 has 1515 bytes" in told
    assert "tso off" in told


def test_a_frame_without_a_header_is_named(tmp_path):
    write_capture(tmp_path / "a.pcap", [(0, bytes(13))])
    assert "frame 1 has 13 bytes" in refused(tmp_path / "a.pcap")


def test_a_frame_cut_while_capturing_is_named(tmp_path):
    write_capture(tmp_path / "a.pcap", [(0, udp(VM, PEER, (1, 2), bytes(100))[:96])])
    told = refused(tmp_path / "a.pcap")
    assert "frame 1 is cut: its IP header speaks of 142 bytes, 96 are here" in told
    assert "tcpdump -s 0" in told


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(CaptureError, match="No such file"):
        write_capture(tmp_path / "none" / "a.pcap", [])
