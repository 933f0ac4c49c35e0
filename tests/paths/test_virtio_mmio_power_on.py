"""A virtio-mmio device set up from power-on: what the registers hold, in which order, and what arrives at vhost."""

from __future__ import annotations

import textwrap
from functools import cache

import pytest
from driving import KNOWN, Driven, Item

from virtviz.engine.program import text_for
from virtviz.errors import KnobError
from virtviz.lesson.build import build
from virtviz.lesson.loader import load_text
from virtviz.paths.setup.features import RING_RESET
from virtviz.paths.setup.mmio_registers import read_entry
from virtviz.paths.setup.state import HVA_BASE
from virtviz.paths.traffic import Reset
from virtviz.spec.virtio import (
    VIRTIO_CONFIG_S_ACKNOWLEDGE,
    VIRTIO_CONFIG_S_DRIVER,
    VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FEATURES_OK,
    Feature,
)
from virtviz.spec.virtio_mmio import BASE, GSI, MAGIC, REGISTERS, VENDOR, VERSION

PING = [Item(), Item(outgoing=False, answers=0)]
BEGIN = {"transport": "mmio", "begin": "power-on"}
QEMU = {"path": "virtio-qemu"}
NAMES = {offset: name for name, offset in REGISTERS.items()}
QUEUE = [
    "QueueSel",
    "QueueReady?",
    "QueueNumMax?",
    "QueueNum",
    "QueueDescLow",
    "QueueDescHigh",
    "QueueDriverLow",
    "QueueDriverHigh",
    "QueueDeviceLow",
    "QueueDeviceHigh",
    "QueueReady",
]
MAC = ["ConfigGeneration?", *["Config?"] * 6, "ConfigGeneration?"]
ORDER = [
    *("MagicValue?", "Version?", "DeviceID?", "VendorID?"),
    *("Status", "Status?", "Status", "Status?", "Status"),
    *("DeviceFeaturesSel", "DeviceFeatures?", "DeviceFeaturesSel", "DeviceFeatures?"),
    *("DriverFeaturesSel", "DriverFeatures", "DriverFeaturesSel", "DriverFeatures"),
    *("Status?", "Status", "Status?"),
    *MAC,
    *QUEUE * 3,
    *("Status?", "Status", "Config?"),
]
"""Registers in the order in which Linux's driver touches them; a question mark for a load."""


@cache
def world(**settings):
    return Driven(PING, BEGIN | KNOWN, {name.replace("__", "."): value for name, value in settings.items()}).run()


def accesses(found):
    """Name the registers that QEMU served while the device was set up, in order; a question mark for a load."""
    seen, address, store = [], 0, 0
    for step in found.steps():
        for write in step.writes:
            if write.field == "vm1.kvm_run.address":
                address = write.new
            if write.field == "vm1.kvm_run.is_write":
                store = write.new
        if step.op == "take_lock" and step.row == "CP.0.4":
            offset = address - BASE
            name = NAMES[offset] if offset < REGISTERS["Config"] else "Config"
            seen.append(f"{name}{'' if store else '?'}")
    return seen


def written(found, cell):
    return [write.new for step in found.steps() for write in step.writes if write.field == cell]


def test_the_drivers_sequence_is_that_of_linux():
    assert accesses(world())[: len(ORDER)] == ORDER


def test_after_the_set_up_only_the_control_queue_is_kicked_by_way_of_qemu():
    assert accesses(world())[len(ORDER) :] == ["QueueNotify"] * 3


def test_with_qemus_back_end_not_even_that():
    assert accesses(world(path="virtio-qemu"))[len(ORDER) :] == []


def test_the_machines_tables_say_where_the_device_is_and_the_driver_reads_it_there():
    found = world()
    tables = next(region for region in found.machine.state.regions if region.name == "vm1.acpi_tables")
    assert bytes(tables.bytes[:8]) == b"LNRO0005"
    assert read_entry(tables) == (BASE, GSI)
    assert found.cell("vm1.probe.common") == BASE
    assert found.cell("vm1.probe.notify") == BASE + 0x50
    assert found.cell("vm1.probe.device") == BASE + 0x100


def test_no_configuration_space_is_read_and_no_table_of_messages_written():
    functions = {step.function for step in world().steps()}
    assert functions & {"pci_conf1_read", "pci_data_read", "msix_table_mmio_write", "kvm_irqfd", "vp_reset"} == set()


