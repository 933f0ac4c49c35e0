"""Frames are real ones: their checksums are right, and outside tools read them."""

from __future__ import annotations

import shutil
import struct
import subprocess

import pytest
from driving import Driven, Item
from hypothesis import given
from hypothesis import strategies as st

from virtviz.engine.trace import Trace
from virtviz.paths.capture import frames_at, write_capture
from virtviz.paths.traffic import make_traffic, peer_endpoint, vm_endpoint
from virtviz.spec.frames import Endpoint, Template, application_part, checksum, icmp_echo, payload_bytes, summary, udp

VM, PEER = vm_endpoint(0), peer_endpoint(1)
SEQUENCES = st.integers(0, 2**48 - 1)
LENGTHS = st.integers(0, 200)


def ones_sum(data):
    """Add 16-bit words in ones' complement; over data with a right checksum in it this gives 0xFFFF."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksums_are_right(frame):
    ip, body = frame[14:34], frame[34:]
    pseudo = frame[26:34] + struct.pack("!BBH", 0, 17, len(body)) if frame[23] == 17 else b""
    return ones_sum(ip) == 0xFFFF == ones_sum(pseudo + body)


@given(SEQUENCES, LENGTHS)
def test_checksums_are_right(sequence, length):
    payload = payload_bytes(length, sequence)
    assert checksums_are_right(icmp_echo(VM, PEER, 8, 4002, sequence, payload))
    assert checksums_are_right(udp(VM, PEER, (40000, 9), payload))


@given(SEQUENCES, LENGTHS, st.booleans())
def test_a_template_gives_the_same_bytes_as_building_the_frame_anew(sequence, length, is_udp):
    def build(n):
        payload = payload_bytes(length, n)
        return udp(VM, PEER, (40000, 9), payload) if is_udp else icmp_echo(VM, PEER, 8, 4002, n, payload)

    template = Template(build)
    frame = template.headers(sequence) + template.handed_over(sequence)
    assert checksums_are_right(frame)
    assert len(frame) == template.length
    assert template.part == application_part(frame)
    # The low 16 bits of the number are the ICMP sequence; all of it is in the payload.
    assert frame[template.part :] == template.handed_over(sequence)
    if is_udp or length >= 8:
        assert frame == build(sequence)


def test_the_checksum_of_rfc_1071():
    assert checksum(b"\x00\x01\xf2\x03\xf4\xf5\xf6\xf7") == 0x220D


def test_addresses_are_locally_administered_and_told_apart():
    assert Endpoint.numbered(0, 2) == Endpoint(b"RT\0\0\0\2", b"\n\0\0\2")
    assert len({vm_endpoint(0).mac, vm_endpoint(1).mac, peer_endpoint(1).mac, peer_endpoint(2).mac}) == 4


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (icmp_echo(VM, PEER, 8, 1, 7, b""), "ICMP echo request 10.0.0.2 > 10.0.0.101 seq 7"),
        (udp(PEER, VM, (9, 40000), b""), "UDP 10.0.0.101 > 10.0.0.2 port 40000"),
        (bytes(12) + b"\x08\x06" + bytes(28), "ethertype 0806"),
        (b"abc", "3 bytes"),
    ],
)
def test_a_frame_is_named_for_people(frame, said):
    assert summary(frame) == said


def test_an_answer_carries_the_number_of_what_it_answers():
    traffic = make_traffic([Item(), Item(), Item(outgoing=False, answers=0), Item(outgoing=False, answers=1)], rounds=3)
    for packet in range(1, traffic.packets + 1):
        answer = traffic.answer_to(packet)
        if answer:
            assert traffic.frame(answer)[38:42] == traffic.frame(packet)[38:42]


@pytest.mark.parametrize("settings", [{}, {"profile": "recorded"}], ids=str)
def test_tshark_finds_nothing_wrong_with_what_leaves(tmp_path, settings):
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    items = [Item(), Item(outgoing=False, answers=0)]
    items += [Item(kind="udp", length=length, fragments=2) for length in (2, 18, 999, 1472)]
    world = Driven(items, settings).run()
    write_capture(tmp_path / "wire.pcap", frames_at(world.simulation, Trace(world.machine), "wire"))
    wrong = (
        '_ws.malformed or ip.checksum.status == "Bad" or udp.checksum.status == "Bad" or icmp.checksum.status == "Bad"'
    )
    options = [part for p in ("ip", "udp") for part in ("-o", f"{p}.check_checksum:TRUE")]
    for condition, count in ((wrong, 0), ("ip", len(items))):
        told = subprocess.run(
            ["tshark", *options, "-r", tmp_path / "wire.pcap", "-Y", condition],
            capture_output=True,
            text=True,
            check=True,
        )
        assert len(told.stdout.splitlines()) == count
