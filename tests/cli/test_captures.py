"""Capture files in and out: what passes a place, and what a well-known dissector thinks of it."""

import json
import shutil
import struct
import subprocess

import pytest

from virtviz.lesson.shelf import shelf
from virtviz.paths.capture import read_capture, write_capture
from virtviz.paths.traffic import peer_endpoint, vm_endpoint
from virtviz.spec.frames import ICMP_ECHO_REPLY, ICMP_ECHO_REQUEST, icmp_echo, payload_bytes, udp

CHECKS = ("ip.check_checksum:TRUE", "udp.check_checksum:TRUE", "tcp.check_checksum:TRUE")
FIELDS = ("frame.protocols", "ip.checksum.status", "udp.checksum.status", "icmp.checksum.status")
GOOD = "1"
WORLDS = {
    "as it is": (),
    "flows unknown": ("--set", "flows=unknown"),
    "recorded profile": ("--profile", "recorded"),
    "no features": ("--set", "features=none"),
    "small receive buffers": ("--set", "rx_buffer=128"),
    "wrapping indices": ("--set", "queue.start=65534"),
}


def dissected(path, *also):
    """Let tshark read a capture; answers the fields of each frame, after having looked for malformed ones.

    Args:
        path: the file.
        also: more fields to be read.
    """
    tshark = shutil.which("tshark")
    if tshark is None:
        pytest.skip("tshark is not installed: nobody but ourselves can say whether the frames are well-formed")
    options = [word for check in CHECKS for word in ("-o", check)]
    names = (*FIELDS, *also)
    fields = [word for field in names for word in ("-e", field)]

    def read(*more):
        command = [tshark, "-r", str(path), *options, *more]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    bad = "_ws.malformed || ip.checksum.status == 0 || udp.checksum.status == 0 || icmp.checksum.status == 0"
    assert read("-Y", bad) == []
    return [dict(zip(names, line.split("\t"), strict=True)) for line in read("-T", "fields", *fields)]


@pytest.mark.parametrize("world", WORLDS)
def test_frames_on_the_wire_are_well_formed_and_have_good_checksums(call, tmp_path, world):
    path = tmp_path / "wire.pcap"
    ran = call("run", "3-vhost", *WORLDS[world], "--pcap", f"wire={path}")
    assert ran.code == 0
    header = json.loads(ran.out.splitlines()[0])
    frames = dissected(path)
    assert len(frames) == len(header["packets"])
    for packet, frame in zip(header["packets"], frames, strict=True):
        protocol = packet["what"].split()[0].lower()
        assert protocol in frame["frame.protocols"].split(":")
        assert frame["ip.checksum.status"] == GOOD
        assert frame[f"{protocol}.checksum.status"] == GOOD


@pytest.mark.parametrize(("tunnel", "header"), [("vxlan", "vxlan"), ("geneve", "geneve")])
def test_a_tunnels_frames_are_dissected_to_the_guests_packet(call, tmp_path, tunnel, header):
    path = tmp_path / "wire.pcap"
    ran = call("run", "3-vhost", "--set", f"tunnel={tunnel}", "--set", "vni=4711", "--pcap", f"wire={path}")
    assert ran.code == 0
    packets = json.loads(ran.out.splitlines()[0])["packets"]
    frames = dissected(path, f"{header}.vni")
    assert len(frames) == len(packets)
    for packet, frame in zip(packets, frames, strict=True):
        protocol = packet["what"].split()[0].lower()
        assert frame["frame.protocols"].split(":")[:8] == [
            "eth",
            "ethertype",
            "ip",
            "udp",
            header,
            "eth",
            "ethertype",
            "ip",
        ]
        assert protocol in frame["frame.protocols"].split(":")[8:]
        assert int(frame[f"{header}.vni"], 0) == 4711
        # Outside and inside.
        assert frame["ip.checksum.status"] == f"{GOOD},{GOOD}"
        assert frame[f"{protocol}.checksum.status"].endswith(GOOD)


SWITCHED = [entry.path for entry in shelf() if "device: tun" not in entry.path.read_text(encoding="utf-8")]
"""Lessons whose frames are switched; where a host routes, packets change on their way."""


@pytest.mark.parametrize("path", SWITCHED, ids=lambda path: path.stem)
def test_what_is_on_the_wire_passed_every_place_before_unchanged(call, tmp_path, path):
    places = ("wire", "tap0", "ovs", "vm1.virtio_net")
    files = {place: tmp_path / f"{place}.pcap" for place in places}
    asked = [word for place, file in files.items() for word in ("--pcap", f"{place}={file}")]
    assert call("run", path, *asked).code == 0
    frames = {place: sorted(item.raw for item in read_capture(file)) for place, file in files.items()}
    for place in places:
        assert frames[place] == frames["wire"], place


