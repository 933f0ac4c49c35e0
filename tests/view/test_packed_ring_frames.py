import pytest
from live_source import Live

from virtviz.paths.traffic import Item
from virtviz.session.fields import find_field
from virtviz.session.options import ring_fields
from virtviz.view import make_frame
from virtviz.view.packed_ring import turn_letters

TX, RX = "vm1.transmitq1", "vm1.receiveq1"
PACKED = {"path": "virtio-qemu", "queue__format": "packed"}


@pytest.fixture(scope="module")
def ping():
    return Live(**PACKED)


def ring(live, op, queue=TX, **which):
    return make_frame(live, live.position_of(op, **which), queue).ring


def owners(live, queue=TX, slot=0):
    found = [make_frame(live, position, queue).ring.slots[slot].owner for position in range(live.length + 1)]
    return [b for a, b in zip(["", *found], found, strict=False) if a != b]


def test_flags_are_letters_whose_turn_it_is_first():
    assert [turn_letters(flags) for flags in (0, 0x80, 0x8000, 0x8080, 0x83, 0x8004)] == [
        "--",
        "A-",
        "-U",
        "AU",
        "A-NW",
        "-UI",
    ]


def test_a_descriptor_goes_from_driver_to_device_to_used_and_back(ping):
    assert owners(ping) == ["driver", "device", "used", "driver"]
    assert ring(ping, "write_desc", place="vm1.virtio_net").slots[0].owner == "driver"
    assert ring(ping, "publish_flags", place="vm1.virtio_net").slots[0].owner == "device"
    assert ring(ping, "publish_used_flags", packet=1).slots[0].owner == "used"


def test_a_descriptor_is_shown_with_its_packet_before_it_is_available(ping):
    shown = ring(ping, "write_desc", place="vm1.virtio_net")
    slot = shown.slots[0]
    assert (shown.desc, slot.packet, slot.len.text, slot.id.text, slot.flags.text) == (0, 1, "110", "0", "--")
    assert slot.addr.written
    assert slot.len.written
    assert slot.id.written
    assert not slot.flags.written


def test_the_step_that_stores_the_flags_marks_them_and_nothing_else(ping):
    shown = ring(ping, "publish_flags", place="vm1.virtio_net")
    assert shown.slots[0].flags.written
    assert shown.slots[0].flags.text == "A-"
    assert sum(cell.written for slot in shown.slots for cell in slot.cells) == 1


def test_a_used_descriptor_has_no_address_any_more(ping):
    slot = ring(ping, "publish_used_flags", packet=1).slots[0]
    assert not slot.addr.live
    assert slot.id.live
    assert slot.flags.text == "AU"


def test_wishes_are_shown_by_name_and_in_the_slot_they_mean(ping):
    before = make_frame(ping, 0, TX).ring
    assert (before.driver_event.flags.text, before.device_event.flags.text) == ("ENABLE", "ENABLE")
    assert {slot.driver_event for slot in before.slots} == {-1}
    placed = ring(ping, "enable_kicks")
    assert placed.device_event.place.written
    assert placed.device_event.place.text == "1 w1"
    assert placed.device_event.flags.text == "DISABLE"
    wanted = ring(ping, "want_kicks")
    assert wanted.device_event.flags.written
    assert [slot.device_event for slot in wanted.slots[:3]] == [-1, 1, -1]


def test_positions_and_wrap_counters_are_those_of_both_sides():
    live = Live([Item(kind="udp") for _ in range(6)], queue__size=5, tx_stop_threshold=1, **PACKED)
    begin, end = make_frame(live, 0, TX).ring, make_frame(live, live.length, TX).ring
    assert (begin.avail_wrap.text, begin.device_wrap.text, begin.num_free.text) == ("1", "1", "5")
    assert (end.avail_wrap.text, end.used_wrap.text, end.device_wrap.text, end.device_used_wrap.text) == ("0",) * 4
    assert [slot.is_avail_next and slot.is_device_next for slot in end.slots] == [False, True, False, False, False][
        : len(end.slots)
    ]


def test_a_window_on_a_ring_of_any_size_ends_where_the_ring_ends():
    live = Live([Item(kind="udp")], queue__size=30, queue__start=29, **PACKED)
    shown = make_frame(live, live.position_of("publish_flags", place="vm1.virtio_net"), TX, slots=8).ring
    assert [slot.slot for slot in shown.slots] == list(range(22, 30))
    assert shown.slots[-1].flags.text == "A-"


def test_a_chain_has_one_owner_and_one_packet():
    live = Live([Item(length=1000, fragments=3)], features="event_idx", **PACKED)
    shown = ring(live, "publish_flags", place="vm1.virtio_net")
    assert [(slot.owner, slot.packet) for slot in shown.slots[:4]] == [("device", 1)] * 3 + [("driver", 0)]
    assert [slot.flags.text for slot in shown.slots[:3]] == ["A-N", "A-N", "A-"]


def test_the_header_says_which_queues_are_packed_and_where_their_parts_lie(ping):
    for queue in ping.header.queues:
        assert queue.format == "packed"
        assert queue.layout.areas == (queue.desc, queue.avail, queue.used)
    assert {queue.format for queue in Live().header.queues} == {"split"}


def test_options_for_a_field_of_a_packed_ring_are_fields_of_one(ping):
    queue = ping.header.queues[0]
    fields = ring_fields("desc[3].flags", ["driver_event.desc"], queue)
    assert fields == ["desc[3].flags", "desc[3].id", "driver_event.desc", "driver_event.flags"]


class _Run:
    """As much of a run as looking for a field needs."""

    def __init__(self, live):
        self.header, self.machine = live.header, live.machine

    def arc(self, n):
        return self.machine.arc_at(n - 1)


@pytest.mark.parametrize(
    ("name", "size"),
    [("transmitq1.desc[3].flags", 2), ("desc[0].id", 2), ("vm1.receiveq1.driver_event.desc", 2), ("desc[1].addr", 8)],
)
def test_fields_of_a_packed_ring_are_found_by_name(ping, name, size):
    found = find_field(_Run(ping), name, 0)
    assert found.size == size
    assert not found.is_index
    assert find_field(_Run(ping), "avail.idx", 0) is None
    assert find_field(_Run(ping), "desc[3].next", 0) is None
