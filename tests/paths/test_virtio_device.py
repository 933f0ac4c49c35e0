"""A virtio-net device over any of its rings: sending, receiving, what it refuses, reset."""

from __future__ import annotations

from typing import Any

import pytest
from bare_guest import HEADER, MAC, BareGuest, frame_to

from virtviz.spec.virtio import Feature

OURS, OTHER = MAC.hex(), "02deadbeef01"
EVENT_IDX, MERGEABLE = Feature.RING_F_EVENT_IDX, Feature.NET_F_MRG_RXBUF
KINDS = [
    ("split", "qemu"),
    ("split", "vhost"),
    ("split", "strict"),
    ("packed", "qemu"),
    ("packed", "vhost"),
    ("packed", "strict"),
]
every_kind = pytest.mark.parametrize(("layout", "back_end"), KINDS)


@every_kind
@pytest.mark.parametrize("start", [0, 65533])
@pytest.mark.parametrize("event_idx", [False, True])
def test_frames_go_out_and_their_buffers_come_back(layout: Any, back_end: Any, start: int, *, event_idx: bool):
    guest = BareGuest(*[EVENT_IDX] * event_idx, layout=layout, back_end=back_end, start=start)
    for _ in range(4):
        frames = [frame_to("ffffffffffff", length=60 + i) for i in range(3)]
        assert guest.send(*frames) == frames
        assert guest.net.read_isr() == 1
        assert guest.back(1) == [(1, 0), (2, 0), (3, 0)]
        guest.drivers[1].enable_callbacks()
    assert guest.net.verdict() is None


@every_kind
def test_virtio_5_1_9_4_a_frame_spans_as_many_mergeable_buffers_as_it_needs(layout: Any, back_end: Any):
    guest = BareGuest(MERGEABLE, layout=layout, back_end=back_end, start=65534)
    guest.offer_room(600, 600, 600, 600)
    frame = frame_to(OURS, length=1514)
    assert guest.net.receive(frame, header=b"\x01" + bytes(9)) == "received"
    assert guest.back(0) == [(1, 600), (2, 600), (3, 326)]
    assert guest.net.read_isr() == 1
    whole = b"".join(guest.ram.read(guest.at(i), length) for i, length in enumerate((600, 600, 326)))
    assert whole == b"\x01" + bytes(9) + b"\x03\x00" + frame
    assert guest.ram.read(guest.at(2) + 326, 1) == b"\xee"


@every_kind
def test_a_frame_waits_until_there_are_buffers_enough(layout: Any, back_end: Any):
    guest = BareGuest(MERGEABLE, EVENT_IDX, layout=layout, back_end=back_end)
    guest.offer_room(600, 600)
    frame = frame_to(OURS, length=1514)
    guest.drivers[0].kick_needed()
    assert guest.net.receive(frame) == "no room"
    assert guest.back(0) == []
    guest.offer(0, [(guest.at(2), 600)], 1, 3)
    assert guest.drivers[0].kick_needed(), "the device asked for this one"
    assert guest.net.receive(frame) == "received"
    assert guest.back(0) == [(1, 600), (2, 600), (3, 326)]


@every_kind
def test_what_does_not_fit_into_its_one_buffer_is_gone(layout: Any, back_end: Any):
    guest = BareGuest(layout=layout, back_end=back_end)
    guest.offer_room(100, 1526)
    assert guest.net.receive(frame_to(OURS, length=200)) == "too long"
    assert guest.back(0) == []
    assert guest.net.receive(frame_to(OURS, length=60)) == "received"
    assert guest.back(0) == [(1, 72)]


@every_kind
def test_without_buffers_nothing_is_received(layout: Any, back_end: Any):
    guest = BareGuest(layout=layout, back_end=back_end)
    assert guest.net.receive(frame_to(OURS)) == "no room"
    assert guest.net.verdict() is None


@pytest.mark.parametrize(("back_end", "count"), [("qemu", b"\xee\xee"), ("vhost", b"\xee\xee"), ("strict", b"\1\0")])
def test_num_buffers_is_written_by_who_follows_the_letter(back_end: Any, count: bytes):
    guest = BareGuest(back_end=back_end)
    guest.offer_room(1526)
    frame = frame_to(OURS)
    assert guest.net.receive(frame) == "received"
    assert guest.ram.read(guest.at(0), HEADER + 60) == bytes(10) + count + frame


