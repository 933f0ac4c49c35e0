"""A set-up from power-on: what one party tells another arrives, whoever cannot is done without, and frames flow."""

from __future__ import annotations

import textwrap
from functools import cache
from pathlib import Path

import pytest
from driving import KNOWN, OUT, Driven, Item, Pause

from virtviz.engine.program import text_for
from virtviz.errors import KnobError
from virtviz.lesson.build import build
from virtviz.lesson.loader import load_text
from virtviz.paths.knobs import make_world
from virtviz.paths.setup.features import GUEST_NEEDS
from virtviz.paths.setup.kvm_calls import message_of
from virtviz.paths.setup.state import HVA_BASE
from virtviz.paths.traffic import Reset
from virtviz.spec.virtio import Feature

PING = [Item(), Item(outgoing=False, answers=0)]
BEGIN = {"begin": "power-on"}
WORLDS = {
    "vhost": {},
    "recorded": {"profile": "recorded"},
    "QEMU": {"path": "virtio-qemu"},
    "no vhost-net": {"vhost_start": "missing"},
    "vhost fails": {"vhost_start": "fails"},
    "vhost fails in an older QEMU": {"vhost_start": "fails", "qemu_version": "7.2"},
    "halted": {"vcpu": "halted", "switch": "bridge"},
    "vhost-user": {"path": "vhost-user"},
    "two pairs": {"queues": 2},
    "two pairs, halted": {"queues": 2, "vcpu": "halted", "cpu": "amd", "apicv": "off", "switch": "bridge"},
    "four pairs": {"queues": 4},
    "three pairs by hand": {"queues": 3, "launcher": "hand", "qemu_version": "7.2"},
    "four pairs in QEMU": {"queues": 4, "path": "virtio-qemu"},
    "vhost-user, two pairs": {"path": "vhost-user", "queues": 2},
    "vhost-user, packed": {"path": "vhost-user", "queue.format": "packed"},
    "vhost-user, three packed pairs": {"path": "vhost-user", "queue.format": "packed", "queues": 3, "queue.size": 100},
    "QEMU, packed": {"path": "virtio-qemu", "queue.format": "packed"},
    "QEMU, two packed pairs": {"path": "virtio-qemu", "queue.format": "packed", "queues": 2, "queue.size": 60},
    "two pairs, no vhost-net": {"queues": 2, "vhost_start": "missing"},
    "two pairs, vhost fails": {"queues": 2, "vhost_start": "fails"},
    "two pairs, vhost fails in an older QEMU": {"queues": 2, "vhost_start": "fails", "qemu_version": "7.2"},
    "virtio-mmio": {"transport": "mmio"},
    "virtio-mmio, QEMU": {"transport": "mmio", "path": "virtio-qemu", "queue.size": 256},
}


@cache
def world(name, **more):
    return Driven(PING, BEGIN, WORLDS[name], more).run()


@pytest.mark.parametrize("name", WORLDS)
def test_a_ping_is_answered_after_the_set_up(name):
    found = world(name)
    assert found.simulation.dropped() == {}
    milestones = {(step.packet, step.milestone) for step in found.steps() if step.milestone}
    assert {(1, "sent"), (1, "on-wire"), (2, "from-wire"), (2, "received")} <= milestones


@pytest.mark.parametrize("name", WORLDS)
def test_the_ways_of_the_packets_are_those_of_a_run_that_begins_later(name):
    served = "virtio-qemu" if WORLDS[name].get("vhost_start") else WORLDS[name].get("path", "vhost-net")
    settings = {k: v for k, v in WORLDS[name].items() if k != "vhost_start"} | {"path": served, "queue.start": 0}
    later = Driven(PING, settings).run()
    for packet in (1, 2):
        ways = [
            [(step.thread, step.milestone) for step in run.steps() if step.packet == packet and step.milestone]
            for run in (world(name), later)
        ]
        assert ways[0] == ways[1]


