"""What one lone packet costs when QEMU's own back-end serves the queues, with and without ioeventfd, and its rows."""

from __future__ import annotations

import pytest
from driving import IN, KNOWN, OUT, Driven, Item, Pause

from virtviz.engine.counters import COUNTERS
from virtviz.engine.effects import EffectKind
from virtviz.engine.places import CrossingKind

QEMU = KNOWN | {"path": "virtio-qemu"}
HEAVY = QEMU | {"ioeventfd": "off"}
RECORDED = {"profile": "recorded"}
NOTHING = dict.fromkeys(COUNTERS, 0)

LONE_OUT = NOTHING | {
    "light_exits": 1,
    "guest_host": 2,
    "wakeups": 1,
    "host_syscalls": 4 + 1,
    "user_kernel.host": 10,
    "guest_syscalls": 1,
    "user_kernel.guest": 2,
    "host_copies": 1,
    "guest_copies": 1,
    "interrupts": 1,
    "eventfd_signals": 1,
    "dma": 1,
}
LONE_IN = NOTHING | {
    "wakeups": 1,
    "host_syscalls": 4,
    "user_kernel.host": 8,
    "guest_syscalls": 1,
    "user_kernel.guest": 2,
    "host_copies": 2,
    "guest_copies": 2,
    "interrupts": 1,
    "hw_interrupts": 1,
    "dma": 1,
}
HEAVY_OUT = LONE_OUT | {"heavy_exits": 1, "light_exits": 0, "host_syscalls": 5, "user_kernel.host": 2 * (5 + 1)}
PING = [Item(), Item(outgoing=False, answers=0)]


def costs(items, *settings):
    return Driven(items, *settings).run().counters()


def calls(items, settings):
    """Give the system calls of the host in their order: by which thread, and by which op."""
    return [
        (step.thread, step.op)
        for step in Driven(items, settings).run().steps()
        for crossing in step.crossings
        if crossing.kind is CrossingKind.SYSCALL_ENTER and crossing.side == "host"
    ]


def test_a_lone_packet_out():
    assert costs([OUT], QEMU) == LONE_OUT


def test_a_lone_packet_in():
    assert costs([IN], QEMU) == LONE_IN


def test_a_ping_is_a_packet_out_and_a_packet_in():
    assert costs(PING, QEMU) == {name: LONE_OUT[name] + LONE_IN[name] for name in COUNTERS}


def test_without_ioeventfd_the_exit_is_heavy_and_the_vcpu_thread_makes_a_system_call():
    assert costs([OUT], HEAVY) == HEAVY_OUT


def test_without_ioeventfd_a_packet_in_costs_what_it_costs_with_it():
    assert costs([IN], HEAVY) == LONE_IN


def test_without_transmit_napi_no_interrupt_is_asked_for():
    world = Driven([OUT, Pause(), OUT], QEMU, {"napi_tx": "off"})
    world.step_until("own_work")
    first = world.counters()
    second = {name: n - first[name] for name, n in world.run().counters().items()}
    assert (second["host_syscalls"], second["interrupts"], second["light_exits"], second["wakeups"]) == (4, 0, 1, 1)


@pytest.mark.parametrize("settings", [QEMU, HEAVY], ids=["ioeventfd", "no ioeventfd"])
def test_a_halted_guest_adds_an_exit_and_a_wake_up_of_its_thread(settings):
    more = costs([IN], settings, {"vcpu": "halted"})
    assert {name: n - LONE_IN[name] for name, n in more.items() if n != LONE_IN[name]} == {
        "light_exits": 1,
        "guest_host": 2,
        "vcpu_wakeups": 1,
    }


def test_the_recorded_packet_out_is_kicked_out_of_the_guest_for_its_interrupt():
    # A second exit, by an interrupt window, comes with interrupts off just then: the recordings show both.
    assert costs([OUT], RECORDED | QEMU) == LONE_OUT | {"light_exits": 2, "guest_host": 4, "dma": 0}


def test_the_recorded_packet_out_without_ioeventfd():
    found = costs([OUT], RECORDED | HEAVY)
    assert found == HEAVY_OUT | {"light_exits": 1, "guest_host": 4, "dma": 0}


def test_the_recorded_packet_in():
    found = costs([IN], RECORDED | QEMU, {"vcpu": "halted"})
    # HLT's exit; no kick IPI to a vCPU that sleeps.
    recorded = {"light_exits": 1, "guest_host": 2, "vcpu_wakeups": 1, "hw_interrupts": 0, "dma": 0}
    assert found == LONE_IN | recorded