@pytest.mark.parametrize("back_end", ["qemu", "vhost", "strict"])
def test_the_legacy_header_is_ten_bytes(back_end: Any):
    guest = BareGuest(back_end=back_end, version_1=False)
    guest.offer_room(1526)
    frame = frame_to(OURS)
    assert guest.net.receive(frame) == "received"
    assert guest.back(0) == [(1, 70)]
    assert guest.ram.read(guest.at(0), 70) == bytes(10) + frame


def test_a_frame_for_a_pair_that_is_not_in_use_waits():
    guest = BareGuest(Feature.NET_F_MQ, Feature.NET_F_CTRL_VQ, pairs=2)
    guest.offer_room(1526, queue=2)
    assert guest.net.receive(frame_to(OURS), pair=1) == "no room"
    assert guest.command(4, 0, b"\2\0") == 0
    assert guest.net.receive(frame_to(OURS), pair=1) == "received"
    assert guest.back(2) == [(1, 72)]
    assert guest.send(frame_to(OURS), queue=3) == [frame_to(OURS)]


def test_an_empty_frame_takes_a_buffer_of_its_own():
    guest = BareGuest()
    guest.offer_room(1526)
    assert guest.net.receive(b"") == "received"
    assert guest.back(0) == [(1, 12)]


def test_virtio_2_1_2_nothing_is_used_before_driver_ok():
    guest = BareGuest(ready=False)
    guest.offer_room(1526)
    assert guest.send(frame_to(OURS)) == []
    assert guest.net.receive(frame_to(OURS)) == "no room"
    verdict = guest.net.verdict()
    assert verdict is not None
    assert (verdict.problem, verdict.what) == ("not ready", "ignored")
    guest.net.set_status(4)
    assert guest.net.kick(1) == [frame_to(OURS)]


def test_a_kick_of_a_queue_that_is_not_there_does_nothing():
    guest = BareGuest()
    assert guest.net.kick(9) == []
    del guest.net.rings[0]
    assert guest.net.kick(0) == []
    assert guest.net.receive(frame_to(OURS)) == "no room"


# What is wrong


def refused(guest: BareGuest, problem: str, what: str) -> None:
    verdict = guest.net.verdict()
    assert verdict is not None
    assert (verdict.problem, verdict.what) == (problem, what)
    assert guest.net.cells.broken == (what == "needs reset")
    assert bool(guest.net.cells.status & 64) == (what == "needs reset")


WRONG_TO_SEND = [
    ([(0, 60)], 1, "no header", {}),
    ([(0, 8)], 0, "header incomplete", {"vnet_hdr": True}),
    ([(0, 12)], 0, "nothing to send", {"vnet_hdr": False}),
]
AFTER = {"qemu": "needs reset", "strict": "needs reset", "vhost": "stops until the next kick"}


@every_kind
@pytest.mark.parametrize(("pieces", "writable", "problem", "more"), WRONG_TO_SEND)
def test_a_buffer_that_holds_no_frame_is_refused(
    layout: Any, back_end: Any, pieces: list[tuple[int, int]], writable: int, problem: str, more: Any
):
    guest = BareGuest(layout=layout, back_end=back_end, **more)
    guest.offer(1, [(guest.at(0) + at, length) for at, length in pieces], writable, 1)
    assert guest.net.kick(1) == []
    refused(guest, problem, AFTER[back_end])
    later = guest.send(frame_to(OURS))
    assert later == ([] if guest.net.cells.broken else [frame_to(OURS)])


@pytest.mark.parametrize(
    ("vnet_hdr", "length", "problem"),
    [(False, 12, "nothing to send"), (False, 5, "nothing to send"), (True, 5, "header incomplete")],
)
def test_qemu_looks_at_the_header_only_if_it_has_a_use_for_it(length: int, problem: str, *, vnet_hdr: bool):
    guest = BareGuest(vnet_hdr=vnet_hdr)
    guest.offer(1, [(guest.at(0), length)], 0, 1)
    guest.net.kick(1)
    refused(guest, problem, "needs reset")
    guest = BareGuest(vnet_hdr=True)
    guest.offer(1, [(guest.at(0), 12)], 0, 1)
    assert guest.net.kick(1) == [b""], "the TAP will refuse it"


@pytest.mark.parametrize("back_end", ["vhost", "strict"])
def test_a_buffer_to_send_has_nothing_to_write(back_end: Any):
    guest = BareGuest(back_end=back_end)
    guest.offer(1, [(guest.at(0), 72), (guest.at(1), 8)], 1, 1)
    assert guest.net.kick(1) == []
    refused(guest, "writable while sending", AFTER[back_end])