@pytest.mark.parametrize(
    ("name", "vectors"),
    [
        ("vhost", [0x27, 0x28]),
        ("two pairs", [0x24, 0x24, 0x25, 0x25]),
        ("three pairs by hand", [0x23, 0x24, 0x24, 0x24, 0x25, 0x25]),
    ],
)
def test_what_arrives_at_vhost_is_what_the_guest_wrote(name, vectors):
    found = world(name)
    layouts = [layout for pair in found.vm.pairs for layout in (pair.rx_layout, pair.tx_layout)]
    for queue, (layout, vector) in enumerate(zip(layouts, vectors, strict=True)):
        # There is a vhost device for each pair, which numbers its rings 0 and 1.
        pair, ring = divmod(queue, 2)
        more = f".q{pair + 1}" if pair else ""
        vhost = {
            part: found.cell(f"qemu-4002.vhost_net{more}.{part}[{ring}]")
            for part in ("desc", "avail", "used", "num", "kick", "call", "backend")
        }
        for part in ("desc", "avail", "used"):
            wrote = getattr(layout, part)
            assert found.cell(f"vm1.virtio_pci.{part}[{queue}]") == wrote
            assert vhost[part] == HVA_BASE + wrote
        assert vhost["num"] == layout.size
        kick, call = (found.cell(f"qemu-4002.process.{use}[{queue}]") for use in ("kick", "call"))
        assert found.cell(f"vm1.kvm_vm.ioeventfds[{queue}]") == found.cell(f"vm1.kvm_vm.ports[{queue}]") == kick
        assert found.cell(f"vm1.kvm_vm.irqfds[{queue}]") == vhost["call"] == call
        assert vhost["kick"] == kick
        assert vhost["backend"] == found.cell(f"qemu-4002.process{more}.tap_fd")
        # The vector that the guest put into the table is the one that the route stands for.
        assert found.cell(f"vm1.kvm_vm.routed[{queue}]") == vector


def test_the_walk_of_the_capabilities_finds_what_they_say():
    found = world("vhost")
    addresses = [found.cell(f"vm1.probe.{name}") for name in ("common", "isr", "device", "notify")]
    assert addresses == [0xFEBFC000, 0xFEBFD000, 0xFEBFE000, 0xFEBFF000]
    assert found.cell("vm1.probe.multiplier") == 4
    assert found.cell("vm1.probe.mac") == int.from_bytes(found.simulation.traffic.frame(1)[6:12], "big")


@pytest.mark.parametrize("features", ["event_idx,indirect,mergeable", "event_idx", "mergeable", "none"])
def test_the_rings_work_with_what_was_negotiated(features):
    found = Driven(PING, BEGIN, KNOWN, {"features": features}).run()
    assert found.simulation.dropped() == {}
    accepted = found.cell("vm1.probe.wanted")
    for word, bit in (
        ("event_idx", Feature.RING_F_EVENT_IDX),
        ("indirect", Feature.RING_F_INDIRECT_DESC),
        ("mergeable", Feature.NET_F_MRG_RXBUF),
    ):
        assert accepted >> bit & 1 == (word in features)
        assert found.cell("qemu-4002.vhost_net.features") >> bit & 1 == (word in features)


def test_a_guest_sees_the_choice_of_a_back_end_as_missing_bits_only():
    old = {"host_kernel": "6.1"}
    vhost, qemu = (world(name, **old).cell("vm1.probe.offered") for name in ("vhost", "QEMU"))
    assert vhost & ~qemu == 0
    assert qemu & ~vhost == 1 << 40


def test_nothing_is_accepted_that_was_not_offered_or_whose_condition_is_not_met():
    for name in WORLDS:
        offered, wanted = (world(name).cell(f"vm1.probe.{what}") for what in ("offered", "wanted"))
        assert wanted & ~offered == 0
        for feature, condition in GUEST_NEEDS.items():
            assert not wanted >> feature & 1 or wanted >> condition & 1


def test_a_device_that_insists_on_a_feature_refuses_a_driver_without_it():
    found = Driven(PING, BEGIN, {"refuse_features": "on"}).run()
    names = found.ops()
    assert ("store_register", "refused") in names
    assert ("look_at_answer", "refused") in names
    assert found.cell("vm1.virtio_pci.device_status") == 128 | 3
    assert found.cell("qemu-4002.process.started") == 0
    assert not any(step.milestone for step in found.steps())


