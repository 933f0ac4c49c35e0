"""Places, borders and what is crossed between them; counters as sums of it."""

from __future__ import annotations

import itertools

import pytest
from toy import make_toy

from virtviz.engine import counters
from virtviz.engine.effects import EFFECT_OF_OUTCOME, EffectKind
from virtviz.engine.places import BORDERS, CrossingKind, Domain, Place, Role, Side, crossing_between, crossing_side
from virtviz.engine.threads import ThreadKind
from virtviz.errors import NoBorderError

GU, GK, HK, HU, HW = Domain


def place(domain: Domain, role: Role = Role.PLAIN) -> Place:
    return Place(f"{role} in {domain}", domain, "a place", role)


@pytest.mark.parametrize(
    ("source", "target", "kind"),
    [
        (place(GU), place(GK), CrossingKind.SYSCALL_ENTER),
        (place(GK), place(GU), CrossingKind.SYSCALL_RETURN),
        (place(GU, Role.CPU), place(GK), CrossingKind.IRQ_ENTER),
        (place(GK, Role.CPU), place(GU), CrossingKind.IRQ_RETURN),
        (place(GK), place(HK, Role.HYPERVISOR), CrossingKind.VM_EXIT),
        (place(GU), place(HK, Role.HYPERVISOR), CrossingKind.VM_EXIT),
        (place(HK, Role.HYPERVISOR), place(GK), CrossingKind.VM_ENTRY),
        (place(HK, Role.HYPERVISOR), place(GU), CrossingKind.VM_ENTRY),
        (place(HK, Role.HYPERVISOR), place(HU, Role.VCPU_USER), CrossingKind.KVM_RUN_RETURN),
        (place(HU, Role.VCPU_USER), place(HK, Role.HYPERVISOR), CrossingKind.KVM_RUN_ENTER),
        (place(HU), place(HK), CrossingKind.SYSCALL_ENTER),
        (place(HK), place(HU), CrossingKind.SYSCALL_RETURN),
        (place(HK), place(HK), None),
    ],
)
def test_what_is_crossed_follows_from_domains_and_gates(source: Place, target: Place, kind: CrossingKind | None):
    assert crossing_between(source, target) is kind


def test_the_guest_is_left_and_entered_through_the_hypervisor_only():
    for guest in (GU, GK):
        with pytest.raises(NoBorderError):
            crossing_between(place(guest), place(HK))
        with pytest.raises(NoBorderError):
            crossing_between(place(HK), place(guest))


def test_hardware_borders_on_nothing_and_guests_not_on_host_programs():
    for domain in Domain:
        if domain is not HW:
            assert (domain, HW) not in BORDERS
            assert (HW, domain) not in BORDERS
    assert (GU, HU) not in BORDERS
    assert (GK, HU) not in BORDERS


def test_exits_are_the_guests_and_returns_from_kvm_run_the_hosts():
    assert crossing_side(CrossingKind.VM_EXIT, GK, HK) is Side.GUEST
    assert crossing_side(CrossingKind.VM_ENTRY, HK, GK) is Side.GUEST
    assert crossing_side(CrossingKind.KVM_RUN_RETURN, HK, HU) is Side.HOST
    assert crossing_side(CrossingKind.SYSCALL_ENTER, GU, GK) is Side.GUEST
    assert crossing_side(CrossingKind.SYSCALL_ENTER, HU, HK) is Side.HOST
    assert [d.is_guest for d in Domain] == [True, True, False, False, False]
    assert [place(d).side for d in (GU, HW)] == [Side.GUEST, Side.HOST]


def test_a_heavy_exit_takes_the_light_one_back_that_began_it():
    total = dict.fromkeys(counters.COUNTERS, 0)
    for kind, side in (
        (CrossingKind.VM_EXIT, Side.GUEST),
        (CrossingKind.KVM_RUN_RETURN, Side.HOST),
        (CrossingKind.KVM_RUN_ENTER, Side.HOST),
        (CrossingKind.VM_ENTRY, Side.GUEST),
    ):
        for name, more in counters.of_crossing(kind, side).items():
            total[name] += more
    assert {k: v for k, v in total.items() if v} == {"user_kernel.host": 2, "guest_host": 2, "heavy_exits": 1}


def test_interrupts_entering_and_leaving_add_to_no_counter():
    for kind, side in itertools.product((CrossingKind.IRQ_ENTER, CrossingKind.IRQ_RETURN), Side):
        assert not counters.of_crossing(kind, side)


@pytest.mark.parametrize(
    ("kind", "side", "target", "counter"),
    [
        (EffectKind.WAKEUP, Side.HOST, ThreadKind.HOST, "wakeups"),
        (EffectKind.WAKEUP, Side.HOST, ThreadKind.VCPU, "vcpu_wakeups"),
        (EffectKind.COPY, Side.HOST, "", "host_copies"),
        (EffectKind.COPY, Side.GUEST, "", "guest_copies"),
        (EffectKind.EVENTFD_SIGNAL, Side.HOST, "", "eventfd_signals"),
        (EffectKind.IRQ_INJECT, Side.HOST, ThreadKind.VCPU, "interrupts"),
        (EffectKind.HW_IRQ, Side.HOST, ThreadKind.HOST, "hw_interrupts"),
        (EffectKind.DMA, Side.HOST, "", "dma"),
        (EffectKind.UPCALL, Side.HOST, "", "upcalls"),
        (EffectKind.DROP, Side.GUEST, "", "drops"),
    ],
)
def test_each_effect_adds_one_to_its_counter(kind: EffectKind, side: Side, target: str, counter: str):
    assert dict(counters.of_effect(kind, side, target)) == {counter: 1}


def test_finding_a_thread_awake_and_waking_a_guest_process_are_shown_but_not_counted():
    assert not counters.of_effect(EffectKind.ALREADY_AWAKE, Side.HOST, ThreadKind.HOST)
    assert not counters.of_effect(EffectKind.GUEST_WAKEUP, Side.GUEST, "")


def test_every_effect_has_an_outcome_that_says_so():
    assert {kind for kind, _ in EFFECT_OF_OUTCOME.values()} == set(EffectKind)


def test_counters_are_sums_over_arcs():
    machine = make_toy(3).machine
    machine.run(held={0})
    machine.run()
    assert {k: v for k, v in counters.count(machine.program.arcs, machine.hits).items() if v} == {
        "user_kernel.guest": 6,
        "guest_host": 6,
        "light_exits": 3,
        "guest_syscalls": 3,
        "wakeups": 1,
        "interrupts": 1,
        "host_copies": 3,
    }


def test_nested_counters_are_grouped_by_what_stands_before_the_dot():
    assert counters.nested({"a.x": 1, "a.y": 2, "b": 3}) == {"a": {"x": 1, "y": 2}, "b": 3}
