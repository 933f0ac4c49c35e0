"""The messages over a vhost-user socket are the recorded ones, and the back-end works by what they say."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import pytest
from vhost_user_messages import (
    OLD,
    ONE_PAIR,
    PACKED,
    TWO_PAIRS,
    of_run,
    parts,
    recorded,
    recorded_stop,
    without_base,
    without_places,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "paths"))
from driving import Driven, Item

from virtviz.paths.setup.state import HVA_BASE
from virtviz.paths.traffic import Reset

BEGIN = {"begin": "power-on", "path": "vhost-user"}
PING = [Item(), Item(outgoing=False, answers=0)]


@cache
def world(**more):
    return Driven(PING, BEGIN, more).run()


@cache
def started():
    """A world at the moment at which the switch gets the device."""
    return Driven(PING, BEGIN).step_until("new_device")


def device(word):
    return world().cell(f"vhost-user0.device.{word}")


SECTIONS = {
    ONE_PAIR: {},
    PACKED: {"queue.format": "packed"},
    TWO_PAIRS: {"queues": 2},
    OLD: {"vhost_start": "fails"},
}
SERVED = {section: settings for section, settings in SECTIONS.items() if section != OLD}


def test_every_section_of_the_recording_is_compared():
    recorded_ones = {title.split(" / ")[0] for title in parts()}
    assert all(any(title.startswith(section) for section in SECTIONS) for title in recorded_ones)
    assert len(recorded_ones) == len(SECTIONS)


@pytest.mark.parametrize(("section", "settings"), SECTIONS.items(), ids=list(SECTIONS))
@pytest.mark.parametrize("profile", ["recorded", "default"])
def test_the_messages_are_the_recorded_ones_in_the_recorded_order(section, settings, profile):
    said, wanted = of_run(Driven([Item()], {"profile": profile}, BEGIN, settings)), recorded(section)
    if section == PACKED:
        said, wanted = without_places(said), without_places(wanted)
    assert said == wanted


@pytest.mark.parametrize(("section", "settings"), SERVED.items(), ids=list(SERVED))
def test_a_reset_stops_the_rings_as_recorded(section, settings):
    said = of_run(Driven([Item(), Reset()], BEGIN, settings))
    begin = next(n for n, line in enumerate(said) if "GET_VRING_BASE" in line)
    wanted = recorded_stop(section)
    assert [without_base(line) for line in said[begin : begin + len(wanted)]] == wanted


@pytest.mark.parametrize("ring", [0, 1])
@pytest.mark.parametrize("part", ["desc", "avail", "used"])
def test_the_back_end_finds_the_rings_where_the_guest_put_them(ring, part):
    layout = (world().vm.rx_layout, world().vm.tx_layout)[ring]
    assert device(f"{part}[{ring}]") == getattr(layout, part)
    assert device("hva") == HVA_BASE


def test_a_descriptor_that_travels_has_another_number_in_the_other_process():
    assert device("kick[0]") != world().cell("qemu-4002.process.kick[0]")


@pytest.mark.parametrize("features", ["event_idx,indirect,mergeable", "indirect,mergeable", "none"])
def test_a_ping_is_answered_after_the_set_up(features):
    found = world(features=features)
    assert found.simulation.dropped() == {}
    milestones = {(step.packet, step.milestone) for step in found.steps() if step.milestone}
    assert {(1, "sent"), (1, "on-wire"), (2, "from-wire"), (2, "received")} <= milestones


def test_the_ways_of_the_packets_are_those_of_a_run_that_begins_later():
    later = Driven(PING, {"path": "vhost-user", "queue.start": 0}).run()
    for packet in (1, 2):
        ways = [
            [(step.thread, step.milestone) for step in run.steps() if step.packet == packet and step.milestone]
            for run in (world(), later)
        ]
        assert ways[0] == ways[1]


def test_the_polling_thread_looks_at_no_ring_before_its_port_has_a_device():
    steps = started().steps()
    assert all(step.thread != "pmd0" for step in steps)


def test_a_guest_without_event_indices_is_told_once_that_no_kick_is_wanted():
    assert world(features="none").u16("used_flags") == 1
    assert world().u16("used_flags") == 0


def test_a_driver_that_is_bound_anew_has_the_back_end_start_anew():
    found = Driven([*PING, Reset(), Item(), Item(outgoing=False, answers=2)], BEGIN).run()
    assert found.simulation.dropped() == {}
    assert sum(op == "new_device" for op, _ in found.ops()) == 2
    assert {step.packet for step in found.steps() if step.milestone == "received"} == {2, 4}
    # The rings began anew, so one frame has gone each way.
    assert found.u16("avail_idx") == found.u16("used_idx") == found.u16("used_idx", "rx") == 1