def test_a_port_is_added_by_way_of_the_database():
    steps = [step for step in world("vhost").steps() if step.row.startswith(("CP.8", "CP.9"))]
    order = ["make_tap", "ask", "commit", "add_port", "link_netdev", "note", "commit", "look", "start_qemu"]
    names = iter(step.op for step in steps)
    assert all(any(name == wanted for name in names) for wanted in order)
    threads = {step.thread for step in steps if step.op in ("make_tap", "ask", "commit", "add_port")}
    assert threads == {"libvirtd", "ovs-vsctl", "ovsdb-server", "ovs-vswitchd"}


def test_a_person_needs_no_libvirt():
    found = Driven(PING, BEGIN, KNOWN, {"launcher": "hand"}).run()
    assert found.simulation.dropped() == {}
    assert not [step for step in found.steps() if step.thread == "libvirtd"]


@pytest.mark.parametrize("name", ["no vhost-net", "vhost fails"])
def test_a_guest_does_not_notice_that_vhost_could_not_be_started(name):
    def inside(run):
        return [step.op for step in run.steps() if step.domain.startswith("guest") and step.row.startswith("CP.")]

    assert inside(world(name)) == inside(world("vhost"))
    assert world(name).cell("qemu-4002.process.failed") == 1
    assert world("vhost").cell("qemu-4002.process.failed") == 0


def test_every_register_is_reached_by_a_heavy_exit():
    found = world("vhost")
    begun = next(step.n for step in found.steps() if step.op == "open")
    before = [step for step in found.steps() if step.n < begun]
    accesses = [
        step for step in before if step.row.startswith("CP.0.5") or step.op in ("store_register", "access_config")
    ]
    returns = [c for step in before for c in step.crossings if c.kind == "kvm-run-return"]
    assert len(accesses) == len(returns) > 100


def test_nothing_arrives_before_the_guest_is_there():
    found = Driven([Item(outgoing=False), Pause(), OUT], BEGIN, KNOWN).run()
    steps = found.steps()
    up = next(step.n for step in steps if step.op == "up")
    assert min(step.n for step in steps if step.milestone == "from-wire") > up
    assert found.simulation.dropped() == {}


@pytest.mark.parametrize("name", WORLDS)
def test_going_back_to_power_on_restores_everything(name):
    found = Driven(PING, BEGIN, WORLDS[name])
    machine = found.machine
    before = machine.digest()
    found.run()
    end, position = machine.digest(), machine.position
    machine.seek(0)
    assert machine.digest() == before
    machine.seek(position)
    assert machine.digest() == end


@pytest.mark.parametrize("name", WORLDS)
def test_a_machine_that_only_counts_counts_the_same(name):
    counting = Driven(PING, BEGIN, WORLDS[name], recording=False).run()
    assert counting.counters() == world(name).counters()


@pytest.mark.parametrize("name", WORLDS)
def test_every_step_of_a_set_up_is_cited_and_says_something(name):
    for step in world(name).steps():
        assert step.function
        assert step.source.count(" ") >= 1
        assert step.text[-1] in ".?"
        assert "{" not in step.text
        # How a polling thread works is told at greater length, wherever the run began.
        lines = 4 if "vhost-user" in name and not step.row.startswith("CP.") else 2
        assert len(textwrap.wrap(step.text, 78)) <= lines, step.text


def test_commands_of_the_control_queue_are_carried_out_by_the_main_loop_where_it_has_all_queues():
    steps = world("QEMU").steps()
    assert [step.thread for step in steps if step.op == "carry_out"] == ["qemu-4002"] * 3
    # What the main loop finds of its own kick is an empty queue.
    assert [step.op for step in steps].count("await_answer") == 3


@pytest.mark.parametrize("which", ["vhost-user, three packed pairs", "QEMU, two packed pairs"])
def test_the_receive_queues_of_all_pairs_are_filled_as_packed_rings(which):
    filled = {step.queue: step.function for step in world(which).steps() if step.row == "G-RX.6" and step.queue}
    assert len(filled) == world(which).simulation.world.number("queues")
    for step in world(which).steps():
        assert not step.function.endswith("_split"), step
        assert "avail.idx" not in step.text, step


def test_a_packed_ring_begins_at_slots_with_wrap_counters():
    said = {step.text for step in world("vhost-user, packed").steps() if step.text.startswith("SET_VRING_BASE: ")}
    assert said == {
        f"SET_VRING_BASE: the {queue} ring begins at 0x80008000: to take slot 0, wrap counter 1; to return slot 0, "
        "wrap counter 1."
        for queue in ("receive", "transmit")
    }


