"""Every row of the model's tables happens in some run, in the order of its block, and says what it is."""

from __future__ import annotations

import textwrap
from functools import cache

import pytest
from driving import FLAGS, IN, KNOWN, OUT, Driven, Item, Pause, burst

from virtviz.engine.program import text_for

ROWS = {
    "G-TX": 13,
    "KICK": 5,
    "V-TX": 16,
    "IRQ": 6,
    "G-TXC": 4,
    "O-FWD": 4,
    "O-MISS": 10,
    "NIC-TX": 4,
    "N-IN": 10,
    "V-RX": 14,
    "G-RX": 9,
    "TUNNEL-TX": 3,
    "TUNNEL-RX": 4,
}
"""Block -> its number of rows."""
INSIDE = {f"N-IN.{n}" for n in (4, 5, 6, 7)}
"""Rows 4 to 7 of N-IN are the switch's, O-FWD 1 to 4, run inside napi_complete_done: they are there under that name."""
PING = [Item(), Item(outgoing=False, answers=0)]
WORLDS = {
    "ping": (PING, {}),
    "recorded": (PING, {"profile": "recorded", "vcpu": "halted"}),
    "flags": (PING, FLAGS),
    "refill": (burst(40, outgoing=False), KNOWN),
    "without NAPI": ([OUT, Pause(), OUT], KNOWN | {"napi_tx": "off"}),
    "by veth, on its own": ([IN], {"far_port": "veth"}),
    "dummy": ([OUT], {"far_port": "dummy"}),
    "bridge": (PING, {"switch": "bridge"}),
    "bridge that floods": (PING, {"switch": "bridge", "vms": 2}),
    "tunnel": (PING, {"tunnel": "vxlan"}),
    "tunnel over veth": (PING, {"tunnel": "geneve", "far_port": "veth"}),
    "a socket for each port": (PING, {"ovs_dispatch": "per-vport"}),
    "Intel without APICv": (PING, {"apicv": "off", "guest_if": "off"}),
}


@cache
def steps(name):
    items, settings = WORLDS[name]
    return Driven(items, settings).run().steps()


def test_every_row_happens():
    wanted = {f"{block}.{n}" for block, count in ROWS.items() for n in range(1, count + 1)} - INSIDE
    happened = {step.row for name in WORLDS for step in steps(name)}
    assert wanted - happened == set()
    assert happened - wanted == set()


def rows_of(name, block):
    """Give the rows of a block as they came, each once in a row."""
    numbers = [int(step.row.split(".")[1]) for step in steps(name) if step.row.split(".")[0] == block]
    return [n for i, n in enumerate(numbers) if i == 0 or numbers[i - 1] != n]


def test_rows_come_in_the_order_of_their_blocks():
    # Row 1 of G-TX is the system call, whose return comes last.
    assert rows_of("ping", "G-TX")[:14] == [*range(1, 14), 1]
    assert rows_of("ping", "KICK") == [1, 2, 3, 4, 5]
    # Rows 4 to 8 for the packet, row 4 again for the empty ring.
    assert rows_of("ping", "V-TX") == [1, 2, 3, 4, 5, 6, 7, 8, 4, 9, 10, 12, 13, 14, 15, 16]
    assert rows_of("ping", "G-TXC") == [1, 2, 3, 4]
    assert rows_of("ping", "NIC-TX") == [1, 2, 3, 4]
    assert rows_of("ping", "N-IN")[:3] == [1, 2, 3]
    # Row 3 again: the TAP's queue is empty.
    assert rows_of("ping", "V-RX") == [1, 2, 3, 4, 5, 6, 7, 8, 9, 3, 10, 11, 12, 13, 14]


def test_a_known_flow_is_forwarded_in_four_rows():
    world = Driven([OUT], KNOWN).run()
    assert [step.row for step in world.steps() if step.row.startswith("O-")] == [f"O-FWD.{n}" for n in range(1, 5)]


def test_the_flow_is_installed_before_the_packet_is_executed():
    rows = [step.row for step in steps("ping")]
    assert rows.index("O-MISS.8") < rows.index("O-MISS.9")


def test_the_worker_returns_the_buffer_before_the_first_packet_of_a_flow_has_left():
    milestones = [step.milestone for step in steps("ping") if step.packet == 1]
    assert milestones.index("used") < milestones.index("on-wire")


OUTWARD = ["sent", "in-ring", "notified", "backend-awake", "fetched"]
OUTWARD += ["at-tap", "at-switch", "on-wire", "used", "completed"]
INWARD = ["from-wire", "at-switch", "at-tap", "backend-awake", "in-guest-buffer"]
INWARD += ["used", "interrupted", "polled", "received"]


@pytest.mark.parametrize(("packet", "expected"), [(1, OUTWARD), (2, INWARD)], ids=["out", "in"])
def test_a_packet_passes_every_milestone_once(packet, expected):
    found = Driven(PING, KNOWN).run().steps()
    milestones = [step.milestone for step in found if step.packet == packet and step.milestone]
    assert sorted(milestones) == sorted(expected)
    if packet == 2:
        assert milestones == expected


@pytest.mark.parametrize("name", WORLDS)
def test_every_step_is_cited_and_says_something(name):
    for step in steps(name):
        assert step.function
        assert step.source.count(" ") >= 1
        assert step.title
        assert step.text.endswith(".")
        assert "{" not in step.text


@pytest.mark.parametrize("name", WORLDS)
def test_a_text_fits_into_two_lines_of_a_terminal(name):
    long = {step.text for step in steps(name) if len(textwrap.wrap(step.text, 78)) > 2}
    assert long == set()


def test_texts_of_outcomes_that_no_run_here_takes_fit_as_well():
    for items, settings in WORLDS.values():
        program = Driven(items, settings).machine.program
        for arc in program.arcs:
            # What is filled in is about as long as what stands in its place.
            assert len(text_for(arc.op, arc.outcome)) <= 2 * 78, arc.op.path


def test_the_softirq_of_the_card_is_shown_as_one():
    contexts = {step.op: step.context for step in steps("ping") if step.thread == "softirq/cpu1"}
    assert contexts["hard_interrupt"] == "hardirq"
    assert contexts["clean_tx"] == contexts["take_frame"] == contexts["complete"] == "softirq"


def test_a_handlers_softirq_belongs_to_its_own_block():
    rows = {step.row for step in steps("recorded") if step.thread.startswith("handler") and step.context == "process"}
    assert not [row for row in rows if row.startswith("V-TX")]