def test_the_first_registers_say_what_it_is():
    found = world()
    loaded = {
        step.text.split(": ")[0].removeprefix("The guest reads "): int(step.text.split()[-1].rstrip("."), 16)
        for step in found.steps()
        if step.op == "load_register"
    }
    assert {name: loaded[name] for name in ("MagicValue", "Version", "DeviceID", "VendorID", "QueueNumMax")} == {
        "MagicValue": MAGIC,
        "Version": VERSION,
        "DeviceID": 1,
        "VendorID": VENDOR,
        "QueueNumMax": 1024,
    }
    assert MAGIC.to_bytes(4, "little") == b"virt"
    assert VENDOR.to_bytes(4, "little") == b"QEMU"


def test_the_status_goes_up_bit_by_bit():
    acknowledged = VIRTIO_CONFIG_S_ACKNOWLEDGE
    driver = acknowledged | VIRTIO_CONFIG_S_DRIVER
    agreed = driver | VIRTIO_CONFIG_S_FEATURES_OK
    found = written(world(), "vm1.virtio_mmio.device_status")
    assert found == [acknowledged, driver, agreed, agreed | VIRTIO_CONFIG_S_DRIVER_OK]


def test_the_upper_half_of_the_features_comes_first_and_the_tap_hears_of_them_with_features_ok():
    found = world()
    windows = [
        (write.field.removeprefix("vm1.virtio_mmio."), write.new)
        for step in found.steps()
        for write in step.writes
        if write.field.startswith("vm1.virtio_mmio.dr")
    ]
    assert [name for name, _ in windows] == [
        "driver_feature_select",
        "driver_feature[1]",
        "driver_feature_select",
        "driver_feature[0]",
    ]
    ops = [(step.op, step.outcome) for step in found.steps()]
    last = max(n for n, op in enumerate(ops) if op == ("store_register", "features"))
    accepted = ops.index(("store_register", "accepted"))
    assert last < accepted
    assert ops[accepted + 1] == ("adjust_header", "done")
    assert ("adjust_header", "done") not in ops[last:accepted]


def test_to_reset_a_queue_alone_is_not_accepted():
    wanted, offered = (world().cell(f"vm1.probe.{name}") for name in ("wanted", "offered"))
    assert (offered >> RING_RESET & 1, wanted >> RING_RESET & 1) == (1, 0)
    on_pci = Driven(PING, KNOWN, {"begin": "power-on"}).run().cell("vm1.probe.wanted")
    assert on_pci == wanted | 1 << RING_RESET


def test_what_arrives_at_vhost_is_what_the_guest_wrote():
    found = world()
    for index, layout in enumerate((found.vm.rx_layout, found.vm.tx_layout)):
        for part in ("desc", "avail", "used"):
            wrote = getattr(layout, part)
            assert found.cell(f"vm1.virtio_mmio.{part}[{index}]") == wrote
            assert found.cell(f"qemu-4002.vhost_net.{part}[{index}]") == HVA_BASE + wrote
        assert found.cell(f"qemu-4002.vhost_net.num[{index}]") == layout.size == 1024
        kick, call = (found.cell(f"qemu-4002.process.{use}[{index}]") for use in ("kick", "call"))
        assert found.cell(f"vm1.kvm_vm.ioeventfds[{index}]") == found.cell(f"qemu-4002.vhost_net.kick[{index}]") == kick
        assert found.cell(f"qemu-4002.vhost_net.call[{index}]") == call
        # No legacy port, and no interrupt in KVM that the call's eventfd would be tied to.
        assert found.cell(f"vm1.kvm_vm.ports[{index}]") == found.cell(f"vm1.kvm_vm.irqfds[{index}]") == 0


@pytest.mark.parametrize("path", ["vhost-net", "virtio-qemu"])
@pytest.mark.parametrize(("features", "interrupts"), [("event_idx,indirect,mergeable", 1), ("indirect,mergeable", 0)])
def test_the_first_answer_of_the_control_queue_raises_the_line_if_event_indices_were_agreed_on(
    path, features, interrupts
):
    found = world(path=path, features=features)
    asked = [step.outcome for step in found.steps() if step.op == "ask_interrupt"]
    assert asked == ["interrupt"] * interrupts + ["no interrupt"] * (3 - interrupts)
    first = next(step.n for step in found.steps() if step.milestone == "sent")
    before = [step for step in found.steps() if step.n < first]
    assert sum(step.op == "load_status" for step in before) == interrupts
    # Nobody's queue has anything.
    assert {step.outcome for step in before if step.op == "vring_interrupt"} <= {"no work"}


