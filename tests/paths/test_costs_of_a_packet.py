"""What one lone packet costs in the default world, flow known and flow unknown."""

from __future__ import annotations

import pytest
from driving import IN, KNOWN, OUT, Driven, Item, Pause

from virtviz.engine.counters import COUNTERS, of_crossing, of_effect

LONE_OUT = {
    "light_exits": 1,
    "heavy_exits": 0,
    "guest_host": 2,
    "wakeups": 1,
    "vcpu_wakeups": 0,
    "host_syscalls": 0,
    "user_kernel.host": 0,
    "guest_syscalls": 1,
    "user_kernel.guest": 2,
    "host_copies": 1,
    "guest_copies": 1,
    "interrupts": 1,
    "hw_interrupts": 0,
    "eventfd_signals": 2,
    "dma": 1,
    "upcalls": 0,
    "drops": 0,
}
LONE_IN = {
    "light_exits": 0,
    "heavy_exits": 0,
    "guest_host": 0,
    "wakeups": 1,
    "vcpu_wakeups": 0,
    "host_syscalls": 0,
    "user_kernel.host": 0,
    "guest_syscalls": 1,
    "user_kernel.guest": 2,
    "host_copies": 1,
    "guest_copies": 2,
    "interrupts": 1,
    "hw_interrupts": 1,
    "eventfd_signals": 1,
    "dma": 1,
    "upcalls": 0,
    "drops": 0,
}
UPCALL = {"wakeups": 1, "host_syscalls": 9, "user_kernel.host": 18, "host_copies": 3, "upcalls": 1}


def costs(items, *settings):
    return Driven(items, *settings).run().counters()


def more(counters, base):
    return {name: n - base[name] for name, n in counters.items() if n != base[name]}


def test_every_counter_is_checked_here():
    assert set(LONE_OUT) == set(LONE_IN) == set(COUNTERS)


def test_a_lone_packet_out():
    assert costs([OUT], KNOWN) == LONE_OUT


def test_a_lone_packet_in():
    assert costs([IN], KNOWN) == LONE_IN


def test_a_ping_is_a_packet_out_and_a_packet_in():
    ping = costs([Item(), Item(outgoing=False, answers=0)], KNOWN)
    assert ping == {name: LONE_OUT[name] + LONE_IN[name] for name in COUNTERS}


@pytest.mark.parametrize(("items", "base"), [([OUT], LONE_OUT), ([IN], LONE_IN)], ids=["out", "in"])
def test_the_first_packet_of_a_flow_adds_an_upcall(items, base):
    assert more(costs(items), base) == UPCALL


def test_a_stale_flow_count_adds_two_system_calls():
    assert more(costs([OUT], {"ovs_flow_count": "stale"}), LONE_OUT) == UPCALL | {
        "host_syscalls": 11,
        "user_kernel.host": 22,
    }


def test_the_second_packet_of_a_flow_does_not_ask_again():
    two = costs([OUT, Pause(), OUT])
    assert two == {name: 2 * LONE_OUT[name] + UPCALL.get(name, 0) for name in COUNTERS}


def test_a_halted_guest_adds_an_exit_and_a_wake_up_of_its_thread():
    assert more(costs([IN], KNOWN, {"vcpu": "halted"}), LONE_IN) == {
        "light_exits": 1,
        "guest_host": 2,
        "vcpu_wakeups": 1,
    }


def test_without_apicv_the_running_guest_is_kicked_out_for_its_interrupt():
    # By default the worker runs when the guest has gone on; the kick IPI is one exit.
    assert more(costs([OUT], KNOWN, {"apicv": "off"}), LONE_OUT) == {"light_exits": 1, "guest_host": 2}


def test_without_transmit_napi_a_lone_packet_has_no_interrupt():
    world = Driven([OUT, Pause(), OUT], KNOWN, {"napi_tx": "off"})
    world.step_until("own_work")
    first = world.counters()
    second = more(world.run().counters(), first)
    assert "interrupts" not in second
    assert (second["light_exits"], second["wakeups"], second["eventfd_signals"]) == (1, 1, 1)


def test_counters_are_the_sums_over_the_steps():
    world = Driven([Item(), Item(outgoing=False, answers=0)]).run()
    total = dict.fromkeys(COUNTERS, 0)
    for step in world.steps():
        for crossing in step.crossings:
            for name, n in of_crossing(crossing.kind, crossing.side).items():
                total[name] += n
        for effect in step.effects:
            for name, n in of_effect(effect.kind, effect.side, effect.target_kind).items():
                total[name] += n
    assert total == world.counters()


def test_a_guest_that_polls_while_it_waits_never_leaves_for_a_packet_in():
    steps = Driven([IN], KNOWN).run().steps()
    assert not [crossing for step in steps for crossing in step.crossings if "vm-" in crossing.kind]


def test_qemu_runs_for_no_packet():
    world = Driven([Item(), Item(outgoing=False, answers=0)]).run()
    assert not [step for step in world.steps() if step.place == "qemu"]
    assert world.counters()["heavy_exits"] == 0