def test_the_first_packet_of_a_flow_adds_the_same_upcall_as_with_vhost():
    found = costs([OUT], {"path": "virtio-qemu"})
    upcall = {"wakeups": 1, "host_syscalls": 9, "user_kernel.host": 18, "host_copies": 3, "upcalls": 1}
    assert {name: n - LONE_OUT[name] for name, n in found.items() if n != LONE_OUT[name]} == upcall


def test_a_packet_between_two_machines_is_a_packet_out_and_one_in_with_three_copies_and_no_card():
    found = costs([Item(kind="udp", length=18, to_vm=1)], QEMU, {"vms": 2})
    both = {name: LONE_OUT[name] + LONE_IN[name] for name in COUNTERS}
    assert found == both | {"dma": 0, "hw_interrupts": 0}
    assert found["host_copies"] == 3


# Which system calls they are


def test_a_packet_out_is_ppoll_read_ppoll_writev_and_signal_msi():
    found = [op for thread, op in calls([OUT], QEMU) if thread == "qemu-4002"]
    # The last one sleeps; the first ppoll(), which returns, was called before.
    assert found == ["read_kick", "next_handler", "send", "signal", "next_handler"]


def test_a_packet_in_is_ppoll_read_signal_msi_and_a_read_that_finds_nothing():
    assert [op for _, op in calls([IN], QEMU)] == ["begin", "signal", "count", "next_handler"]


def test_without_ioeventfd_the_bottom_half_runs_before_the_eventfd_is_read():
    found = calls([OUT], HEAVY)
    assert [op for thread, op in found if thread == "vm1.vcpu0"] == ["notify"]
    assert [op for thread, op in found if thread == "qemu-4002"] == ["send", "signal", "read_own", "next_handler"]


# Where it happens


def test_without_ioeventfd_the_packet_still_leaves_on_the_main_loop():
    steps = Driven([OUT], HEAVY).run().steps()
    assert {step.thread for step in steps if step.row in ("Q-TX.5", "Q-TX.6", "Q-TX.7", "O-FWD.4")} == {"qemu-4002"}
    assert {step.thread for step in steps if step.place == "qemu.vcpu"} == {"vm1.vcpu0"}


def test_the_switch_and_the_card_work_inside_writev():
    rows = [step.row for step in Driven([OUT], QEMU).run().steps() if step.thread == "qemu-4002"]
    at = [rows.index(row) for row in ("Q-TX.7", "O-FWD.1", "O-FWD.4", "NIC-TX.3", "Q-TX.9")]
    assert at == sorted(at)


def test_both_copies_of_a_packet_in_are_of_header_and_frame():
    copies = [
        (step.place, effect.bytes)
        for step in Driven([IN], QEMU).run().steps()
        for effect in step.effects
        if effect.kind is EffectKind.COPY and effect.side == "host"
    ]
    assert copies == [("tap0", 12 + 60), ("qemu", 12 + 60)]


# Rows

ROWS = {"G-TX": 13, "KICK": 5, "Q-TX": 12, "G-TXC": 4, "O-FWD": 4, "NIC-TX": 4, "Q-RX": 11, "G-RX": 9}


def rows_of(settings, block, items=PING):
    """Give the rows of a block as they came, each once in a row."""
    steps = Driven(items, settings).run().steps()
    numbers = [int(step.row.split(".")[1]) for step in steps if step.row.split(".")[0] == block]
    return [n for i, n in enumerate(numbers) if i == 0 or numbers[i - 1] != n]


def test_every_row_happens():
    refill = {"G-RX.6", "G-RX.7"}
    wanted = {f"{block}.{n}" for block, count in ROWS.items() for n in range(1, count + 1)} - refill
    happened = {step.row for step in Driven(PING, QEMU).run().steps()}
    assert wanted - happened == set()
    # Rows 1 and 2 of IRQ are an irqfd's, which QEMU's own back-end does not use.
    assert {row for row in happened if row.startswith("IRQ")} == {f"IRQ.{n}" for n in (3, 4, 5, 6)}
    assert not {row for row in happened if row.startswith("V-")}


def test_rows_come_in_the_order_of_their_blocks():
    assert rows_of(QEMU, "KICK") == [1, 2, 3, 4, 5]
    assert rows_of(QEMU, "Q-TX", [OUT]) == list(range(1, 13))
    assert rows_of(QEMU, "Q-RX", [IN]) == list(range(1, 12))


def test_without_ioeventfd_rows_2_and_4_of_the_main_loop_fall_away():
    steps = [step for step in Driven([OUT], HEAVY).run().steps() if step.thread == "qemu-4002"]
    assert "Q-TX.2" not in {step.row for step in steps}
    assert [step.op for step in steps if step.row == "Q-TX.4"] == ["next_handler", "begin"]
    assert rows_of(HEAVY, "KICK", [OUT]) == [1, 2, 3, 4, 5]