def test_times_in_a_capture_are_those_of_the_steps(call, tmp_path):
    path = tmp_path / "wire.pcap"
    ran = call("run", "3", "--pcap", f"wire={path}")
    steps = map(json.loads, ran.out.splitlines()[1:-1])
    times = [step["t_ns"] for step in steps if step["milestone"] in ("on-wire", "from-wire")]
    assert capture_times(path) == times


def capture_times(path):
    """Read the times of a pcap file with nanoseconds, by hand."""
    content = path.read_bytes()
    assert struct.unpack_from("<I", content)[0] == 0xA1B23C4D
    times, at = [], 24
    while at < len(content):
        seconds, nanoseconds, kept, _ = struct.unpack_from("<IIII", content, at)
        times.append(seconds * 10**9 + nanoseconds)
        at += 16 + kept
    return times


@pytest.fixture
def captured(tmp_path):
    """A capture: an echo request, its answer, datagrams both ways, and one of the largest frames there are."""
    vm, peer = vm_endpoint(0), peer_endpoint(1)
    frames = [
        icmp_echo(vm, peer, ICMP_ECHO_REQUEST, 77, 1, payload_bytes(56, 1)),
        icmp_echo(peer, vm, ICMP_ECHO_REPLY, 77, 1, payload_bytes(56, 1)),
        udp(vm, peer, (1234, 53), b"a question"),
        udp(peer, vm, (53, 1234), b"an answer"),
        udp(vm, peer, (1234, 53), bytes(range(256)) * 5 + bytes(192)),
    ]
    path = tmp_path / "in.pcap"
    write_capture(path, enumerate(frames))
    return path, frames


@pytest.mark.parametrize("world", WORLDS)
def test_frames_of_a_capture_leave_and_enter_by_the_wire_as_they_were(call, tmp_path, captured, world):
    path, frames = captured
    out = tmp_path / "out.pcap"
    ran = call("run", "3-vhost", *WORLDS[world], "--input", path, "--pcap", f"wire={out}")
    assert ran.code == 0
    assert sorted(item.raw for item in read_capture(out)) == sorted(frames)
    sent = [item.raw for item in read_capture(out) if item.outgoing]
    assert sent == [frame for frame in frames if frame[6:12] == vm_endpoint(0).mac]
    assert json.loads(ran.out.splitlines()[-1])["packets"] == len(frames)


def test_a_capture_can_be_repeated_and_counted(call, captured):
    counted = json.loads(call("run", "3", "--input", captured[0], "--packets", "15", "--counters").out)
    recorded = json.loads(call("run", "3", "--input", captured[0], "--packets", "15").out.splitlines()[-1])
    assert counted == recorded
    assert counted["packets"] == 15


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "not a whole pcap or pcapng file"), (b"no capture at all, but long enough", "not a whole pcap")],
    ids=["empty", "text"],
)
def test_a_broken_capture_is_said_in_one_line_and_exits_2(call, tmp_path, content, said):
    path = tmp_path / "broken.pcap"
    path.write_bytes(content)
    called = call("run", "3", "--input", path)
    assert (called.code, called.out) == (2, "")
    assert called.err.startswith(f"virtviz: {path}: {said}")
    assert called.err.count("\n") == 1


def test_a_capture_that_cannot_be_written_is_said_and_exits_2(call, tmp_path):
    called = call("run", "3", "--counters", "--input", tmp_path)
    assert called.code == 2
    called = call("run", "3", "--pcap", f"wire={tmp_path}/none/out.pcap")
    assert called.code == 2
    assert called.err == f"virtviz: {tmp_path}/none/out.pcap: No such file or directory\n"


@pytest.mark.parametrize("at", [24, 40, 60], ids=["ip", "icmp", "payload"])
def test_the_dissector_notices_a_byte_that_was_changed(tmp_path, captured, at):
    frame = bytearray(captured[1][0])
    frame[at] ^= 0x55
    path = tmp_path / "changed.pcap"
    write_capture(path, [(0, bytes(frame))])
    with pytest.raises(AssertionError):
        dissected(path)


def test_a_place_of_the_only_virtual_machine_may_be_named_without_it(tmp_path, call):
    short, full = tmp_path / "short.pcap", tmp_path / "full.pcap"
    ran = call("run", "3", "--pcap", f"transmitq1={short}", "--pcap", f"vm1.transmitq1={full}")
    assert ran.code == 0
    assert short.read_bytes() == full.read_bytes()
    assert short.stat().st_size > 24, "more than the file's header"
