"""TCP data from one call of a program to frames on the wire: who cuts it, who finishes checksums, and what it costs."""

from __future__ import annotations

import struct

import pytest
from driving import KNOWN, OUT, Driven, Item, Pause

from virtviz.errors import KnobError
from virtviz.lesson.build import build
from virtviz.lesson.loader import read_text
from virtviz.paths.knobs import make_world
from virtviz.spec.frames import payload_bytes

NOTHING = {"features": "event_idx,indirect,mergeable"}
CSUM = {"features": "event_idx,indirect,mergeable,csum"}
TSO = {"features": "event_idx,indirect,mergeable,csum,tso"}
SOFT = TSO | {"nic_tso": "off"}
FEATURES = {"nothing": NOTHING, "csum": CSUM, "tso": TSO, "tso, not by the card": SOFT}
PATHS = {"vhost-net": {}, "virtio-qemu": {"path": "virtio-qemu"}}
MSS = 1448
BYTES = 10_000


def tcp(length=BYTES, **more):
    return Item(kind="tcp", length=length, **more)


class Sender(Driven):
    """A world whose frames on the wire are collected."""

    def __init__(self, items, *settings, **more):
        super().__init__(items, KNOWN, *settings, **more)
        self.frames = []
        self.nic = next(op.routine.nic for op in self.machine.program.ops if op.name == "put_on_wire")

    def run(self, **_):
        """Run to the end, looking at the card just before each frame goes on the wire."""
        engine = self.thread("eth0")
        while True:
            before = self.nic.out.frames
            frame = self.nic.frame_in_hand() if self.nic.unsent() else b""
            if not self.machine.step():
                return self
            if self.nic.out.frames != before:
                assert self.machine.arc_at(self.machine.position - 1).op.name == "put_on_wire", engine
                self.frames.append(frame)


def ones_sum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def decode(frame):
    """Decode a frame by the RFCs alone, and check lengths and checksums; answers id, seq, flags and data."""
    assert frame[:12] == bytes.fromhex("525400000065525400000002")
    assert frame[12:14] == b"\x08\x00"
    version, _, total, ident, fragment, ttl, protocol, _ = struct.unpack("!BBHHHBBH", frame[14:26])
    assert (version, fragment, ttl, protocol) == (0x45, 0x4000, 64, 6)
    assert total == len(frame) - 14
    assert ones_sum(frame[14:34]) == 0xFFFF
    source, target, seq, ack, offset, flags, _, _, urgent = struct.unpack("!HHIIBBHHH", frame[34:54])
    assert (source, target, ack, urgent) == (40000, 9, 2_000_000_000, 0)
    assert frame[54:58] == b"\x01\x01\x08\x0a"
    pseudo = frame[26:34] + struct.pack("!BBH", 0, 6, total - 20)
    assert ones_sum(pseudo + frame[34:]) == 0xFFFF
    return ident, seq, flags, frame[34 + (offset >> 4) * 4 :]


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("napi_tx", ["on", "off"])
@pytest.mark.parametrize("length", [1, MSS, MSS + 1, BYTES, 65_000])
def test_the_frames_on_the_wire_are_right_byte_for_byte_whoever_cuts_them(features, path, napi_tx, length):
    world = Sender([tcp(length)], PATHS[path], FEATURES[features], {"napi_tx": napi_tx}).run()
    count = -(-length // MSS)
    idents, seqs, flags, data = zip(*map(decode, world.frames), strict=True)
    assert idents == tuple(0x4000 + i for i in range(count))
    assert seqs == tuple(1_000_000_000 + i * MSS for i in range(count))
    assert flags == (0x10,) * (count - 1) + (0x18,)
    assert [len(part) for part in data] == [MSS] * (count - 1) + [length - (count - 1) * MSS]
    assert b"".join(data) == payload_bytes(length, 1)
    assert world.simulation.dropped() == {}
