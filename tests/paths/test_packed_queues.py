"""Packets over packed rings, under QEMU's own back-end: what they cost, what is written, and what may go wrong."""

from __future__ import annotations

import pytest
from driving import IN, KNOWN, OUT, Driven, Item, Pause, burst

from virtviz.engine.trace import MEM
from virtviz.paths.knobs import make_world
from virtviz.paths.packets import PacketPool
from virtviz.paths.traffic import Poke, make_traffic
from virtviz.paths.wiring import simulate
from virtviz.ring.packed import PackedLayout

SPLIT = KNOWN | {"path": "virtio-qemu"}
PACKED = SPLIT | {"queue.format": "packed"}
PING = [Item(), Item(outgoing=False, answers=0)]
ACROSS = [Item(kind="udp", length=18, to_vm=1), Item(kind="udp", length=18, vm=1, to_vm=0)]
WORLDS = {
    "default": {},
    "no ioeventfd": {"ioeventfd": "off"},
    "halted": {"vcpu": "halted"},
    "no event indices": {"features": "indirect,mergeable"},
    "no features": {"features": ""},
    "no transmit NAPI": {"napi_tx": "off"},
    "recorded": {"profile": "recorded"},
}
SMALL = {"queue.size": 5, "tx_stop_threshold": 2}


def costs(items, *settings):
    return Driven(items, *settings).run().counters()


def ring_writes(world, queue="vm1.transmitq1"):
    """Give what was written into a queue, as op, field, and value."""
    return [
        (step.op, access.field, access.new)
        for step in world.steps()
        for access in step.writes
        if access.space == MEM and access.owner == queue
    ]


# What it costs


@pytest.mark.parametrize("items", [[OUT], [IN], PING], ids=["out", "in", "ping"])
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_a_packet_crosses_the_same_borders_as_over_split_rings(items, world):
    assert costs(items, PACKED, world) == costs(items, SPLIT, world)


def test_a_packet_between_two_machines_does_too():
    two = {"vms": 2}
    found = Driven(ACROSS, PACKED, two).run()
    assert found.counters() == costs(ACROSS, SPLIT, two)
    assert [step.milestone for step in found.steps()].count("received") == 2


def test_what_the_frames_carry_is_the_same_on_both_sides_of_the_ring():
    frames = {}
    for name, settings in (("split", SPLIT), ("packed", PACKED)):
        world = Driven([Item(length=1000, fragments=3), IN], settings).run()
        pools = [pool for pool in world.simulation.pools.values() if isinstance(pool, PacketPool)]
        frames[name] = {pool.name: [bytes(pool.data(slot)) for slot in range(1, 3)] for pool in pools}
    assert frames["packed"] == frames["split"]


# What is written


def test_a_descriptor_is_written_before_its_flags_and_returned_in_the_same_way():
    world = Driven([OUT], PACKED).run()
    about_desc = [entry for entry in ring_writes(world) if entry[1].startswith("desc")]
    assert [entry[:2] for entry in about_desc] == [
        ("write_desc", "desc[0]"),
        ("publish_flags", "desc[0].flags"),
        ("write_used", "desc[0].id"),
        ("write_used", "desc[0].len"),
        ("publish_used_flags", "desc[0].flags"),
    ]
    assert [new for _, field, new in about_desc if field.endswith("flags")] == [0x80, 0x8080]


def test_a_used_descriptor_gets_the_id_of_its_buffer_and_the_length_written():
    world = Driven([IN] * 3, PACKED, {"features": "event_idx,mergeable", "rx_buffer": 64}).run()
    used = [entry[1:] for entry in ring_writes(world, "vm1.receiveq1") if entry[0] == "write_used"]
    # Each frame of 72 bytes with its header takes two buffers; the flags of the second are written with it.
    assert used[:5] == [
        ("desc[0].id", 0),
        ("desc[0].len", 64),
        ("desc[1].id", 1),
        ("desc[1].len", 8),
        ("desc[1].flags", 0x8080),
    ]


def test_a_wish_is_its_place_and_then_its_flags_in_two_stores():
    world = Driven([OUT], PACKED).run()
    wishes = [entry for entry in ring_writes(world) if entry[1].startswith(("driver_event", "device_event"))]
    assert wishes == [
        ("disable_callbacks", "driver_event.flags", 1),
        ("enable_callbacks_delayed", "driver_event.desc", 0x8000),
        ("want_callbacks", "driver_event.flags", 2),
        ("disable_kicks", "device_event.flags", 1),
        ("enable_kicks", "device_event.desc", 0x8001),
        ("want_kicks", "device_event.flags", 2),
        ("enable_callbacks", "driver_event.desc", 0x8001),
        ("want_callbacks", "driver_event.flags", 2),
    ]