@every_kind
def test_a_buffer_to_receive_into_has_something_to_write(layout: Any, back_end: Any):
    guest = BareGuest(MERGEABLE, layout=layout, back_end=back_end)
    guest.offer(0, [(guest.at(0), 100)], 0, 1)
    guest.offer(0, [(guest.at(1), 1526)], 1, 2)
    assert guest.net.receive(frame_to(OURS)) == "no room"
    refused(guest, "nothing writable", AFTER[back_end])
    if back_end == "vhost":
        assert guest.net.receive(frame_to(OURS)) == "received", "the wrong one was lost"
        assert guest.back(0) == [(2, 72)]
    else:
        assert guest.net.receive(frame_to(OURS)) == "no room"


@pytest.mark.parametrize("layout", ["split", "packed"])
def test_vhost_goes_back_by_as_many_buffers_as_were_good(layout: Any):
    guest = BareGuest(MERGEABLE, layout=layout, back_end="vhost")
    guest.offer_room(50)
    guest.offer(0, [(guest.at(1), 20), (guest.at(1) + 20, 20)], 1, 2)
    assert guest.net.receive(frame_to(OURS)) == "no room"
    refused(guest, "readable while receiving", "stops until the next kick")


@every_kind
def test_virtio_5_1_9_3_1_the_first_buffer_has_room_for_the_header(layout: Any, back_end: Any):
    guest = BareGuest(MERGEABLE, layout=layout, back_end=back_end)
    guest.offer_room(5, 100)
    frame = frame_to(OURS)
    answer = guest.net.receive(frame)
    if back_end == "strict":
        refused(guest, "no room for the header", "needs reset")
        return
    assert answer == "received"
    if back_end == "vhost":
        assert guest.back(0) == [(1, 5), (2, 67)]
        assert guest.ram.read(guest.at(1), 67) == bytes(5) + b"\2\0" + frame
    else:
        assert guest.back(0) == [(1, 12), (2, 60)]
        assert guest.ram.read(guest.at(1), 60) == frame
        refused(guest, "no room for the header", "ignored")


def test_qemu_passes_over_readable_pieces_of_a_buffer_to_receive_into():
    guest = BareGuest()
    guest.offer(0, [(guest.at(0), 20), (guest.at(1), 1526)], 1, 1)
    assert guest.net.receive(frame_to(OURS)) == "received"
    assert guest.ram.read(guest.at(1) + HEADER, 60) == frame_to(OURS)


def test_buffers_that_vanish_between_counting_and_taking_are_missed():
    guest = BareGuest(MERGEABLE)
    # The first buffer lies over the second one's descriptor: its virtio-net header becomes that one's length and flags.
    guest.offer(0, [(guest.layouts[0].desc + 24, 72)], 1, 1)
    guest.offer(0, [(guest.at(1), 60)], 1, 2)
    header = (10).to_bytes(4, "little") + b"\2\0" + bytes(4)
    assert guest.net.receive(frame_to(OURS, length=120), header=header) == "no room"
    refused(guest, "ring ran dry", "needs reset")


def quicker(guest: BareGuest, queue: int, offer: Any) -> None:
    """Let the driver offer something at the very moment at which the device asks for kicks."""
    ring: Any = guest.net.rings[queue]
    ask = ring.enable_kicks

    def offer_and_ask() -> bool:
        ring.enable_kicks = ask
        offer()
        asked: bool = ask()
        return asked

    ring.enable_kicks = offer_and_ask


@every_kind
def test_the_device_looks_once_more_after_asking_for_kicks(layout: Any, back_end: Any):
    guest = BareGuest(layout=layout, back_end=back_end)
    quicker(guest, 0, lambda: guest.offer_room(1526))
    assert guest.net.receive(frame_to(OURS)) == "received"
    guest.ram.write(guest.at(3), bytes(HEADER) + frame_to(OTHER))
    quicker(guest, 1, lambda: guest.offer(1, [(guest.at(3), HEADER + 60)], 0, 9))
    assert guest.send(frame_to(OURS)) == [frame_to(OURS), frame_to(OTHER)]
    assert guest.back(1) == [(1, 0), (9, 0)]


