"""Named frames of the lesson as pictures; `make snap` draws them anew, and somebody looks at each before it is kept."""

import pytest
from opened import opened, position_of, reach

from virtviz.ui.app import make_player

SMALL, LARGE, HUGE = (80, 24), (120, 40), (200, 60)

NAMED = {
    "before-the-first-step": (lambda s: 0, ()),
    "system-call": (lambda s: 1, ()),
    "slot-written": (lambda s: position_of(s, "write_avail_ring", packet=1) - 1, ()),
    "publish": (lambda s: position_of(s, "publish_avail_idx", packet=1), ()),
    "kick": (lambda s: position_of(s, "kick", packet=1), ("p",)),
    "in-kvm": (lambda s: position_of(s, "find_ioeventfd"), ()),
    "wake-the-worker": (lambda s: position_of(s, "wake_worker", packet=1), ()),
    "back-in-the-guest": (lambda s: position_of(s, "vm_entry"), ()),
    "fetch": (lambda s: position_of(s, "read_desc", packet=1), ("p",)),
    "copy": (lambda s: position_of(s, "copy_packet", packet=1), ()),
    "switch": (lambda s: position_of(s, "look_up", packet=1), ()),
    "doorbell": (lambda s: position_of(s, "ring_doorbell", packet=1), ()),
    "used": (lambda s: position_of(s, "publish_used_idx", packet=1), ("p",)),
    "on-the-wire": (lambda s: position_of(s, "put_on_wire", packet=1), ()),
    "interrupt": (lambda s: position_of(s, "take_vector"), ()),
    "reclaim": (lambda s: position_of(s, "take_used", packet=1), ()),
    "copy-in": (lambda s: position_of(s, "copy_packet", packet=2), ()),
    "received": (lambda s: position_of(s, "copy_to_user", packet=2), ()),
    "held": (lambda s: position_of(s, "publish_avail_idx", packet=4), ("p",)),
    "question": (lambda s: position_of(s, "write_avail_ring", packet=1), ()),
    "question-with-hint": (lambda s: position_of(s, "kick", packet=1), ("h",)),
    "verdict": (lambda s: position_of(s, "write_avail_ring", packet=1), ("2",)),
    "end": (lambda s: s.length, ()),
}


def picture(snap_compare, name, size, *, plain=False, theme=None, more=(), **knobs):
    """Compare the picture of a named frame."""
    session = opened(**knobs)
    at, keys = NAMED[name]
    reach(session, at(session))
    app = make_player(session, motion="none", plain=plain, theme=theme)
    return snap_compare(app, terminal_size=size, press=[*keys, *more])


@pytest.mark.parametrize("name", NAMED)
def test_at_80x24(snap_compare, name):
    assert picture(snap_compare, name, SMALL)


@pytest.mark.parametrize("name", NAMED)
def test_at_120x40(snap_compare, name):
    assert picture(snap_compare, name, LARGE)


@pytest.mark.parametrize("name", ["publish", "kick", "copy"])
def test_at_200x60(snap_compare, name):
    assert picture(snap_compare, name, HUGE)


@pytest.mark.parametrize("name", ["publish", "kick", "wake-the-worker", "question", "verdict"])
def test_in_light_colours(snap_compare, name):
    assert picture(snap_compare, name, SMALL, theme="virtviz-light")


@pytest.mark.parametrize("name", ["publish", "kick", "copy-in", "question", "verdict"])
def test_without_colours(snap_compare, monkeypatch, name):
    monkeypatch.setenv("NO_COLOR", "1")
    assert picture(snap_compare, name, SMALL)


@pytest.mark.parametrize("name", ["publish", "kick", "question"])
def test_in_ascii(snap_compare, name):
    assert picture(snap_compare, name, SMALL, plain=True)


@pytest.mark.parametrize("key", ["l", "t", "s"])
def test_panels_in_the_rings_place(snap_compare, key):
    assert picture(snap_compare, "copy-in", SMALL, more=(key,))


@pytest.mark.parametrize("op", ["begin", "receive", "translate", "install_flow"])
def test_a_missed_flow_goes_up_to_ovs_vswitchd(snap_compare, op):
    session = opened(flows="unknown")
    reach(session, position_of(session, op, packet=1, nth=1))
    assert snap_compare(make_player(session, motion="none"), terminal_size=SMALL)


def test_indices_that_have_passed_65535(snap_compare):
    assert picture(snap_compare, "publish", SMALL, queue__start=65535)


def test_a_far_port_without_hardware(snap_compare):
    session = opened(profile="recorded")
    reach(session, position_of(session, "copy_packet", packet=1))
    assert snap_compare(make_player(session, motion="none"), terminal_size=SMALL)


@pytest.mark.parametrize("name", ["wake-the-main-loop", "fetch", "writev", "copy-in"])
def test_qemu_serves_the_queues(snap_compare, name):
    ops = {"wake-the-main-loop": "wake_main_loop", "fetch": "read_desc", "writev": "copy_packet", "copy-in": "read"}
    session = opened(path="virtio-qemu")
    reach(session, position_of(session, ops[name], packet=2 if name == "copy-in" else 1))
    assert snap_compare(make_player(session, motion="none"), terminal_size=SMALL)


@pytest.mark.parametrize("op", ["return_to_qemu", "note_kick", "write"])
def test_a_kick_without_ioeventfd_goes_through_qemu(snap_compare, op):
    session = opened(path="virtio-qemu", ioeventfd="off")
    reach(session, position_of(session, op))
    assert snap_compare(make_player(session, motion="none"), terminal_size=LARGE)


@pytest.mark.parametrize("op", ["next_queue", "check_call", "carry_out", "write_desc"])
def test_a_thread_of_ovs_dpdk_polls(snap_compare, op):
    session = opened(path="vhost-user")
    reach(session, position_of(session, op, place="dpdk0" if op == "write_desc" else None))
    assert snap_compare(make_player(session, motion="none"), terminal_size=SMALL)


@pytest.mark.parametrize("op", ["translate", "find_nobody"])
def test_what_ovs_dpdk_does_seldom(snap_compare, op):
    session = opened(path="vhost-user", flows="unknown", queue__start=65535)
    reach(session, position_of(session, op))
    assert snap_compare(make_player(session, motion="none"), terminal_size=LARGE)


@pytest.mark.parametrize(
    ("op", "path"), [("write_header", "vhost-user"), ("take_packet", "vhost-user"), ("kick", "vhost-net")]
)
def test_a_program_drives_the_device_itself(snap_compare, op, path):
    session = opened(guest="dpdk", path=path)
    reach(session, position_of(session, op))
    assert snap_compare(make_player(session, motion="none"), terminal_size=SMALL)


def test_help(snap_compare):
    assert picture(snap_compare, "publish", LARGE, more=("question_mark",))


def test_too_small(snap_compare):
    assert picture(snap_compare, "publish", (60, 20))
