"""A link goes down and up: who hears of it and in which order, what it costs, and what becomes of frames meanwhile."""

from __future__ import annotations

from collections import Counter

import pytest
from driving import FLAGS, IN, KNOWN, OUT, Driven, Item, Pause, burst

from virtviz.paths.traffic import Link

DOWN, UP = Link(up=False), Link(up=True)
VHOST = KNOWN
QEMU = KNOWN | {"path": "virtio-qemu"}
PATHS = {
    "vhost-net": VHOST,
    "virtio-qemu": QEMU,
    "without ioeventfd": QEMU | {"ioeventfd": "off"},
    "vhost-net, halted, AMD": VHOST | {"profile": "recorded", "vcpu": "halted"},
    "virtio-qemu, no EVENT_IDX": QEMU | FLAGS,
}
every_path = pytest.mark.parametrize("settings", PATHS.values(), ids=PATHS)
two_paths = pytest.mark.parametrize("settings", [VHOST, QEMU], ids=["vhost-net", "virtio-qemu"])
CYCLE = [OUT, Pause(), DOWN, Pause(), OUT, IN, Pause(), UP, Pause(), OUT, IN]
LINK_DOWN, NO_CARRIER = "qemu-4002.link_down", "vm1.no_carrier"


def device(world):
    return [world.cell(f"vm1.device.{name}") for name in ("config_status", "isr", "generation", "status")]


def in_order(world, *wanted):
    """Say whether ops came in this order, among others."""
    names = iter([op for op, _ in world.ops()])
    return all(any(name == other for other in names) for name in wanted)


@every_path
def test_the_guest_hears_of_a_link_that_went_down_by_the_configurations_own_interrupt(settings):
    world = Driven([OUT, Pause(), DOWN], settings).run()
    assert device(world) == [0, 3, 1, 15]
    assert [world.cell(f"vm1.config.{name}") for name in ("status", "carrier", "inactive")] == [0, 0, 1]
    assert world.cell("vm1.txq.driver_off") == 1
    leave = "exit_npf" if "profile" in settings else "exit_ept_misconfig"
    assert in_order(
        world,
        *("change", "set_bit", "note_change", "signal_change", "send_msi", "take_vector", "hear", "schedule"),
        *("begin", "read_status", leave, "emulate", "return_to_qemu", "take_lock", "get_config", "release_lock"),
        *("complete", "decide", "carrier_off", "stop_queue", "deactivate", "end"),
    )


@every_path
def test_a_change_of_the_link_costs_one_heavy_exit_each_way_and_one_interrupt(settings):
    def cost(*events):
        return Counter(Driven([OUT, *events], settings).run().counters())

    more = cost(Pause(), DOWN, Pause(), UP) - cost()
    assert more["heavy_exits"] == 2
    assert more["interrupts"] == 2
    assert more["drops"] == more["host_copies"] == 0


@every_path
def test_frames_that_come_while_the_link_is_down_are_counted_where_they_are_lost(settings):
    world = Driven(CYCLE, settings).run()
    # The guest's goes no further than the queueing discipline; the one from the wire goes as far as QEMU.
    assert world.simulation.dropped() == {NO_CARRIER: 1, LINK_DOWN: 1}
    assert world.counters()["drops"] == 2
    assert device(world) == [1, 3, 2, 15]
    assert world.cell("vm1.config.carrier") == 1
    # What comes after is sent and received as before.
    assert (world.u16("used_idx"), world.u16("used_idx", "rx")) == (2, 1)
    assert world.cell("vm1.program.received") == 1


@every_path
def test_a_frame_sent_before_the_guest_has_heard_is_dropped_by_qemu_and_given_back(settings):
    world = Driven([OUT, DOWN, OUT, Pause(), UP, Pause(), OUT], settings)
    # The main loop has set the bit and is about to tell the guest, which sends in the meantime.
    world.step_until("set_bit", without=["vcpu0"])
    world.step_until("return_to_user", without=["qemu", "vhost"] if "vhost" in world_threads(world) else ["qemu"])
    world.run()
    sent = [step.packet for step in world.steps() if step.milestone == "on-wire"]
    lost = world.simulation.dropped()
    assert set(lost) <= {LINK_DOWN, NO_CARRIER}
    assert len(sent) + sum(lost.values()) == 3
    assert 3 in sent
    # Every buffer has come back.
    assert world.u16("used_idx") == world.u16("avail_idx")
    assert world.cell("vm1.socket.charged") == 0


def world_threads(world):
    return " ".join(thread.name for thread in world.machine.threads)