def test_qemu_counts_what_waits_before_it_fills_mergeable_buffers():
    guest = BareGuest(MERGEABLE)
    guest.ram.plain_u16[guest.layouts[0].avail_idx // 2] = 9
    assert guest.net.receive(frame_to(OURS)) == "no room"
    refused(guest, "avail.idx jumped", "needs reset")
    verdict = guest.net.verdict()
    assert verdict is not None
    assert verdict.message == "Guest moved used index from 0 to 9"


def test_what_qemu_lets_pass_is_told_to_who_asks():
    guest = BareGuest()
    guest.offer(1, [(1 << 40, 72)], 0, 1)
    assert guest.net.kick(1) == [bytes(60)]
    verdict = guest.net.verdict()
    assert verdict is not None
    assert (verdict.problem, verdict.what) == ("address outside memory", "ignored")
    assert guest.send(frame_to(OURS)) == [frame_to(OURS)]


def test_a_frame_over_more_buffers_than_can_be_noted_is_refused_by_qemu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("virtviz.paths.virtio_device.receive.IOV_MAX", 2)
    guest = BareGuest(MERGEABLE, back_end="qemu")
    guest.offer_room(30, 30, 30)
    assert guest.net.receive(frame_to(OURS)) == "no room"
    refused(guest, "too many buffers", "needs reset")


def test_vhost_throws_a_frame_over_more_buffers_than_can_be_noted_away(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("virtviz.paths.virtio_device.receive.IOV_MAX", 2)
    guest = BareGuest(MERGEABLE, back_end="vhost")
    guest.offer_room(30, 30, 30)
    assert guest.net.receive(frame_to(OURS)) == "too long"
    refused(guest, "too many buffers", "ignored")
    assert guest.net.receive(frame_to(OURS, length=40)) == "received"


def test_vhost_counts_the_pieces_of_all_buffers_together(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("virtviz.paths.virtio_device.receive.IOV_MAX", 3)
    guest = BareGuest(MERGEABLE, back_end="vhost")
    for i in range(2):
        guest.offer(0, [(guest.at(i), 20), (guest.at(i) + 20, 20)], 2, i + 1)
    assert guest.net.receive(frame_to(OURS)) == "no room"
    refused(guest, "too many pieces", "stops until the next kick")
    assert guest.drivers[0].cells.num_free == 4


@pytest.mark.parametrize("back_end", ["vhost", "strict"])
def test_a_jumped_index_is_met_where_it_is_first_looked_at(back_end: Any):
    guest = BareGuest(back_end=back_end)
    guest.ram.plain_u16[guest.layouts[0].avail_idx // 2] = 9
    assert guest.net.receive(frame_to(OURS)) == "no room"
    refused(guest, "avail.idx jumped", AFTER[back_end])
    guest.ram.plain_u16[guest.layouts[1].avail_idx // 2] = 9
    assert guest.net.kick(1) == []


def test_without_version_1_a_broken_device_has_no_way_to_say_so():
    guest = BareGuest(version_1=False)
    guest.offer(1, [(guest.at(0), 60)], 1, 1)
    assert guest.net.kick(1) == []
    assert guest.net.cells.broken
    assert guest.net.cells.status == 4
    assert guest.net.read_isr() == 3


# Reset


@every_kind
def test_a_reset_brings_a_broken_device_back(layout: Any, back_end: Any):
    guest = BareGuest(Feature.NET_F_CTRL_VQ, layout=layout, back_end=back_end)
    guest.command(0, 0, b"\0")
    guest.command(1, 1, bytes.fromhex("02deadbeef01"))
    guest.offer(guest.control, [(guest.at(0), 1)], 0, 1)
    guest.net.kick(guest.control)
    refused(guest, "command incomplete", "needs reset")
    assert guest.net.read_isr() & 2
    guest.net.set_status(0)
    assert (guest.net.cells.status, guest.net.cells.broken, guest.net.filter.mac) == (0, 0, MAC)
    assert guest.net.verdict() is None
    guest.make_drivers(name="again")
    guest.net.set_status(4)
    assert guest.send(frame_to(OURS)) == [frame_to(OURS)]
    guest.offer_room(1526)
    assert guest.net.receive(frame_to("02deadbeef02")) == "received", "promiscuous again"


def test_everything_a_device_does_can_be_taken_back():
    guest = BareGuest(MERGEABLE, Feature.NET_F_CTRL_VQ, Feature.NET_F_CTRL_VLAN, recording=True)
    journal = guest.state.journal
    assert journal is not None
    journal.clear()
    before = guest.state.digest()
    guest.offer_room(50, 50)
    assert guest.net.receive(frame_to(OURS)) == "received"
    guest.send(frame_to(OURS))
    for group, command, data in ((0, 0, b"\0"), (1, 1, MAC[::-1]), (2, 0, b"\7\0"), (9, 9, b"")):
        guest.command(group, command, data)
    guest.set_table([MAC], [bytes.fromhex("01005e000001")])
    guest.net.set_link(up=False)
    guest.net.reset()
    assert guest.state.digest() != before
    guest.state.undo(journal.tail, journal.blobs, len(journal.blobs))
    assert guest.state.digest() == before