def test_a_device_that_insists_on_a_feature_refuses_a_driver_without_it():
    found = Driven(PING, BEGIN, {"refuse_features": "on"}).run()
    assert found.cell("vm1.virtio_mmio.device_status") & VIRTIO_CONFIG_S_FEATURES_OK == 0
    assert found.cell("vm1.probe.failed") == 1
    assert found.cell("vm1.probe.offered") >> Feature.F_ACCESS_PLATFORM & 1
    assert not any(step.milestone == "sent" for step in found.steps())


@cache
def reset(**settings):
    """Ping, take the driver off and put it back, ping again."""
    return Driven([*PING, Reset(), Item(), Item(outgoing=False, answers=2)], BEGIN | KNOWN, settings).run()


@pytest.mark.parametrize("settings", [{}, QEMU, {"features": "none"}], ids=str)
def test_frames_flow_again_after_a_reset(settings):
    found = reset(**settings)
    assert found.simulation.dropped() == {}
    milestones = {(step.packet, step.milestone) for step in found.steps() if step.milestone}
    assert {(2, "received"), (3, "sent"), (3, "on-wire"), (3, "completed"), (4, "received")} <= milestones
    # The rings began anew, so one frame has gone each way.
    assert found.u16("avail_idx") == found.u16("used_idx") == found.u16("used_idx", "rx") == 1
    assert found.u16("avail_idx", "rx") == found.vm.rx_layout.size


def test_the_device_stops_before_any_memory_is_freed_and_each_queue_is_taken_out_of_use():
    steps = reset().steps()
    order = ["unbind", "clear_backend", "vhost_get_vring_base", "kvm_ioeventfd", "clear_registers", "free_buffers"]
    order += ["take_ready", "free_queue", "free_irq", "bind", "load_magic", "acknowledge", "say_driver_ok"]
    names = iter(step.op for step in steps)
    assert all(any(name == wanted for name in names) for wanted in order)
    assert [step.op for step in steps].count("take_ready") == 3
    noted = [step for step in steps if step.op == "note_base"]
    # One frame had come in and one had gone out.
    assert [write.new for step in noted for write in step.writes if "base[" in write.field] == [1, 1]


def test_a_reset_lowers_the_line_whatever_it_was_high_for():
    """KVM is told each time, and the first reset is no exception."""
    steps = reset().steps()
    resets = [n for n, step in enumerate(steps) if step.op == "clear_registers"]
    assert len(resets) == 3
    for n in resets:
        assert [step.op for step in steps[n + 1 : n + 4]] == ["compute", "tell", "take_level"]


@pytest.mark.parametrize("settings", [{}, QEMU], ids=str)
def test_a_reset_is_undone_exactly(settings):
    found = reset(**settings)
    machine, end = found.machine, found.machine.digest()
    machine.seek(0)
    machine.seek(machine.length)
    assert machine.digest() == end


@pytest.mark.parametrize("settings", [{}, QEMU], ids=str)
def test_every_text_of_a_reset_fits_into_two_lines(settings):
    found = reset(**settings)
    for step in found.steps():
        assert len(textwrap.wrap(step.text, 78)) <= 2, step.text
        assert "{" not in step.text
    for arc in found.machine.program.arcs:
        assert len(text_for(arc.op, arc.outcome)) <= 2 * 78, arc.op.path


def test_a_link_that_changes_is_refused_with_vhost_net():
    text = """
format_version: 1
id: 9-mmio
title: t
level: beginner
minutes: 1
objectives: [r]
scenario: [{send: {id: a}}, {link: {state: down}}]
script: [{id: s, when: start, say: s}]
sources: [virtio 1.4]
"""
    with pytest.raises(KnobError, match="path=virtio-qemu"):
        build(load_text(text), [{"transport": "mmio"}])
    build(load_text(text), [{"transport": "mmio", "path": "virtio-qemu"}])
