"""virtio-mmio beside virtio-pci: what a packet costs, what stands in the registers, and who comes just in time."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from driving import IN, KNOWN, OUT, Driven, Item, Pause, burst

from virtviz.engine.effects import EffectKind
from virtviz.engine.program import text_for
from virtviz.paths.traffic import Link, Poke
from virtviz.spec.virtio_mmio import ADDRESSES, BASE, GSI, REGISTERS

MMIO = KNOWN | {"transport": "mmio"}
QEMU = {"path": "virtio-qemu"}
HEAVY = QEMU | {"ioeventfd": "off"}
AMD = {"cpu": "amd", "apicv": "off"}
NO_APICV = {"apicv": "off"}
PING = [Item(), Item(outgoing=False, answers=0)]
BOTH = pytest.mark.parametrize("path", [{}, QEMU], ids=["vhost-net", "virtio-qemu"])
VRING, CONFIG = 1, 2
LINE, PIN, SERVICE = "vm1.ioapic.line.level", "vm1.ioapic.pin.level", "vm1.ioapic.pin.in_service"
STATUS = "vm1.device.isr"


def costs(items, *settings):
    return {name: n for name, n in Driven(items, *settings).run().counters().items() if n}


def more(items, path, *settings):
    """Give what virtio-mmio costs beyond PCI."""
    on_pci, on_mmio = (costs(items, KNOWN | {"transport": name} | path, *settings) for name in ("pci", "mmio"))
    names = {**on_pci, **on_mmio}
    found = {name: on_mmio.get(name, 0) - on_pci.get(name, 0) for name in names}
    return {name: n for name, n in found.items() if n}


def functions(world):
    return [step.function for step in world.steps()]


# What it costs


@pytest.mark.parametrize("item", [OUT, IN], ids=["out", "in"])
def test_with_vhost_net_an_interrupt_costs_two_heavy_exits_and_qemus_main_loop(item):
    assert more([item], {}) == {
        # InterruptStatus and InterruptACK.
        "heavy_exits": 2,
        # The end of the interrupt, of which the IOAPIC has to hear.
        "light_exits": 1,
        "guest_host": 2 * 3,
        # QEMU's main loop.
        "wakeups": 1,
        # It waits, reads the call eventfd and raises the line; the vCPU's thread lowers it again.
        "host_syscalls": 4,
        "user_kernel.host": 2 * (4 + 2),
    }


@pytest.mark.parametrize("item", [OUT, IN], ids=["out", "in"])
def test_with_qemus_own_back_end_it_costs_the_exits_and_a_second_move_of_the_line(item):
    assert more([item], QEMU) == {
        "heavy_exits": 2,
        "light_exits": 1,
        "guest_host": 2 * 3,
        # KVM_IRQ_LINE twice, where KVM_SIGNAL_MSI was one.
        "host_syscalls": 1,
        "user_kernel.host": 2 * (1 + 2),
    }


def test_a_kick_costs_the_same_number_of_exits_but_is_decoded_on_intel_too():
    assert more([OUT], HEAVY)["heavy_exits"] == more([OUT], QEMU)["heavy_exits"]
    on_pci, on_mmio = (Driven([OUT], KNOWN | {"transport": name}) for name in ("pci", "mmio"))
    for world in (on_pci, on_mmio):
        world.step_until("vm_entry")
    assert "x86_emulate_instruction" not in functions(on_pci)
    assert functions(on_mmio).count("x86_emulate_instruction") == 1
    assert "kvm_skip_emulated_instruction" not in functions(on_mmio)


def test_without_apicv_the_trigger_mode_and_the_end_of_the_interrupt_leave_the_guest():
    with_apicv, without = costs([OUT], MMIO), costs([OUT], MMIO, NO_APICV)
    # The kick and the end; and the IPI that forces the vCPU out, and the register of the APIC.
    assert (with_apicv["light_exits"], without["light_exits"]) == (2, 4)
    assert with_apicv["heavy_exits"] == without["heavy_exits"] == 2


def test_a_burst_shares_an_interrupt_as_it_does_on_pci():
    on_pci, on_mmio = (costs(burst(40), KNOWN | {"transport": name}) for name in ("pci", "mmio"))
    assert on_pci["interrupts"] == on_mmio["interrupts"]
    assert on_mmio["heavy_exits"] == 2 * on_mmio["interrupts"]


def test_packed_rings_cost_the_same():
    packed = QEMU | {"queue.format": "packed"}
    assert more([OUT], packed) == more([OUT], QEMU)
    world = Driven(PING, MMIO, packed).run()
    assert [step.milestone for step in world.steps()].count("received") == 1
    assert "kvm_send_userspace_msi" not in functions(world)


@BOTH
@pytest.mark.parametrize("cpu", [{}, NO_APICV, AMD, {"vcpu": "halted"}, {"guest_if": "off"}, {"vms": 2}], ids=str)
def test_a_ping_is_answered(path, cpu):
    world = Driven(PING, MMIO, path, cpu).run()
    milestones = [step.milestone for step in world.steps()]
    assert (milestones.count("on-wire"), milestones.count("received")) == (1, 1)
    assert (world.cell(STATUS), world.cell(LINE), world.cell(PIN), world.cell(SERVICE)) == (0, 0, 0, 0)


def test_across_two_machines_each_has_a_line_of_its_own():
    world = Driven([Item(to_vm=1)], MMIO, {"vms": 2}).run()
    assert [step.milestone for step in world.steps()].count("received") == 1
    assert world.counters()["heavy_exits"] == 4


# The kick


@pytest.mark.parametrize(("path", "outcome"), [({}, "find"), (QEMU, "find"), (HEAVY, "find_queue")], ids=str)
def test_both_queues_are_kicked_at_one_address_and_told_apart_by_the_value(path, outcome):
    # A back-end that has run out of buffers asks to be kicked for new ones.
    world = Driven([OUT, *burst(100, outgoing=False)], MMIO, path, {"queue.size": 64}).run(without=["vcpu0"]).run()
    assert {name for op, name in world.ops() if op == outcome} == {"receiveq1", "transmitq1"}
    kicks = [step.text for step in world.steps() if step.row == "KICK.1"]
    assert kicks
    assert all(f"{ADDRESSES['QueueNotify']:#x}" in text for text in kicks)


@pytest.mark.parametrize("path", [{}, QEMU, HEAVY], ids=str)
def test_the_value_stored_is_the_queues_number(path):
    world = Driven([OUT], MMIO, path).step_until("kick")
    assert world.cell("vm1.vcpu0.access.value") == 1


def test_without_ioeventfd_qemus_vcpu_thread_finds_the_queue():
    world = Driven([OUT], MMIO, HEAVY).step_until("find_queue")
    assert world.ops()[-1] == ("find_queue", "transmitq1")
    assert world.cell("qemu-4002.lock") == world.thread("vcpu0") + 1
    assert world.run().counters()["heavy_exits"] == 3


# The registers


def test_registers_are_where_the_specification_has_them():
    assert {name: REGISTERS[name] for name in ("QueueNotify", "InterruptStatus", "InterruptACK", "Config")} == {
        "QueueNotify": 0x50,
        "InterruptStatus": 0x60,
        "InterruptACK": 0x64,
        "Config": 0x100,
    }
    # Eight transports of 512 bytes each from 0xfeb00000, with lines 16 to 23; the first device gets the last one.
    assert (BASE, GSI) == (0xFEB00E00, 23)


@BOTH
def test_the_handler_loads_the_status_and_stores_the_same_bits_to_ack(path):
    world = Driven([OUT], MMIO, path).step_until("take_vector")
    assert (world.cell(STATUS), world.cell(LINE), world.cell(SERVICE)) == (VRING, 1, 1)
    world.move("vcpu0", "store_ack")
    # Loading it has changed nothing.
    assert (world.cell("vm1.virtio_mmio.interrupt.status"), world.cell(STATUS), world.cell(PIN)) == (VRING, VRING, 1)
    world.move("vcpu0", "clear")
    assert (world.cell(STATUS), world.cell(PIN)) == (0, 1)
    world.move("vcpu0", "set_pin")
    assert (world.cell(LINE), world.cell(PIN), world.cell(SERVICE)) == (0, 0, 1)
    world.move("vcpu0", "update_pin")
    assert world.ops()[-1] == ("update_pin", "low")
    assert world.cell(SERVICE) == 0


def test_every_queue_is_looked_at_for_one_interrupt_the_one_set_up_last_first():
    world = Driven([OUT], MMIO).run()
    looked = [(step.queue, step.outcome) for step in world.steps() if step.op == "vring_interrupt"]
    assert looked == [("vm1.transmitq1", "work"), ("vm1.receiveq1", "no work")]


# Just in time


@BOTH
def test_an_interrupt_between_status_and_ack_is_not_lost(path):
    """The bit is set already, and the ACK takes it back; but the handler looks at the queues only after that."""
    world = Driven([OUT, IN], MMIO, path).step_until("read", without=["eth0"])
    while world.last.path != "vm1.virtio_mmio.status/read":
        world.step_until("read", without=["eth0"])
    # The frame comes in, the back-end delivers it, and QEMU wants to interrupt, but finds the bit set.
    world.move("vcpu0", "vm_entry").run(without=["vcpu0"])
    assert ("set_status", "set already") in world.ops()
    assert ("compute", "stays high") in world.ops()
    assert ("set_pin", "in service") in world.ops()
    world.run()
    looked = [(step.queue, step.outcome) for step in world.steps() if step.op == "vring_interrupt"]
    assert looked == [("vm1.transmitq1", "work"), ("vm1.receiveq1", "work")]
    assert [step.milestone for step in world.steps()].count("received") == 1
    assert world.counters()["heavy_exits"] == 2


@BOTH
def test_after_the_ack_the_line_rises_again_and_the_end_of_the_interrupt_delivers_it(path):
    world = Driven([OUT, IN], MMIO, path).step_until("store_ack", without=["eth0"])
    # Both queues have been looked at; then the frame comes in.
    world.move("vcpu0", "read_trigger_mode").run(without=["vcpu0"])
    assert world.cell(STATUS) == VRING
    assert (world.cell(PIN), world.cell(SERVICE)) == (1, 1)
    world.run()
    assert ("update_pin", "again") in world.ops()
    assert [step.milestone for step in world.steps()].count("received") == 1
    assert world.counters()["heavy_exits"] == 4


def test_a_bit_that_is_set_between_status_and_ack_stays_and_keeps_the_line_high():
    """The handler acknowledges only what it has loaded: a changed configuration is another bit."""
    items = [OUT, Link(up=False)]
    world = Driven(items, MMIO, QEMU).step_until("store_ack", without=["outside"])
    world.run(without=["vcpu0"])
    assert world.cell(STATUS) == VRING | CONFIG
    world.move("vcpu0", "compute")
    assert world.ops()[-1] == ("compute", "stays high")
    assert (world.cell(STATUS), world.cell(LINE)) == (CONFIG, 1)
    world.run()
    assert ("update_pin", "again") in world.ops()
    assert ("look_at_config", "changed") in world.ops()
    assert ("decide", "down") in world.ops()


def test_the_vcpus_thread_waits_while_the_main_loop_has_the_lock():
    world = Driven([OUT, IN], MMIO).step_until("take_vector", without=["eth0"]).move("vcpu0", "return_to_qemu")
    # A frame comes in meanwhile, and the main loop takes the lock first, to interrupt for it.
    world.step_until("take_lock", without=["vcpu0"])
    assert world.cell("qemu-4002.lock") == world.thread("qemu") + 1
    before = world.machine.position
    world.move("vcpu0")
    assert world.machine.position == before
    world.run()
    assert [step.milestone for step in world.steps()].count("received") == 1


# The configuration


@pytest.mark.parametrize("settings", [QEMU, HEAVY], ids=str)
def test_a_device_that_wants_a_reset_says_so_by_the_same_line(settings):
    world = Driven([OUT, Poke("transmitq1", "avail.ring[0]", 999)], MMIO, settings).run()
    assert ("signal_change", "done") in world.ops()
    assert ("look_at_config", "changed") in world.ops()
    assert ("decide", "unchanged") in world.ops()
    assert world.simulation.dropped() == {"qemu-4002.errors": 1}


def test_a_link_that_changes_is_heard_of_with_qemus_back_end():
    items = [OUT, Link(up=False), Pause(), OUT, Link(up=True), Pause(), OUT]
    on_pci, on_mmio = (Driven(items, KNOWN | QEMU | {"transport": name}).run() for name in ("pci", "mmio"))
    assert on_pci.simulation.dropped() == on_mmio.simulation.dropped()
    at = [step.text for step in on_mmio.steps() if step.op == "exit_ept_misconfig" and step.row == "CONFIG.8"]
    assert at
    assert all(f"{ADDRESSES['Config'] + 6:#x}" in text for text in at)


# What is said


@pytest.mark.parametrize("settings", [{}, QEMU, HEAVY, AMD, QEMU | AMD], ids=str)
def test_nothing_is_said_that_is_true_on_pci_only(settings):
    world = Driven(PING, MMIO, settings).run()
    said = {step.function for step in world.steps()}
    assert said & {"vp_notify", "kvm_send_userspace_msi", "irqfd_wakeup", "virtio_pci_notify_write"} == set()
    for step in world.steps():
        assert "QEMU sleeps on" not in step.text
        assert "has a vector" not in step.text
        assert not step.row.startswith("E1000")


def test_every_row_of_the_block_happens():
    world = Driven(PING, MMIO).run()
    rows = {step.row for step in world.steps() if step.row.startswith("MMIO")}
    assert rows == {f"MMIO.{n}" for n in range(1, 9)}
    in_qemu = {step.row for step in Driven(PING, MMIO, QEMU).run().steps() if step.row.startswith("MMIO")}
    assert in_qemu == {f"MMIO.{n}" for n in range(3, 9)}


def test_each_interrupt_of_either_transport_is_one():
    for name in ("pci", "mmio"):
        world = Driven(PING, KNOWN, {"transport": name}).run()
        effects = [effect.kind for step in world.steps() for effect in step.effects]
        assert effects.count(EffectKind.IRQ_INJECT) == 2


@pytest.mark.parametrize("settings", [{}, QEMU, HEAVY, AMD, {"guest_if": "off"}], ids=str)
def test_every_text_fits_into_two_lines_of_a_small_screen(settings):
    world = Driven(PING, MMIO, settings).run()
    for step in world.steps():
        assert len(textwrap.wrap(step.text, 78)) <= 2, step.text
    for arc in world.machine.program.arcs:
        assert len(text_for(arc.op, arc.outcome)) <= 2 * 78, arc.op.path


# What the documentation says

COUNTED = ("heavy_exits", "light_exits", "wakeups", "host_syscalls", "interrupts")
PATHS = {"vhost-net": {}, "virtio-qemu": QEMU, "virtio-qemu, ioeventfd=off": HEAVY}


def table_of_costs():
    text = (Path(__file__).parents[2] / "docs" / "transports.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]
    return [row for row in rows if row[0] in PATHS and row[1] in ("out", "in")]


def test_the_documentation_has_the_costs_of_every_path_both_ways():
    assert [(row[0], row[1]) for row in table_of_costs()] == [(path, way) for path in PATHS for way in ("out", "in")]


@pytest.mark.parametrize("row", table_of_costs(), ids=lambda row: " ".join(row[:2]))
def test_the_documentations_costs_are_the_machines(row):
    items = [OUT if row[1] == "out" else IN]
    found = [Driven(items, KNOWN | {"transport": name} | PATHS[row[0]]).run().counters() for name in ("pci", "mmio")]
    assert row[2:] == [", ".join(str(counters[name]) for counters in found) for name in COUNTED]
