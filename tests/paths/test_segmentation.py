"""TCP data from one call of a program to frames on the wire: who cuts it, who finishes checksums, and what it costs."""

from __future__ import annotations

import itertools
import struct

import dpkt
import pytest
from driving import KNOWN, OUT, Driven, Item, Pause

from virtviz.engine.effects import EffectKind
from virtviz.engine.trace import Trace
from virtviz.errors import KnobError, LessonError
from virtviz.lesson.build import build
from virtviz.lesson.loader import read_text
from virtviz.paths.capture import frames_at
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


def spent(world):
    """Give what a way costs, in the words of the table in docs/segmentation.md."""
    counters = world.counters()
    ops = world.ops()
    return {
        "copies in the guest": counters["guest_copies"],
        "entries": world.vm.tx_driver.cells.avail_idx_shadow,
        "copies out": counters["host_copies"],
        "passes": sum(name == "look_up" for name, _ in ops),
        "dma": counters["dma"],
        "kicks": sum(name == "kick" for name, _ in ops),
        "system calls": counters["host_syscalls"],
    }


@pytest.mark.parametrize(
    ("features", "wanted"),
    [
        ("nothing", (2, 7, 7, 7, 7)),
        ("csum", (1, 7, 7, 7, 7)),
        ("tso", (1, 1, 1, 1, 1)),
        ("tso, not by the card", (1, 1, 1, 1, 7)),
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_what_stays_whole_is_done_once_and_what_is_cut_for_every_frame(features, wanted, path):
    found = spent(Sender([tcp()], PATHS[path], FEATURES[features]).run())
    assert tuple(found.values())[:5] == wanted
    assert found["kicks"] == 1
    assert found["system calls"] == (0 if path == "vhost-net" else 12 if wanted[2] == 7 else 5)


def copied(world, side):
    return [e.bytes for s in world.steps() for e in s.effects if e.kind is EffectKind.COPY and e.side == side]


@pytest.mark.parametrize("path", PATHS)
def test_bytes_are_copied_once_out_of_the_guest_with_one_header_for_each_entry(path):
    frames = [12 + 66 + MSS] * 6 + [12 + 66 + BYTES - 6 * MSS]
    worlds = {name: Sender([tcp()], PATHS[path], FEATURES[name]).run() for name in ("nothing", "csum", "tso")}
    assert {name: copied(world, "guest") for name, world in worlds.items()} == {
        "nothing": [BYTES, BYTES],
        "csum": [BYTES],
        "tso": [BYTES],
    }
    assert {name: copied(world, "host") for name, world in worlds.items()} == {
        "nothing": frames,
        "csum": frames,
        "tso": [12 + 66 + BYTES],
    }


def offered(world):
    """Give the pieces that each entry of the transmit ring describes, as the device finds them."""
    world.step_until("kick")
    memory, layout = world.vm.memory, world.vm.tx_layout

    def desc(at):
        return struct.unpack("<QIHH", bytes(memory.read(at, 16)))

    entries = []
    for n in range(world.vm.tx_driver.cells.avail_idx_shadow):
        head = int.from_bytes(memory.read(layout.avail_ring(n), 2), "little")
        base, (address, length, flags, following) = layout.desc, desc(layout.desc + 16 * head)
        pieces = []
        if flags & 4:
            base, (address, length, flags, following) = address, desc(address)
        pieces.append((address, length))
        while flags & 1:
            address, length, flags, following = desc(base + 16 * following)
            pieces.append((address, length))
        entries.append(pieces)
    return entries


@pytest.mark.parametrize(
    ("features", "length", "wanted"),
    [
        ("nothing", BYTES, (0, 0, 0, 0, 0, 0, 0)),
        ("nothing", 100, (0, 0, 0, 0, 0, 0, 0)),
        ("csum", BYTES, (1, 0, 0, 0, 34, 16, 0)),
        ("csum", 100, (1, 0, 0, 0, 34, 16, 0)),
        ("tso", BYTES, (1, 1, 66, MSS, 34, 16, 0)),
        ("tso", 100, (1, 0, 0, 0, 34, 16, 0)),
        ("tso", MSS, (1, 0, 0, 0, 34, 16, 0)),
        ("tso", MSS + 1, (1, 1, 66, MSS, 34, 16, 0)),
    ],
)
def test_the_header_in_front_says_what_the_device_is_to_do(features, length, wanted):
    world = Sender([tcp(length)], FEATURES[features])
    for pieces in offered(world):
        assert struct.unpack("<BBHHHHH", bytes(world.vm.memory.read(pieces[0][0], 12))) == wanted


@pytest.mark.parametrize(
    ("features", "length", "wanted"),
    [
        ("nothing", BYTES, [[12 + 66 + MSS]] * 6 + [[12 + 66 + 1312]]),
        ("csum", BYTES, [[78, MSS]] * 6 + [[78, 1312]]),
        ("tso", BYTES, [[78, BYTES]]),
        ("tso", 65_000, [[78, 32768, 32232]]),
    ],
)
@pytest.mark.parametrize("tables", [True, False])
def test_headers_are_one_piece_and_the_data_lies_in_pages(features, length, wanted, tables):
    settings = FEATURES[features]["features"].replace("indirect,", "" if not tables else "indirect,")
    entries = offered(Sender([tcp(length)], {"features": settings}))
    assert [[size for _, size in pieces] for pieces in entries] == wanted


def test_a_frame_whose_data_crosses_a_page_has_a_piece_more():
    entries = offered(Sender([tcp(40_000)], CSUM))
    assert [size for _, size in entries[32768 // MSS]] == [78, 32768 % MSS, MSS - 32768 % MSS]
    assert {len(pieces) for pieces in entries} == {2, 3}


def test_data_in_several_pieces_is_gathered():
    world = Sender([tcp(9000, fragments=3)], TSO)
    assert [size for _, size in offered(world)[0]] == [78, 3000, 3000, 3000]
    world.run()
    assert b"".join(decode(frame)[3] for frame in world.frames) == payload_bytes(9000, 1)


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("path", PATHS)
def test_the_numbers_go_on_from_packet_to_packet_and_from_round_to_round(features, path):
    world = Sender([tcp(3000), OUT, tcp(700), Pause(), tcp(5000)], PATHS[path], FEATURES[features], rounds=3).run()
    seen = [decode(frame) for frame in world.frames if frame[23] == 6]
    assert len(world.frames) == len(seen) + 3 == 3 * (3 + 1 + 1 + 4)
    for (ident, seq, _, data), (next_ident, next_seq, _, _) in itertools.pairwise(seen):
        assert (next_ident, next_seq) == (ident + 1, seq + len(data))
    assert sum(len(data) for _, _, _, data in seen) == 3 * 8700
    assert world.simulation.dropped() == {}


def test_what_vhost_has_collected_goes_before_a_packet_too_long_for_a_page():
    world = Sender([OUT, OUT, tcp(), OUT, tcp(), tcp(), OUT, tcp(3000), tcp(3571)], TSO)
    order = [item.kind for item in world.simulation.traffic.items]
    world.run(without=[])
    steps = world.steps()
    gone = [s.packet for s in steps if s.milestone == "at-tap"]
    assert gone == list(range(1, len(order) + 1))
    alone = {s.packet for s in steps if s.op == "send_alone"}
    assert alone == {3, 5, 6, 9}
    assert world.simulation.dropped() == {}


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("napi_tx", ["on", "off"])
@pytest.mark.parametrize("indirect", ["indirect,", ""])
def test_nothing_is_lost_or_overtakes_where_queues_are_small(features, path, napi_tx, indirect):
    small = {"queue.size": 32, "nic_ring": 8, "napi_tx": napi_tx, "bql_limit_min": 0}
    chosen = FEATURES[features] | {"features": FEATURES[features]["features"].replace("indirect,", indirect)}
    world = Sender([tcp(40_000), tcp(2000), OUT, tcp(65_000)], PATHS[path], chosen, small, rounds=2).run()
    data = b"".join(decode(frame)[3] for frame in world.frames if frame[23] == 6)
    assert data == b"".join(payload_bytes(n, i) for i, n in enumerate((40_000, 2000, 18, 65_000) * 2, 1) if n != 18)
    assert world.simulation.dropped() == {}
    pools = world.simulation.pools
    # What the card has sent and not yet reported is all that is still held.
    assert pools["host"].cells.free_count + len(world.nic.tx) >= pools["host"].slots - len(world.nic.tx)


@pytest.mark.parametrize("far_port", ["veth", "dummy"])
@pytest.mark.parametrize("path", PATHS)
def test_a_virtual_device_takes_the_packet_whole(far_port, path):
    world = Driven([tcp()], KNOWN, TSO, PATHS[path], {"far_port": far_port}).run()
    assert [s.packet for s in world.steps() if s.milestone == "on-wire"] == [1]
    assert world.simulation.dropped() == {}


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("flows", ["known", "unknown"])
def test_a_bridge_forwards_it_like_any_frame(features, flows):
    world = Sender([tcp()], FEATURES[features], {"switch": "bridge", "flows": flows}).run()
    assert b"".join(decode(frame)[3] for frame in world.frames) == payload_bytes(BYTES, 1)


def test_frames_cut_in_the_guest_may_be_asked_about():
    world = Sender([tcp()], NOTHING, {"flows": "unknown"}).run()
    assert sorted(decode(frame)[1] for frame in world.frames) == [1_000_000_000 + i * MSS for i in range(7)]


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("path", PATHS)
def test_counting_and_recording_end_alike(features, path):
    items, settings = [tcp(20_000), OUT, tcp(400)], (KNOWN, FEATURES[features], PATHS[path])
    recorded = Driven(items, *settings, rounds=2).run()
    counted = Driven(items, *settings, rounds=2, recording=False).run()
    assert recorded.counters() == counted.counters()
    assert recorded.simulation.dropped() == counted.simulation.dropped() == {}


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("path", PATHS)
def test_every_step_can_be_taken_back_exactly(features, path):
    world = Driven([tcp(4000)], KNOWN, FEATURES[features], PATHS[path])
    seen = [world.machine.checkpoint()]
    while world.machine.step():
        seen.append(world.machine.checkpoint(seen[-1]))
    for before in seen[-2::-1]:
        assert world.machine.back()
        assert world.machine.checkpoint(before) == before


@pytest.mark.parametrize("features", FEATURES)
def test_a_capture_of_the_wire_holds_the_frames_and_an_independent_reader_finds_them_whole(features, tmp_path):
    world = Sender([tcp()], FEATURES[features]).run()
    captured = list(frames_at(world.simulation, Trace(world.machine), "wire"))
    assert [frame for _, frame in captured] == world.frames
    for number, (_, frame) in enumerate(captured):
        ip = dpkt.ethernet.Ethernet(frame).data
        segment = ip.data
        assert (ip.len, ip.id, ip.df) == (len(frame) - 14, 0x4000 + number, 1)
        assert segment.seq == 1_000_000_000 + number * MSS
        sums = ip.sum, segment.sum
        ip.sum = segment.sum = 0
        # dpkt computes what is 0 anew.
        again = dpkt.ethernet.Ethernet(bytes(ip) and frame[:14] + bytes(ip)).data
        assert (again.sum, again.data.sum) == sums


def lesson(world, *events):
    return read_text(
        "format_version: 1\nid: 90-tcp\ntitle: TCP\nlevel: advanced\nminutes: 1\nobjectives: [See.]\n"
        f"world: {world}\nscenario:\n" + "".join(f"  - {event}\n" for event in events)
    ).lesson


def test_a_lesson_sends_tcp():
    _, traffic = build(lesson("{features: [csum, tso], flows: known}", "send: {id: data, kind: tcp, bytes: 65000}"))
    assert (traffic.items[0].kind, traffic.length(1)) == ("tcp", 65066)


@pytest.mark.parametrize(
    ("world", "knob", "advice"),
    [
        ("{path: vhost-user}", "path", "set path=vhost-net or path=virtio-qemu"),
        ("{guest: dpdk}", "guest", "set guest=kernel"),
        ("{path: virtio-qemu, queue.format: packed}", "queue.format", "set queue.format=split"),
        ("{queues: 2}", "queues", "set queues=1"),
        ("{tunnel: vxlan}", "tunnel", "set tunnel=none"),
        ("{busy_poll_us: 50}", "busy_poll_us", "set busy_poll_us=0"),
        ("{sndbuf: limited}", "sndbuf", "set sndbuf=unlimited"),
        ("{store_buffer: on}", "store_buffer", "set store_buffer=off"),
        ("{features: csum}", "flows", "set flows=known"),
    ],
)
def test_worlds_in_which_tcp_is_not_followed_are_refused_with_what_to_set(world, knob, advice):
    with pytest.raises(KnobError) as caught:
        build(lesson(world, "send: {id: data, kind: tcp, bytes: 3000}"))
    assert caught.value.knob == knob
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        (["send: {id: a, kind: udp, bytes: 1473}"], "give at most 1472, or kind: tcp"),
        (["send: {id: a, kind: tcp, bytes: 0}"], "give 1 to 65000 bytes"),
        (["send: {id: a, kind: tcp, bytes: 65001}"], "65000"),
        (["send: {id: a, kind: tcp}", "reply: {to: a}"], "nobody answers here"),
        (["send: {id: a}", "receive: {id: b, kind: tcp}"], "kind"),
    ],
)
def test_what_a_scenario_cannot_ask_for_is_said_where_it_stands(events, problem):
    with pytest.raises(LessonError) as caught:
        lesson("{}", *events)
    assert any(problem in str(found) for found in caught.value.problems)


@pytest.mark.parametrize(
    "settings", [TSO | {"guest": "dpdk"}, TSO | {"path": "vhost-user"}, TSO | {"tunnel": "geneve"}]
)
def test_devices_that_do_not_offer_it_here_are_named(settings):
    with pytest.raises(KnobError, match="csum and tso are not modelled for"):
        make_world(settings | {"features": "csum,tso"})


@pytest.mark.parametrize("features", FEATURES)
def test_features_cost_nothing_where_nobody_sends_tcp(features):
    items = [OUT, Item(), Item(outgoing=False, answers=1)]
    plain, offered_too = Driven(items, KNOWN).run(), Driven(items, KNOWN, FEATURES[features]).run()
    assert [(s.op, s.outcome, s.t_ns) for s in plain.steps()] == [
        (s.op, s.outcome, s.t_ns) for s in offered_too.steps()
    ]
