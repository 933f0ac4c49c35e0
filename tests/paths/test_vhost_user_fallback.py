"""A vhost-user back-end without protocol features: QEMU serves the rings, and what the guest sends goes nowhere."""

from __future__ import annotations

from functools import cache

import pytest
from driving import Driven, Item

from virtviz.engine.program import text_for
from virtviz.errors import KnobError
from virtviz.paths.knobs import make_world
from virtviz.paths.traffic import Reset

BEGIN = {"begin": "power-on", "path": "vhost-user", "vhost_start": "fails"}
BOTH_WAYS = [Item(), Item(outgoing=False)]


@cache
def world(**more):
    return Driven(BOTH_WAYS, BEGIN, more).run()


def texts(found, op):
    return [step.text for step in found.steps() if step.op == op]


def milestones(found, packet):
    return {step.milestone for step in found.steps() if step.packet == packet and step.milestone}


@pytest.mark.parametrize("version", ["10.0", "7.2"])
def test_a_frame_each_way_is_lost_at_a_named_place(version):
    found = world(qemu_version=version)
    assert found.simulation.dropped() == {"qemu-4002.vhost_user": 1, "vhost-user0.tx_dropped": 1}
    assert "received" not in milestones(found, 2)


def test_the_guest_is_told_that_its_frame_was_sent():
    found = world()
    assert {"sent", "used", "completed"} <= milestones(found, 1)
    assert "on-wire" not in milestones(found, 1)
    assert found.u16("used_idx") == found.u16("avail_idx") == 1


def test_qemu_says_what_it_does():
    assert "unable to start vhost net: 22: falling back on userspace virtio" in texts(world(), "fall_back")[0]


def test_the_polling_thread_never_looks_at_a_ring_of_the_guest():
    found = world()
    assert not any(op in ("dequeue", "read_avail_idx") for op, thread in found.ops() if thread == "pmd0")


def test_a_frame_is_handed_over_without_a_system_call():
    found = world()
    handed = next(step for step in found.steps() if step.op == "receive" and step.function == "vhost_user_receive")
    assert handed.place == "qemu"
    assert not any(step.function in ("tun_get_user", "tun_do_read") for step in found.steps())


@pytest.mark.parametrize(("version", "tied"), [("10.0", 2), ("7.2", 0)])
def test_only_a_newer_qemu_has_tied_kicks_before_it_gives_up(version, tied):
    steps = world(qemu_version=version).steps()
    given_up = next(n for n, step in enumerate(steps) if step.op == "fall_back")
    assert sum(step.op == "kvm_ioeventfd" and step.outcome != "" for step in steps[:given_up]) == 2 * tied


def test_a_driver_that_is_bound_anew_has_qemu_try_anew():
    found = Driven([Item(), Reset(), Item()], BEGIN).run()
    assert len(texts(found, "fall_back")) == 2
    assert found.simulation.dropped() == {"qemu-4002.vhost_user": 2}
    # The ring began anew, so one frame has gone out.
    assert found.u16("avail_idx") == found.u16("used_idx") == 1


def test_a_back_end_that_is_asked_about_features_says_nothing_of_a_protocol():
    found = world()
    assert found.cell("vhost-user0.front_end.features") >> 30 & 1 == 0
    assert found.cell("vhost-user0.device.running") == found.cell("vhost-user0.device.protocol") == 0


@pytest.mark.parametrize(
    ("more", "advice"),
    [
        ({"vhost_start": "missing"}, "set vhost_start=fails"),
        ({"queues": 2}, "set queues=1"),
        ({"queue.format": "packed"}, "set queue.format=split"),
        ({"path": "virtio-qemu"}, "only path=vhost-net and path=vhost-user"),
    ],
)
def test_what_does_not_go_together_with_it_is_refused(more, advice):
    with pytest.raises(KnobError, match=advice):
        make_world(BEGIN | more)


@pytest.mark.parametrize("version", ["10.0", "7.2"])
def test_texts_have_room_in_two_lines_of_a_small_screen(version):
    for arc in world(qemu_version=version).machine.program.arcs:
        if "CP." in str(arc.op.spec.row) or arc.op.path.startswith("vhost-user0.send"):
            assert len(text_for(arc.op, arc.outcome)) <= 2 * 78, arc.op.path
