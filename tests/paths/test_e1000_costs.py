"""What one lone packet costs with a card that QEMU emulates, by which processor and machine, and its rows."""

from __future__ import annotations

import textwrap

import pytest
from driving import IN, KNOWN, OUT, Driven, Item, burst

from virtviz.engine.counters import COUNTERS
from virtviz.engine.places import CrossingKind
from virtviz.engine.program import text_for
from virtviz.engine.schedule import BySimulatedTime

CARD = KNOWN | {"path": "e1000"}
RECORDED = {"profile": "recorded"}
NOTHING = dict.fromkeys(COUNTERS, 0)
LONE_OUT = NOTHING | {
    "heavy_exits": 6,
    "light_exits": 1,
    "guest_host": 14,
    "wakeups": 1,
    "host_syscalls": 6,
    # A system call is two crossings; so is KVM_RUN, of which every heavy exit needs one.
    "user_kernel.host": 2 * (6 + 6),
    "guest_syscalls": 1,
    "user_kernel.guest": 2,
    "host_copies": 2,
    "guest_copies": 1,
    "interrupts": 1,
    "eventfd_signals": 1,
    "dma": 1,
}
LONE_IN = NOTHING | {
    "heavy_exits": 5,
    "light_exits": 2,
    "guest_host": 14,
    "wakeups": 2,
    "host_syscalls": 9,
    "user_kernel.host": 2 * (9 + 5),
    "guest_syscalls": 1,
    "user_kernel.guest": 2,
    "host_copies": 2,
    "guest_copies": 2,
    "interrupts": 1,
    "hw_interrupts": 1,
    "eventfd_signals": 1,
    "dma": 1,
}
PING = [Item(), Item(outgoing=False, answers=0)]


def costs(items, *settings):
    return Driven(items, *settings).run().counters()


def more(found, base):
    """Give what was counted beyond a base."""
    return {name: n - base[name] for name, n in found.items() if n != base[name]}


def calls(items, settings):
    """Give the system calls of the host in their order: by which thread, and by which op."""
    return [
        (step.thread, step.op)
        for step in Driven(items, settings).run().steps()
        for crossing in step.crossings
        if crossing.kind is CrossingKind.SYSCALL_ENTER and crossing.side == "host"
    ]


def test_a_lone_packet_out():
    assert costs([OUT], CARD) == LONE_OUT


def test_a_lone_packet_in():
    assert costs([IN], CARD) == LONE_IN


def test_a_ping_is_a_packet_out_and_a_packet_in():
    assert costs(PING, CARD) == {name: LONE_OUT[name] + LONE_IN[name] for name in COUNTERS}


def test_an_answer_that_is_there_before_the_handler_asks_why_shares_its_interrupt():
    world = Driven(PING, CARD).step_until("vm_entry")
    # The handler is about to run; the answer comes first.
    world.run(without=["vcpu0"])
    found = world.run().counters()
    assert (found["heavy_exits"], found["interrupts"]) == (6, 1)


@pytest.mark.parametrize(
    ("settings", "extra"),
    [
        # The IOAPIC asks for a level-triggered interrupt's end: without APICv the local APIC's registers exit.
        ({"apicv": "off"}, 1),
        ({"cpu": "amd", "apicv": "off"}, 1),
    ],
    ids=str,
)
def test_without_apicv_the_local_apic_costs_exits_as_well(settings, extra):
    assert costs([OUT], CARD, settings)["light_exits"] == LONE_OUT["light_exits"] + extra
    assert costs([OUT], CARD, settings)["heavy_exits"] == 6


@pytest.mark.parametrize(("machine", "calls_each"), [("direct", 1), ("pc", 2), ("q35", 3)])
def test_a_machine_with_more_between_card_and_ioapic_makes_more_calls_for_each_change(machine, calls_each):
    for items, base in (([OUT], LONE_OUT), ([IN], LONE_IN)):
        found = costs(items, CARD, {"machine": machine})
        # The line goes up once and down once.
        added = 2 * (calls_each - 1)
        wanted = {"host_syscalls": added, "user_kernel.host": 2 * added} if added else {}
        assert more(found, base) == wanted


def test_a_guest_that_is_halted_has_to_be_woken_for_a_packet_in_but_not_for_what_it_sends():
    assert more(costs([IN], CARD, {"vcpu": "halted"}), LONE_IN) == {
        "light_exits": 1,
        "guest_host": 2,
        "vcpu_wakeups": 1,
    }
    # Its own thread raises the line, while it is in QEMU.
    assert costs([OUT], CARD, {"vcpu": "halted"}) == LONE_OUT


def test_the_recorded_packet_out():
    found = costs([OUT], RECORDED, CARD)
    assert (found["heavy_exits"], found["light_exits"], found["interrupts"]) == (6, 2, 1)


def test_the_recorded_packet_in():
    found = costs([IN], RECORDED, CARD, {"vcpu": "halted"})
    # HLT, the vector's TMR, EOI, and the store of RDT that KVM only notes.
    assert (found["heavy_exits"], found["light_exits"], found["vcpu_wakeups"]) == (5, 4, 1)