def test_without_event_indices_no_place_is_written():
    fields = {field for _, field, _ in ring_writes(Driven([OUT], PACKED, {"features": ""}).run())}
    assert {"driver_event.flags", "device_event.flags"} <= fields
    assert not {"driver_event.desc", "device_event.desc"} & fields


def test_no_step_over_packed_rings_speaks_of_what_only_split_ones_have():
    for world in WORLDS.values():
        steps = Driven([*PING, *burst(30)], PACKED, world, {"queue.size": 20, "tx_stop_threshold": 10}).run().steps()
        about_rings = [step for step in steps if step.queue]
        for step in about_rings:
            said = f"{step.op} {step.title} {step.text} {step.function}"
            for word in ("avail.idx", "used.idx", "avail_idx", "used_idx", "avail.ring", "used element", "split"):
                assert word not in said, step
            assert not step.spec.startswith("virtio 1.4 2.7"), step


def test_no_step_writes_two_fields_that_the_other_side_reads():
    told = ("driver_event.", "device_event.", ".flags")
    for step in Driven([*PING, *burst(5)], PACKED).run().steps():
        fields = [w.field for w in step.writes if w.space == MEM and step.queue and w.owner == step.queue]
        assert sum(any(part in field for part in told) for field in fields) <= 1, step


# Functions


def test_functions_are_those_of_the_packed_layout():
    functions = {step.function for step in Driven(PING, PACKED).run().steps()}
    assert {
        "virtqueue_add_packed",
        "virtqueue_kick_prepare_packed",
        "virtqueue_get_buf_ctx_packed",
        "virtqueue_enable_cb_delayed_packed",
        "virtqueue_enable_cb_prepare_packed",
        "virtqueue_poll_packed",
        "virtio_queue_packed_empty_rcu",
        "virtio_queue_packed_set_notification",
        "virtqueue_packed_fill_desc",
        "virtqueue_packed_flush",
        "virtio_packed_should_notify",
    } <= functions
    assert not [name for name in functions if "split" in name]


def test_an_indirect_table_takes_one_slot():
    world = Driven([Item(length=1000, fragments=3)], PACKED).run()
    assert ("write_indirect_desc", "desc[0]") in [entry[:2] for entry in ring_writes(world)]
    assert "virtqueue_add_indirect_packed" in {step.function for step in world.steps()}
    direct = Driven([Item(length=1000, fragments=3)], PACKED, {"features": "event_idx"}).run()
    assert {f"desc[{n}].flags" for n in (0,)} | {"desc[1]", "desc[2]"} <= {field for _, field, _ in ring_writes(direct)}
    assert direct.cell("vm1.transmitq1.next_avail") == 3


def test_for_what_was_received_qemu_has_no_barrier_before_it_asks_for_the_guests_wish():
    def barriers(settings):
        steps = Driven(PING, settings).run().steps()
        return [(step.queue, step.function) for step in steps if step.op == "mb_before_interrupt_check"]

    sent, received = "vm1.transmitq1", "vm1.receiveq1"
    assert barriers(SPLIT) == [(queue, "virtio_split_should_notify") for queue in (sent, received)]
    assert barriers(PACKED) == [(sent, "rcu_read_lock")]


# Sizes and beginnings


@pytest.mark.parametrize("size", [20, 100, 255, 1000])
def test_a_packed_ring_need_not_have_a_power_of_two_of_descriptors(size):
    world = Driven([*burst(2 * size), *[IN] * 5], PACKED, {"queue.size": size}).run()
    assert not world.simulation.dropped()
    assert world.cell("vm1.transmitq1.next_avail") == 0
    assert world.cell("vm1.transmitq1.num_free") == size


@pytest.mark.parametrize(
    ("start", "slot", "wrap"), [(0, 0, 1), (19, 19, 1), (20, 0, 0), (38, 18, 0), (41, 1, 1), (65535, 15, 1)]
)
def test_a_beginning_is_a_slot_and_a_wrap_counter(start, slot, wrap):
    world = Driven([*burst(50), *[IN] * 50], PACKED, {"queue.size": 20, "queue.start": start, "tx_stop_threshold": 5})
    driver, device = world.vm.tx_driver.cells, world.vm.tx_device.cells
    assert (driver.next_avail, driver.avail_wrap, driver.last_used, driver.used_wrap) == (slot, wrap, slot, wrap)
    assert (device.next_avail, device.avail_wrap, device.next_used, device.used_wrap) == (slot, wrap, slot, wrap)
    world.run()
    assert not world.simulation.dropped()
    milestones = [step.milestone for step in world.steps()]
    assert (milestones.count("on-wire"), milestones.count("received")) == (50, 50)


