"""Packed rings under vhost-user: what DPDK's vhost library reads and writes, and when the guest can see it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from driving import FLAGS, IN, KNOWN, OUT, Driven, Item, Pause, burst

from virtviz.engine.trace import MEM
from virtviz.errors import KnobError
from virtviz.paths.knobs import make_world
from virtviz.paths.traffic import Poke
from virtviz.ring.packed import PackedLayout

SPLIT = KNOWN | {"path": "vhost-user"}
PACKED = SPLIT | {"queue.format": "packed"}
PING = [Item(), Item(outgoing=False, answers=0)]
ACROSS = [Item(kind="udp", length=18, to_vm=1), Item(kind="udp", length=18, vm=1, to_vm=0)]
ITEMS = {"out": [OUT], "in": [IN], "ping": PING, "many out": burst(40), "many in": burst(40, outgoing=False)}
WORLDS = {
    "default": {},
    "no event indices": FLAGS,
    "no features": {"features": ""},
    "no transmit NAPI": {"napi_tx": "off"},
    "nobody wants to hear of what was sent": FLAGS | {"napi_tx": "off"},
    "flow unknown": {"flows": "unknown"},
}


def costs(items, *settings):
    return Driven(items, *settings).run().counters()


def outcomes(world, op):
    return [outcome for name, outcome in world.ops() if name == op]


def device_writes(world, queue="vm1.transmitq1"):
    """Give what the library wrote into a queue, as op, field, and value."""
    return [
        (step.op, access.field, access.new)
        for step in world.steps()
        for access in step.writes
        if access.space == MEM and access.owner == queue and step.thread == "pmd0"
    ]


# What it costs


@pytest.mark.parametrize("items", ITEMS.values(), ids=ITEMS)
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_a_packet_crosses_the_same_borders_as_over_split_rings(items, world):
    split, packed = costs(items, SPLIT, world), costs(items, PACKED, world)
    if world.get("napi_tx") == "off":
        # Over packed rings a driver that counts on no interrupt leaves the flags as they were made: interrupts wanted.
        split, packed = ({**found, **dict.fromkeys(ONLY_CALLS, 0)} for found in (split, packed))
    assert packed == split


ONLY_CALLS = ("host_syscalls", "user_kernel.host", "interrupts", "eventfd_signals")


def test_a_packet_between_two_machines_does_too():
    two = {"vms": 2}
    found = Driven(ACROSS, PACKED, two).run()
    assert found.counters() == costs(ACROSS, SPLIT, two)
    assert [step.milestone for step in found.steps()].count("received") == 2


@pytest.mark.parametrize("start", [0, 19, 65534])
@pytest.mark.parametrize("world", [{}, FLAGS], ids=["event indices", "flags"])
def test_nobody_ever_kicks(start, world):
    """Unlike a split ring, a packed one has a word for never, which stands whatever the indices come to."""
    settings = PACKED | world | {"queue.size": 20, "queue.start": start, "tx_stop_threshold": 5}
    found = Driven([*burst(50), *[item for _ in range(30) for item in (IN, Pause())]], settings).run()
    assert {outcome for op, outcome in found.ops() if op == "check_kick"} == {"no kick"}
    assert not found.simulation.dropped()


# What is written


def test_a_lone_packets_buffer_comes_back_by_its_id_and_then_its_flags():
    assert device_writes(Driven([OUT], PACKED).run()) == [
        ("write_used", "desc[1].id", 0),
        ("publish_used_flags", "desc[1].flags", 0x8080),
    ]


def test_of_a_burst_the_first_comes_back_last():
    world = Driven(burst(3), PACKED, {"queue.start": 0}).run(without=["pmd"]).run()
    assert device_writes(world) == [
        # The second and the third are written while the burst is being taken.
        ("return_buffer", "desc[1].id", 1),
        ("return_buffer", "desc[1].len", 0),
        ("return_buffer", "desc[1].flags", 0x8080),
        ("return_buffer", "desc[2].id", 2),
        ("return_buffer", "desc[2].len", 0),
        ("return_buffer", "desc[2].flags", 0x8080),
        ("write_used", "desc[0].id", 0),
        ("publish_used_flags", "desc[0].flags", 0x8080),
    ]
    assert outcomes(world, "check_call") == ["unasked"]


def test_until_then_the_driver_finds_none_of_them():
    world = Driven(burst(3), PACKED).run(without=["pmd"])
    while world.last.name != "write_used":
        world.move("pmd", "write_used")
        assert not world.vm.tx_driver.more_used()
    world.move("pmd", "publish_used_flags")
    assert world.vm.tx_driver.more_used()


def test_buffers_that_were_filled_come_back_a_cache_line_at_a_time_and_are_told_once():
    world = Driven(burst(6, outgoing=False), PACKED, {"queue.start": 0}).run(without=["pmd"]).run()
    assert outcomes(world, "take_next") == ["more", "more", "more", "line", "more", "all"]
    assert outcomes(world, "publish_used_flags") == ["more", "done"]
    fields = [(op, field) for op, field, _ in device_writes(world, "vm1.receiveq1")]
    line = [("write_used", f"desc[{n}].{part}") for n in range(4) for part in ("id", "len", "flags")]
    line.remove(("write_used", "desc[0].flags"))
    assert fields[:12] == [*line, ("publish_used_flags", "desc[0].flags")]
    assert fields[12:] == [
        ("write_used", "desc[4].id"),
        ("write_used", "desc[4].len"),
        ("write_used", "desc[5].id"),
        ("write_used", "desc[5].len"),
        ("write_used", "desc[5].flags"),
        ("publish_used_flags", "desc[4].flags"),
    ]
    assert len(outcomes(world, "check_call")) == 1


def test_a_line_that_was_begun_before_is_full_earlier():
    world = Driven(burst(4, outgoing=False), PACKED, {"queue.start": 2}).run(without=["pmd"]).run()
    assert outcomes(world, "take_next") == ["more", "line", "more", "all"]


def test_a_batch_whose_end_is_returned_already_is_told_all_the_same():
    settings = PACKED | {"queue.start": 0, "queue.size": 4, "tx_stop_threshold": 2}
    world = Driven(burst(6, outgoing=False), settings).run(without=["pmd", "vcpu0"]).run(without=["vcpu0"])
    assert outcomes(world, "write_used") == ["written", "returned", "nothing"]
    assert outcomes(world, "check_call") == ["unasked"]
    assert outcomes(world, "settle") == ["again", "dropped", "dropped", "sent"]


def test_a_frame_fills_several_buffers_and_is_published_at_once():
    world = Driven([Item(kind="udp", length=1400, outgoing=False)], PACKED, {"rx_buffer": 600}).run()
    assert outcomes(world, "read_desc")[-3:] == ["needs more", "needs more", "fits"]
    assert [field for op, field, _ in device_writes(world, "vm1.receiveq1") if op.startswith("publish")] == [
        "desc[1].flags"
    ]
    assert world.vm.program.cells.received == 1


def test_a_used_descriptor_keeps_what_else_its_flags_say():
    world = Driven([Item(length=1000, fragments=3)], PACKED, {"features": "event_idx"}).run()
    # The first of four descriptors says NEXT; only whose turn it is changes.
    assert device_writes(world)[-1] == ("publish_used_flags", "desc[1].flags", 0x8081)


def test_an_indirect_table_takes_one_slot():
    world = Driven([Item(length=1000, fragments=3)], PACKED).run()
    assert outcomes(world, "read_desc")[:4] == ["indirect", "next", "next", "last"]
    assert world.cell("vhost-user0.transmitq1.ring.next_used") == 2


# What is said


def test_no_step_speaks_of_what_only_split_rings_have():
    for world in WORLDS.values():
        items = [*PING, *burst(30), *burst(10, outgoing=False)]
        for step in Driven(items, PACKED, world, {"queue.size": 20, "tx_stop_threshold": 10}).run().steps():
            assert step.text
            said = f"{step.op} {step.title} {step.text} {step.function}"
            for word in ("avail.idx", "used.idx", "avail_idx", "used_idx", "avail.ring", "used element", "split", "{"):
                assert word not in said, step
            assert not step.spec.startswith("virtio 1.4 2.7"), step


def test_a_prefetch_waits_for_nothing():
    steps = [step for step in Driven([IN], PACKED).run().steps() if step.thread == "pmd0"]
    lasted = {step.op: after.t_ns - step.t_ns for step, after in pairwise(steps)}
    assert lasted["prefetch_desc"] < lasted["read_flags"]


def test_at_the_end_of_a_batch_only_what_is_noted_is_unknown_to_the_guest():
    """The slots of a line that is full were returned before."""
    world = Driven(burst(6, outgoing=False), PACKED, {"queue.start": 0}).run(without=["pmd"]).run()
    (said,) = [step.text for step in world.steps() if step.op == "take_next" and step.outcome == "all"]
    assert said.startswith("Packet 6 of 6 is copied, the last of this batch.")
    assert "buffers that are noted" in said


def test_functions_are_those_of_the_packed_layout():
    assert {
        "get_nb_avail_entries_packed",
        "fill_vec_buf_packed",
        "vhost_shadow_dequeue_single_packed",
        "vhost_flush_dequeue_shadow_packed",
        "virtio_dev_rx_packed",
        "vhost_shadow_enqueue_single_packed",
        "vhost_flush_enqueue_shadow_packed",
        "vhost_vring_call_packed",
    } <= {step.function for step in Driven(PING, PACKED).run().steps()}


def test_the_rows_are_those_of_split_rings_but_for_the_list_of_heads():
    def rows(settings):
        return {step.row for step in Driven(PING, settings).run().steps() if step.row.startswith("U-")}

    assert rows(SPLIT) - rows(PACKED) == {"U-TX.3"}
    assert rows(PACKED) <= rows(SPLIT)


# Sizes and beginnings


@pytest.mark.parametrize("size", [5, 20, 100, 255])
@pytest.mark.parametrize("start", [0, 1, 4, 65535])
def test_any_size_and_any_beginning_will_do(size, start):
    settings = PACKED | {"queue.size": size, "queue.start": start, "tx_stop_threshold": 2}
    world = Driven([*burst(2 * size), *[IN] * size], settings).run()
    assert not world.simulation.dropped()
    assert world.vm.program.cells.received == size
    assert world.cell("vm1.transmitq1.num_free") == size


def test_a_guest_that_polls_has_split_rings_only():
    with pytest.raises(KnobError, match="split"):
        make_world({"path": "vhost-user", "queue.format": "packed", "guest": "dpdk"})


# When things go wrong


def test_a_guest_without_buffers_loses_what_finds_none():
    settings = PACKED | {"queue.size": 4, "tx_stop_threshold": 2, "rx_buffer": 1536}
    world = Driven(burst(6, outgoing=False), settings).run(without=["vcpu0"]).run()
    assert world.simulation.dropped() == {"vhost-user0.tx_failure_drops": 2}
    assert world.vm.program.cells.received == 4


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("desc[1].addr", 1 << 40, "address outside memory"),
        ("desc[1].len", 1 << 31, "address outside memory"),
        ("desc[1].len", 12, "nothing to send"),
        ("desc[1].len", 5, "header incomplete"),
    ],
)
def test_a_buffer_that_cannot_be_followed_is_given_back_unsent_and_the_next_is_served(field, value, said):
    world = Driven([OUT, Poke("transmitq1", field, value), Pause(), OUT], PACKED).run()
    step = next(step for step in world.steps() if step.outcome == "given back unsent")
    assert step.text.startswith(said)
    assert "given back unsent" in step.text
    assert world.simulation.dropped() == {"vhost-user0.errors": 1}
    assert [step.packet for step in world.steps() if step.milestone == "on-wire"] == [2]
    assert world.cell("vm1.transmitq1.num_free") == 256


def test_a_buffer_that_is_taken_back_ends_the_burst():
    world = Driven(burst(2), PACKED).run(without=["pmd"])
    world.move("pmd", "return_buffer")
    layout = world.vm.tx_layout
    assert isinstance(layout, PackedLayout)
    world.vm.memory.plain_u16[(layout.desc(2) + 14) // 2] = 0
    world.run()
    assert "gone" in outcomes(world, "read_desc")
    assert outcomes(world, "put_on_wire") == ["sent"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("desc[0].flags", 0x80 | 1),
        ("desc[0].flags", 0x8080),
        ("desc[0].flags", 0x80 | 4),
        ("desc[0].flags", 0),
        ("desc[0].id", 999),
        ("desc[0].len", 0),
        ("desc[0].addr", 1 << 40),
        ("driver_event.flags", 3),
        ("device_event.flags", 0),
        ("driver_event.desc", 0xFFFF),
    ],
)
@pytest.mark.parametrize("queue", ["transmitq1", "receiveq1"])
def test_a_ring_changed_from_outside_is_survived_and_the_way_back_is_exact(queue, field, value):
    settings = PACKED | {"queue.size": 20, "tx_stop_threshold": 5, "queue.start": 0}
    machine = Driven([OUT, IN, Poke(queue, field, value), *burst(3), IN, Pause(), IN], settings).machine
    begin = machine.digest()
    taken = machine.run(20_000)
    assert taken < 20_000
    end = machine.digest()
    machine.seek(0)
    assert machine.digest() == begin
    machine.seek(taken)
    assert machine.digest() == end


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_a_machine_that_only_counts_counts_the_same(world):
    items = [*PING, *burst(40), IN, IN]
    counted = Driven(items, PACKED, world, recording=False).run().counters()
    assert counted == costs(items, PACKED, world)