# Which system calls they are


def test_a_packet_out_is_writev_an_eventfd_and_the_line_up_and_down():
    found = calls([OUT], CARD)
    assert [op for thread, op in found if thread == "vm1.vcpu0"] == ["send", "notify", "tell", "tell"]
    assert [op for thread, op in found if thread == "qemu-4002"] == ["read_own", "next_handler"]


def test_a_packet_in_is_nine_system_calls():
    found = calls([IN], CARD)
    assert [op for thread, op in found if thread == "vm1.vcpu0"] == ["tell", "notify"]
    assert [op for thread, op in found if thread == "qemu-4002"] == [
        "begin",
        "tell",
        "count",
        "next_handler",
        "next_handler",
        "read_own",
        "next_handler",
    ]


def test_the_switch_and_the_card_of_the_host_work_inside_the_vcpus_writev():
    steps = Driven([OUT], CARD).run().steps()
    assert {step.thread for step in steps if step.row in ("O-FWD.1", "O-FWD.4", "NIC-TX.1")} == {"vm1.vcpu0"}


def test_the_refill_is_noted_in_kvm_and_done_before_the_next_access():
    steps = Driven([IN], CARD).run().steps()
    ops = [step.op for step in steps]
    noted, refilled = ops.index("park"), ops.index("flush", ops.index("park"))
    assert "vm1.coalesced.put" in {write.field for write in steps[noted].writes}
    # In between the guest has gone on, and asked for something else.
    assert {"unmask", "return_to_qemu"} <= set(ops[noted:refilled])
    assert [step.row for step in steps if "qemu-4002.e1000.rdt" in {write.field for write in step.writes}] == [
        "E1000-RX.16"
    ]


# The mitigation timer


def test_a_cause_that_comes_while_the_timer_runs_waits_for_it():
    world = Driven(burst(2), CARD).run(without=["mitigation"])
    assert world.cell("qemu-4002.e1000.timer") == 1
    world.run()
    assert world.cell("qemu-4002.e1000.timer") == 0
    assert world.simulation.dropped() == {}


def test_in_simulated_time_a_burst_has_fewer_interrupts_than_packets():
    world = Driven(burst(64), CARD).run(scheduler=BySimulatedTime())
    found = world.counters()
    assert 1 <= found["interrupts"] < 64
    # 128 microseconds lie between two rises of the line.
    assert found["interrupts"] <= 1 + max(thread.me.clock for thread in world.machine.threads) // 128_000 + 1


# Its rows

SHARED = {
    **{f"E1000-TX.{n}": "G-TX, the same as for any card" for n in (1, 2, 3)},
    **{f"E1000-RX.{n}": f"row {n + 5} of E1000-TX: handler and end of interrupt" for n in (9, 10, 11, 12)},
    **{f"E1000-RX.{n}": "rows 19 and 20 of E1000-TX: the end of the poll" for n in (17, 18)},
}
"""Rows of the tables that are told under another name, and under which."""


def steps(items, *settings):
    return Driven(items, CARD, *settings).run().steps()


def test_every_row_happens():
    wanted = {f"E1000-TX.{n}" for n in range(1, 21)} | {f"E1000-RX.{n}" for n in range(1, 19)}
    happened = {step.row for step in steps(PING) if step.row.startswith("E1000")}
    assert happened == wanted - set(SHARED)


OUTWARD = ["sent", "in-ring", "notified", "backend-awake", "fetched", "at-tap", "at-switch", "used", "completed"]
INWARD = ["from-wire", "at-switch", "at-tap", "backend-awake", "in-guest-buffer"]
INWARD += ["used", "interrupted", "polled", "received"]


def test_a_packet_passes_the_same_milestones_as_with_a_virtqueue():
    found = steps(PING)
    outward = [step.milestone for step in found if step.packet == 1 and step.milestone]
    inward = [step.milestone for step in found if step.packet == 2 and step.milestone]
    assert [m for m in outward if m != "on-wire"] == OUTWARD
    assert "on-wire" in outward
    assert inward == INWARD


WORLDS = ({}, {"profile": "recorded", "vcpu": "halted"}, {"machine": "q35", "apicv": "off", "guest_if": "off"})


@pytest.mark.parametrize("settings", WORLDS, ids=str)
def test_every_step_is_cited_and_its_text_fits_into_two_lines_of_a_terminal(settings):
    for step in steps([*PING, *burst(20, outgoing=False)], settings):
        assert step.function
        assert step.source.count(" ") >= 1
        assert step.title
        assert step.text.endswith(".")
        assert "{" not in step.text
        assert len(textwrap.wrap(step.text, 78)) <= 2, step.text


def test_texts_of_outcomes_that_no_run_here_takes_fit_as_well():
    for arc in Driven(PING, CARD).machine.program.arcs:
        assert len(text_for(arc.op, arc.outcome)) <= 2 * 78, arc.op.path