def test_nothing_is_said_of_a_tap_where_there_is_none():
    texts = {step.text for step in world("vhost-user, two pairs").steps() if step.op == "carry_out"}
    assert texts
    assert not [text for text in texts if "TAP" in text]


def test_what_is_said_of_a_register_is_about_that_register():
    said = {step.text for step in world("two pairs").steps() if step.op == "store_register"}
    (vector,) = {text for text in said if text.startswith("config_msix_vector")}
    assert "a change of the configuration" in vector
    assert {text.split()[0] for text in said if "registers behind it" in text} == {
        "device_feature_select",
        "driver_feature_select",
        "queue_select",
    }


def test_commands_of_the_control_queue_go_to_qemu_and_are_answered():
    steps = world("vhost").steps()
    kicks = [n for n, step in enumerate(steps) if step.op == "kick" and step.row == "CP.4.3"]
    assert len(kicks) == 3
    for n in kicks:
        following = [step.op for step in steps[n : n + 20]]
        assert following.index("return_to_qemu") < following.index("carry_out") < following.index("await_answer")
    note = next(step for step in steps[kicks[0] :] if step.op == "note_access")
    assert {write.field.rpartition(".")[2]: write.new for write in note.writes}["address"] == 0xFEBFF008
    assert [step.op for step in steps].count("carry_out") == 3
    assert world("vhost").cell("qemu-4002.net0.filter.promisc") == 0
    assert ("read_answer", "refused") not in world("vhost").ops()


def before(found, op):
    """Give the steps before the first of an op, and those from it on."""
    steps = found.steps()
    at = next(n for n, step in enumerate(steps) if step.op == op)
    return steps[:at], steps[at:]


PAIRS = [name for name in WORLDS if "queues" in WORLDS[name]]
PAIRS_OF_A_TAP = [name for name in PAIRS if "vhost-user" not in name]


@pytest.mark.parametrize("name", PAIRS_OF_A_TAP)
def test_every_pair_has_a_file_of_the_tap_a_vhost_device_a_worker_and_a_vcpu(name):
    found, pairs = world(name), int(WORLDS[name]["queues"])
    files = ["qemu-4002.process", *(f"qemu-4002.process.q{pair + 1}" for pair in range(1, pairs))]
    for use in ("tap_fd", "vcpu_fd") + (("vhost_fd",) if found.cell("qemu-4002.process.vhost_fd") else ()):
        assert len({found.cell(f"{file}.{use}") for file in files}) == pairs
    steps = found.steps()
    flags = [w.new for s in steps if s.op in ("make_tap", "ask_for_tap") for w in s.writes if w.field.endswith("value")]
    assert all(flag & 0x0100 for flag in flags), "IFF_MULTI_QUEUE"
    for op in ("tun_set_iff", "kvm_create_vcpu"):
        assert [step.op for step in steps].count(op) == pairs
    begun = [step.thread for step in steps if step.op == "begin" and step.row == "CP.6.2"]
    assert begun == [f"vhost-4002.q{pair + 1}" for pair in range(pairs)] or not found.cell("qemu-4002.process.vhost_fd")


@pytest.mark.parametrize("name", PAIRS)
def test_a_device_begins_with_one_pair_and_the_driver_asks_for_the_others(name):
    found, pairs = world(name), int(WORLDS[name]["queues"])
    early, late = before(found, "say_driver_ok")
    if name in PAIRS_OF_A_TAP:
        assert [step.outcome for step in early if step.op == "tun_set_queue"] == ["off"] * (pairs - 1)
        assert [step.outcome for step in late if step.op == "tun_set_queue"] == ["on"] * (pairs - 1)
    assert found.cell("vm1.cpus.pairs") == found.cell("vm1.cpus.online") == pairs
    assert found.cell("qemu-4002.net0.pairs") == pairs
    assert ("read_answer", "refused") not in found.ops()