@two_paths
def test_packets_in_the_queueing_discipline_go_with_it(settings):
    # The transmit queue is full when the carrier goes: what the driver has not got yet is dropped.
    few = {"queue.size": 32, "tx_stop_threshold": 19}
    world = Driven([*burst(20), DOWN], settings | few)
    others = ["qemu-4002", "vhost"] if settings is VHOST else ["qemu-4002"]
    world.run(without=others)
    assert world.cell("vm1.txq.driver_off") == 1
    waiting = world.cell("vm1.txq.qdisc.put") - world.cell("vm1.txq.qdisc.taken")
    assert waiting > 0
    world.run()
    lost = world.simulation.dropped()
    sent = [step.packet for step in world.steps() if step.milestone == "on-wire"]
    assert len(sent) + sum(lost.values()) == 20
    assert world.cell("vm1.txq.qdisc.put") == world.cell("vm1.txq.qdisc.taken")
    assert world.cell("vm1.socket.charged") == 0


@every_path
def test_a_link_set_to_what_it_is_changes_nothing(settings):
    world = Driven([OUT, Pause(), UP, Pause(), OUT], settings).run()
    assert device(world) == [1, 0, 0, 15]
    assert ("set_bit", "unchanged") in world.ops()
    assert "hear" not in {op for op, _ in world.ops()}
    assert world.u16("used_idx") == 2


@every_path
def test_two_changes_in_a_row_are_two_requests(settings):
    world = Driven([OUT, DOWN, UP, DOWN, UP, Pause(), OUT], settings).run()
    assert [op for op, _ in world.ops()].count("answer") == 4
    assert device(world)[0] == world.cell("vm1.config.status") == 1
    assert device(world)[2] == 4
    assert [step.packet for step in world.steps() if step.milestone == "on-wire"][-1] == 2


@two_paths
def test_undo_is_exact_and_counting_equals_recording(settings):
    world = Driven(CYCLE, settings)
    machine = world.machine
    seen = {0: machine.digest()}
    while machine.run(97):
        seen[machine.position] = machine.digest()
    while machine.back():
        if machine.position in seen:
            assert machine.digest() == seen[machine.position]
    machine.seek(machine.length)
    assert machine.digest() == seen[machine.length]
    counted = Driven(CYCLE, settings, recording=False)
    counted.machine.run()
    assert counted.machine.hits == machine.hits


def test_vhost_is_stopped_with_the_link_and_started_with_it():
    world = Driven(CYCLE, VHOST).run(without=[])
    assert in_order(world, "note_change", "stop_rx", "detach", "stop_tx", "detach", "watch_tap", "get_base", "get_base")
    assert in_order(world, "leave_kicks", "set_base", "set_base", "leave_tap", "attach", "attach")
    assert world.cell("vhost-4002.detached") == 0
    threads = {(step.thread, step.packet) for step in world.steps() if step.op == "copy_packet"}
    # The packets before and after go by vhost's worker, and none of them by QEMU.
    assert {thread for thread, _ in threads} == {"vhost-4002"}
    read = [step.thread for step in world.steps() if step.op == "read" and step.outcome == "copied"]
    assert read == ["qemu-4002"]


def test_vhost_goes_on_exactly_where_qemu_has_stopped():
    world = Driven([OUT, DOWN, OUT, Pause(), UP, Pause(), OUT], VHOST)
    world.step_until("set_bit", without=["vcpu0"])
    world.step_until("return_to_user", without=["qemu", "vhost"])
    world.run()
    rings = [f"{side}.transmitq1.ring" for side in ("vhost-4002", "qemu-4002")]
    assert world.cell(f"{rings[0]}.last_avail_idx") == world.u16("avail_idx")
    assert world.cell(f"{rings[0]}.last_used_idx") == world.u16("used_idx")


def test_without_links_in_the_scenario_vhost_net_needs_no_main_loop():
    assert not [thread for thread in Driven([OUT], VHOST).machine.threads if "qemu" in thread.name]


def test_the_other_machine_does_not_hear_of_it():
    events = [Item(kind="udp", length=18), Link(up=False, vm=1), Pause(), Item(kind="udp", length=18)]
    world = Driven(events, VHOST | {"vms": 2}).run()
    assert (world.cell("vm1.device.config_status"), world.cell("vm2.device.config_status")) == (1, 0)
    assert {step.thread for step in world.steps() if step.op == "hear"} == {"vm2.vcpu0"}
    assert len([step for step in world.steps() if step.milestone == "on-wire"]) == 2


@two_paths
def test_every_step_of_it_is_cited_and_says_something(settings):
    rows = set()
    for step in Driven(CYCLE, settings).run().steps():
        assert step.function
        assert step.text.endswith(".")
        assert "{" not in step.text
        rows.add(step.row)
    wanted = {f"CONFIG.{n}" for n in range(1, 13)}
    assert wanted <= rows