def test_once_a_lap_qemu_interrupts_for_it_cannot_compare_slots_of_two():
    def interrupts(settings):
        return costs(burst(60), settings, {"queue.size": 32})["interrupts"]

    assert interrupts(PACKED) >= interrupts(SPLIT)


# A full ring


@pytest.mark.parametrize("napi_tx", ["on", "off"])
def test_a_full_ring_stops_the_queue_and_goes_on(napi_tx):
    world = Driven(burst(60), PACKED, {"queue.size": 20, "tx_stop_threshold": 10, "napi_tx": napi_tx})
    world.run(without=["qemu"]).run()
    ops = [op for op in world.ops() if op[0] in ("stop_if_full", "want_callbacks_after_stop")]
    assert ("want_callbacks_after_stop", "written" if napi_tx == "off" else "nothing") in ops
    assert not world.simulation.dropped()


def test_a_packet_that_finds_no_room_is_dropped_without_a_kick():
    settings = {"queue.size": 5, "tx_stop_threshold": 1, "features": "event_idx", "napi_tx": "off"}
    world = Driven([Item(length=1000, fragments=4)] * 2, PACKED, settings).run(without=["qemu"])
    assert [outcome for op, outcome in world.ops() if op == "write_desc"] == ["direct", "no room"]
    assert world.ops()[world.ops().index(("write_desc", "no room")) + 1][0] == "drop_packet"


# Buffers run out


@pytest.mark.parametrize("features", ["event_idx,indirect,mergeable", "event_idx", "mergeable", ""])
def test_a_frame_waits_in_qemu_until_the_guest_has_put_buffers_in(features):
    world = Driven([IN] * 30, PACKED, {"queue.size": 8, "tx_stop_threshold": 2, "features": features})
    world.run(without=["vcpu0"])
    assert "kept" in [outcome for op, outcome in world.ops() if op == "count"]
    world.run()
    assert [step.milestone for step in world.steps()].count("received") == 30
    assert ("check_kick", "kick") in world.ops()


# Malformed


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("desc[0].flags", 0x80 | 1),
        ("desc[0].flags", 0x8080),
        ("desc[0].flags", 0),
        ("desc[0].id", 999),
        ("desc[0].len", 0),
        ("desc[0].addr", 1 << 40),
        ("driver_event.flags", 3),
        ("device_event.flags", 1),
        ("driver_event.desc", 0xFFFF),
    ],
)
@pytest.mark.parametrize("queue", ["transmitq1", "receiveq1"])
def test_a_ring_changed_from_outside_is_survived_and_the_way_back_is_exact(queue, field, value):
    settings = PACKED | {"queue.size": 20, "tx_stop_threshold": 5}
    world = Driven([OUT, IN, Poke(queue, field, value), *burst(3), IN, Pause(), IN], settings)
    machine = world.machine
    begin = machine.digest()
    taken = machine.run(20_000)
    assert taken < 20_000
    end = machine.digest()
    machine.seek(0)
    assert machine.digest() == begin
    machine.seek(taken)
    assert machine.digest() == end


def test_a_used_id_that_nobody_offered_breaks_the_guests_queue():
    world = Driven([OUT], PACKED)
    world.step_until("publish_used_flags")
    layout = world.vm.tx_layout
    assert isinstance(layout, PackedLayout)
    world.vm.memory.plain_u16[(layout.desc(0) + 12) // 2] = 77
    world.run()
    assert ("take_used", "bad") in world.ops()
    assert world.vm.tx_driver.cells.broken


def test_a_chain_that_goes_on_where_nothing_was_offered_breaks_the_device():
    world = Driven([OUT, Pause(), OUT], PACKED)
    world.step_until("publish_flags")
    layout = world.vm.tx_layout
    assert isinstance(layout, PackedLayout)
    world.vm.memory.plain_u16[(layout.desc(0) + 14) // 2] |= 1
    world.run()
    assert world.cell("qemu-4002.nic.errors") == 1
    assert ("read_desc", "needs reset") in world.ops()
    assert world.cell("vm1.transmitq1.num_free") < 256


# Counting


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_a_machine_that_only_counts_counts_the_same(world):
    items = [*PING, *burst(40), IN, IN]
    counted = Driven(items, PACKED, world, recording=False).run().counters()
    assert counted == costs(items, PACKED, world)


def test_a_world_of_packed_rings_can_be_made_by_knobs_alone():
    simulation = simulate(make_world({"path": "virtio-qemu", "queue.format": "packed"}), make_traffic([OUT]))
    assert isinstance(simulation.vms[0].tx_layout, PackedLayout)