def test_the_command_to_use_several_pairs_is_a_heavy_exit_and_starts_no_vhost_anew():
    steps = world("two pairs").steps()
    at = next(n for n, step in enumerate(steps) if step.op == "kick" and step.row == "CP.4.3")
    following = [step.op for step in steps[at : at + 26]]
    wanted = ["return_to_qemu", "carry_out", "tun_set_ebpf", "tun_set_queue", "release_lock", "await_answer"]
    places = [following.index(op) for op in wanted]
    assert places == sorted(places)
    note = next(step for step in steps[at:] if step.op == "note_access")
    # Queue 4, behind those of both pairs.
    assert {write.field.rpartition(".")[2]: write.new for write in note.writes}["address"] == 0xFEBFF010
    assert not [step.op for step in steps[at:] if step.op.startswith("vhost_")]
    assert {step.thread for step in steps if step.op == "tun_set_ebpf"} == {"vm1.vcpu0"}


def test_all_vhost_devices_are_started_inside_the_one_store_of_driver_ok():
    early, late = before(world("four pairs"), "say_driver_ok")
    inside = [step.op for step in late[: next(n for n, step in enumerate(late) if step.op == "how_many_pairs")]]
    assert inside.count("vhost_net_set_backend") == 8
    assert inside.count("vhost_set_mem_table") == 4
    assert inside.index("kvm_ioeventfd_port") < inside.index("kvm_irqfd") < inside.index("vhost_set_features")
    assert "vhost_net_set_backend" not in [step.op for step in early]


@pytest.mark.parametrize("name", PAIRS)
def test_a_further_cpu_runs_nothing_before_the_first_one_has_started_it(name):
    steps = world(name).steps()
    for vcpu in range(1, int(WORLDS[name]["queues"])):
        sent = [s.n for s in steps if s.op == "accept" and f"vcpu{vcpu}" in s.text]
        mine = [s for s in steps if s.thread == f"vm1.vcpu{vcpu}"]
        first = next(s.n for s in mine if s.domain.startswith("guest"))
        assert len(sent) == 2
        assert sent[1] < next(s.n for s in mine if s.op == "take_startup") < first
        # Nor does its program before the interface is up.
        assert next(s.n for s in steps if s.op == "up") < next(s.n for s in mine if s.op == "start_program")


@pytest.mark.parametrize("settings", [{}, {"path": "virtio-qemu"}, {"store_buffer": "on"}])
def test_a_ping_on_the_second_vcpu_leaves_the_rings_as_in_a_run_that_begins_later(settings):
    ping = [Item(vcpu=1), Item(outgoing=False, answers=0, vcpu=1)]
    early, later = (Driven(ping, more, {"queues": 2}, settings).run() for more in (BEGIN, {}))
    for one, other in zip(early.vm.pairs, later.vm.pairs, strict=True):
        for side in ("rx_layout", "tx_layout"):
            layout = getattr(one, side)
            assert layout == getattr(other, side)
            rings = [bytes(run.vm.memory.bytes[layout.desc : layout.end]) for run in (early, later)]
            assert rings[0] == rings[1]
        for ring in ("rx_driver", "tx_driver", "rx_device", "tx_device"):
            mine, theirs = getattr(one, ring).cells, getattr(other, ring).cells
            for field in ("last_avail_idx", "last_used_idx", "avail_idx_shadow", "num_free"):
                assert getattr(mine, field, 0) == getattr(theirs, field, 0)
    for at in range(4096):
        assert early.cell(f"tap0.flows.queues[{at}]") == later.cell(f"tap0.flows.queues[{at}]")
    assert early.cell("tap0.file.q2.detached") == 0


@pytest.mark.parametrize("name", ["vhost", "recorded", "QEMU", "three pairs by hand"])
def test_a_step_that_goes_on_to_the_next_queue_speaks_of_the_one_that_it_was_about(name):
    for step in world(name).steps():
        for write in step.writes if step.op in ("make_kick_fd", "make_call_fd") else ():
            if ".kick[" in write.field or ".call[" in write.field:
                queue = int(write.field.partition("[")[2].rstrip("]"))
                kind = ("receive", "transmit")[queue % 2]
                assert f"{kind} queue" in step.text or "control queue" in step.text


def test_of_the_cpus_the_one_with_most_free_vectors_is_interrupted():
    assert [message_of(entry, 1) for entry in range(3)] == [(0, 0x26), (0, 0x27), (0, 0x28)]
    # As recorded: the configuration's on CPU 1, the queues' in turn.
    assert [message_of(entry, 2) for entry in range(5)] == [(1, 0x23), (0, 0x24), (1, 0x24), (0, 0x25), (1, 0x25)]
    assert [message_of(entry, 4)[0] for entry in range(8)] == [1, 2, 3, 0, 1, 2, 3, 0]


