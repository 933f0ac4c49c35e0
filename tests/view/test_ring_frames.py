import pytest
from live_source import Live

from virtviz.paths.traffic import Item, Poke
from virtviz.view import make_frame
from virtviz.view.ring import flag_letters

TX, RX = "vm1.transmitq1", "vm1.receiveq1"


@pytest.fixture(scope="module")
def ping():
    return Live()


def ring(live, op, queue=TX, **which):
    return make_frame(live, live.position_of(op, **which), queue).ring


def test_the_step_that_publishes_marks_avail_idx_and_nothing_else(ping):
    shown = ring(ping, "publish_avail_idx")
    assert shown.avail_idx.written
    assert shown.avail_idx.text == "1"
    assert not any(cell.written for slot in shown.slots for cell in slot.cells)
    assert not any(c.written for c in (shown.used_idx, shown.used_event, shown.avail_event, shown.used_flags))


def test_a_descriptor_goes_from_driver_to_device_to_used_and_back(ping):
    owners = [make_frame(ping, position, TX).ring.slots[0].owner for position in range(ping.length + 1)]
    changes = [b for a, b in zip(["", *owners], owners, strict=False) if a != b]
    assert changes == ["driver", "device", "used", "driver"]
    assert owners[ping.position_of("write_avail_ring")] == "driver"
    assert owners[ping.position_of("publish_avail_idx")] == "device"
    assert owners[ping.position_of("publish_used_idx", packet=1)] == "used"
    assert owners[ping.position_of("take_used", packet=1)] == "driver"


def test_the_descriptor_says_what_it_points_to_and_for_which_packet(ping):
    shown = ring(ping, "write_desc", place="vm1.virtio_net")
    slot = shown.slots[0]
    assert shown.desc == 0
    assert slot.packet == 1
    assert slot.len.text == "110"
    assert slot.flags.text == "-"
    assert slot.addr.written
    assert slot.len.written


def test_what_the_device_reads_is_marked_as_read(ping):
    shown = ring(ping, "read_head", packet=1)
    assert shown.slots[0].avail.read
    assert not shown.slots[0].avail.written


def test_slots_that_were_never_written_show_a_dot_and_used_up_ones_fade(ping):
    before = make_frame(ping, 0, TX).ring
    assert {cell.text for slot in before.slots for cell in slot.cells} == {"·"}
    after = make_frame(ping, ping.length, TX).ring
    assert after.slots[0].avail.text == "0"
    assert not after.slots[0].avail.live
    assert after.slots[1].avail.text == "·"


def test_receive_buffers_belong_to_the_device_from_the_beginning(ping):
    shown = make_frame(ping, 0, RX).ring
    assert [slot.owner for slot in shown.slots] == ["device"] * 8
    assert [slot.flags.text for slot in shown.slots] == ["W"] * 8
    assert shown.avail_idx.text == "256"


def test_both_sides_positions_are_marked_where_they_go_on(ping):
    shown = ring(ping, "publish_avail_idx")
    assert [slot.is_avail_next for slot in shown.slots[:3]] == [False, True, False]
    assert [slot.is_device_next for slot in shown.slots[:3]] == [True, False, False]


def test_indices_run_on_past_65535_while_slots_begin_again():
    live = Live(queue__start=65535)
    shown = ring(live, "publish_avail_idx")
    assert shown.avail_idx.text == "0"
    assert [slot.slot for slot in shown.slots] == list(range(248, 256))
    assert [slot.desc for slot in shown.slots] == list(range(8))
    assert shown.slots[7].avail.text == "0"
    assert shown.slots[7].avail.live
    assert shown.slots[0].owner == "device"


def test_without_event_indices_the_flags_are_what_counts():
    live = Live(features="none")
    shown = ring(live, "disable_kicks")
    assert not shown.event_idx
    assert shown.used_flags.written


def test_a_chain_belongs_to_whoever_has_its_head():
    live = Live(items=[Item("big", kind="udp", length=900, fragments=3)], features="event_idx")
    chained = ring(live, "publish_avail_idx")
    taken = [slot.owner for slot in chained.slots]
    members = taken.count("device")
    assert members > 1
    assert taken == ["device"] * members + ["driver"] * (8 - members)
    assert [slot.flags.text for slot in chained.slots[: members - 1]] == ["N"] * (members - 1)


def test_the_window_is_the_page_of_the_slot_worked_on():
    live = Live(items=[Item(f"p{i}", kind="udp", length=18) for i in range(12)])
    pages = [[slot.slot for slot in make_frame(live, p, TX).ring.slots] for p in range(0, live.length + 1, 25)]
    assert list(range(8)) in pages
    assert list(range(8, 16)) in pages
    assert all(page[0] % 8 == 0 for page in pages)


def test_a_window_is_no_wider_than_its_queue(ping):
    assert len(make_frame(ping, 0, TX, slots=4).ring.slots) == 4
    small = Live(queue__size=4, tx_stop_threshold=1)
    assert len(make_frame(small, 0, TX, slots=8).ring.slots) == 4


def test_flags_are_letters():
    assert [flag_letters(flags) for flags in (0, 1, 2, 3, 4)] == ["-", "N", "W", "NW", "I"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("avail.ring[0]", 999), ("avail.ring[0]", 200), ("used.ring[0].id", 1 << 31), ("desc[0].next", 65535)),
        *(("avail.idx", 65535), ("used.idx", 9999), ("desc[0].flags", 0xFFFF), ("desc[0].addr", (1 << 64) - 1)),
    ],
)
def test_a_malformed_ring_can_be_looked_at_everywhere(field, value):
    out = Item(kind="udp", length=18)
    live = Live([out, Poke("transmitq1", field, value), out, Poke("receiveq1", field, value), out])
    for position in range(min(live.length, 400) + 1):
        for queue in (TX, RX):
            assert make_frame(live, position, queue).ring.slots