@cache
def reset(**settings):
    """Ping, take the driver off and put it back, ping again."""
    return Driven([*PING, Reset(), Item(), Item(outgoing=False, answers=2)], BEGIN, settings).run()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"path": "virtio-qemu"},
        {"profile": "recorded"},
        {"features": "none"},
        {"vhost_start": "fails"},
        {"queues": 2},
        {"queues": 2, "vhost_start": "fails", "qemu_version": "7.2"},
        {"queues": 3, "path": "virtio-qemu", "store_buffer": "on"},
    ],
)
def test_frames_flow_again_after_a_reset(settings):
    found = reset(**settings)
    assert found.simulation.dropped() == {}
    milestones = {(step.packet, step.milestone) for step in found.steps() if step.milestone}
    assert {(2, "received"), (3, "sent"), (3, "on-wire"), (3, "completed"), (4, "received")} <= milestones
    # The rings began anew, so one frame has gone each way.
    assert found.u16("avail_idx") == found.u16("used_idx") == found.u16("used_idx", "rx") == 1
    assert found.u16("avail_idx", "rx") == found.vm.rx_layout.size


@pytest.mark.parametrize("path", ["virtio-qemu", "vhost-user"])
@pytest.mark.parametrize("queues", [1, 2])
def test_frames_flow_again_over_packed_rings_after_a_reset(path, queues):
    found = reset(**{"path": path, "queues": queues, "queue.format": "packed", "queue.size": 100})
    assert found.simulation.dropped() == {}
    milestones = {(step.packet, step.milestone) for step in found.steps() if step.milestone}
    assert {(2, "received"), (3, "sent"), (3, "on-wire"), (3, "completed"), (4, "received")} <= milestones
    # The rings began anew, so one frame has gone out.
    driver, device = found.vm.tx_driver.cells, found.vm.tx_device.cells
    assert driver.next_avail == driver.last_used == device.next_avail == device.next_used == 1
    assert (driver.avail_wrap, device.used_wrap) == (1, 1)


def test_how_far_packed_rings_came_is_two_places_each_with_its_wrap_counter():
    found = reset(**{"path": "vhost-user", "queue.format": "packed"})
    bases = [w.new for step in found.steps() for w in step.writes if w.field.startswith("qemu-4002.process.base[")]
    assert bases[:2] == [0x8001_8001, 0x8001_8001]
    # The reset puts them back to where a packed ring begins.
    assert bases[2:4] == [0x8000_8000, 0x8000_8000]


@pytest.mark.parametrize("name", ["vhost-user, packed", "QEMU, packed"])
def test_a_control_queue_is_packed_where_the_others_are(name):
    steps = world(name).steps()
    control = [step for step in steps if step.row.startswith("CP.4")]
    assert {"virtqueue_add_packed", "virtqueue_packed_flush"} <= {step.function for step in control}
    for step in control:
        for word in ("avail.idx", "used.idx", "avail.ring", "split", "used element"):
            assert word not in f"{step.op} {step.title} {step.text} {step.function}", step


def test_the_device_stops_before_any_memory_is_freed_and_starts_with_what_it_is_told_anew():
    steps = reset().steps()
    order = ["unbind", "clear_backend", "vhost_get_vring_base", "kvm_irqfd", "clear_registers", "free_buffers"]
    order += ["free_queue", "bind", "acknowledge", "say_driver_ok", "vhost_set_vring_addr", "vhost_net_set_backend"]
    names = iter(step.op for step in steps)
    assert all(any(name == wanted for name in names) for wanted in order)
    noted = [step for step in steps if step.op == "note_base"]
    bases = [write.new for step in noted for write in step.writes if "base[" in write.field]
    # One frame had come in and one had gone out.
    assert bases == [1, 1]


@pytest.mark.parametrize("settings", [{}, {"path": "virtio-qemu"}, {"store_buffer": "on"}, {"queues": 4}])
def test_with_several_pairs_the_programs_on_other_vcpus_wait_for_a_reset(settings):
    def ping(at, vcpu):
        return [Item(vcpu=vcpu), Item(outgoing=False, answers=at, vcpu=vcpu)]

    found = Driven([*ping(0, 1), *ping(2, 0), Reset(), *ping(4, 1), *ping(6, 0)], BEGIN, {"queues": 2}, settings).run()
    assert found.simulation.dropped() == {}
    steps = found.steps()
    at = {(step.packet, step.milestone): step.n for step in steps if step.milestone}
    unbound, back = (next(step.n for step in steps if step.op == op) for op in ("unbind", "up_again"))
    for packet in (2, 4):
        assert at[packet, "received"] < unbound
    for packet in (5, 7):
        assert at[packet, "sent"] > back
    for packet in (6, 8):
        assert at[packet, "received"] > back
    # The device had gone back to one pair, and was told again to use all.
    switched = [step.outcome for step in steps if step.op == "tun_set_queue" and step.n > unbound]
    further = int(settings.get("queues", 2)) - 1
    assert switched == ["off"] * further + ["on"] * further


@pytest.mark.parametrize("queues", [1, 2])
def test_a_reset_is_undone_exactly(queues):
    found = reset(queues=queues)
    machine, end = found.machine, found.machine.digest()
    machine.seek(0)
    machine.seek(machine.length)
    assert machine.digest() == end


def test_a_lesson_with_a_reset_begins_at_power_on():
    text = """
format_version: 1
id: r
title: r
level: beginner
minutes: 1
objectives: [r]
scenario: [{send: {id: a}}, {reset: vm1}]
script: [{id: s, when: start, say: s}]
sources: [virtio 1.4]
"""
    lesson = load_text(text)
    with pytest.raises(KnobError, match="begin=power-on"):
        build(lesson)
    _, traffic = build(lesson, [BEGIN])
    assert traffic.has_resets


def test_a_lesson_with_a_changing_link_does_not_begin_at_power_on():
    text = """
format_version: 1
id: r
title: r
level: beginner
minutes: 1
objectives: [r]
scenario: [{send: {id: a}}, {link: {state: down}}]
script: [{id: s, when: start, say: s}]
sources: [virtio 1.4]
"""
    with pytest.raises(KnobError, match="begin=running"):
        build(load_text(text), [BEGIN])


def rows_on_the_page():
    """Read the rows that the page about set-ups promises."""
    page = (Path(__file__).parents[2] / "docs" / "set-up.md").read_text(encoding="utf-8")
    found = set()
    for line in page.splitlines():
        if not line.startswith("| CP."):
            continue
        for part in line.split("|")[1].strip().split(", "):
            ends = part.split(" to ")
            section = ends[0].rpartition(".")[0]
            low, high = (int(end.rpartition(".")[2]) for end in (ends[0], ends[-1]))
            found |= {f"{section}.{n}" for n in range(low, high + 1)}
    return found


def test_the_rows_of_a_set_up_are_those_on_its_page():
    happened = set()
    for found in (*map(world, WORLDS), reset(), reset(queues=2), Driven(PING, BEGIN, {"refuse_features": "on"}).run()):
        happened |= {step.row for step in found.steps() if step.row.startswith("CP.")}
    assert happened == rows_on_the_page()


def test_texts_of_outcomes_that_no_set_up_takes_fit_as_well():
    for name in WORLDS:
        for arc in world(name).machine.program.arcs:
            if "vhost-user" in name and "CP." not in str(arc.op.spec.row):
                # How a polling thread works is told at greater length, wherever the run began.
                continue
            assert len(text_for(arc.op, arc.outcome)) <= 2 * 78, arc.op.path


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"begin": "power-on", "vms": 2}, "one virtual machine at a time"),
        ({"begin": "power-on", "queue.start": 5}, "begins at 0"),
        ({"refuse_features": "on"}, "begin=power-on"),
        ({"vhost_start": "fails"}, "begin=power-on"),
        (
            {"begin": "power-on", "path": "virtio-qemu", "vhost_start": "missing"},
            "only path=vhost-net and path=vhost-user",
        ),
        ({"begin": "power-on", "launcher": "hand", "vhost_start": "missing"}, "does not start"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, words):
    with pytest.raises(KnobError, match=words):
        make_world(settings)
