"""The cost profile: every key that an op uses is in it, and its figures keep the proportions they were chosen for."""

from __future__ import annotations

from driving import KNOWN, OUT, Driven, Item

from virtviz.engine.effects import EFFECT_OF_OUTCOME
from virtviz.engine.places import CrossingKind
from virtviz.paths.costs import load_costs

COSTS = load_costs("estimates")
NS = COSTS.nanoseconds
WORLDS = [
    {},
    {"profile": "recorded"},
    {"far_port": "dummy", "napi_tx": "off"},
    {"switch": "bridge"},
    {"tunnel": "vxlan"},
]


def test_it_says_that_it_is_an_estimate_and_where_it_comes_from():
    assert COSTS.confidence == "estimate"
    assert set(COSTS.sources) <= set(NS)
    assert all(COSTS.sources.values())


def test_every_key_that_an_op_uses_is_in_it():
    used = {op.spec.cost for world in WORLDS for op in Driven([OUT], world).machine.program.ops}
    assert used <= set(NS)


def test_every_key_in_it_is_used():
    ops = {op.spec.cost for world in WORLDS for op in Driven([OUT], world).machine.program.ops}
    effects = {kind for kind, _ in EFFECT_OF_OUTCOME.values()} | {how for _, how in EFFECT_OF_OUTCOME.values() if how}
    known = ops | {*CrossingKind} | effects
    assert {key for key in NS if key.removesuffix("-latency").removesuffix("-per-kib") not in known} == set()


def test_a_heavy_exit_costs_about_seven_light_ones():
    light = NS["vm-exit"] + NS["vm-entry"]
    assert 6 <= (light + NS["kvm-run-return"] + NS["kvm-run-enter"]) / light <= 8


def test_wake_ups_dominate_the_way_of_a_single_packet():
    steps = Driven([Item(), Item(outgoing=False, answers=0)], KNOWN).run().steps()
    whole = max(step.t_ns for step in steps)
    assert NS["wakeup-latency"] * 2 > whole / 3


def test_packets_of_a_burst_cost_less_each_than_a_lone_one():
    def per_packet(n):
        steps = Driven([Item(kind="udp", length=18)] * n, KNOWN).run().steps()
        return max(step.t_ns for step in steps) / n

    assert per_packet(32) * 2 < per_packet(1)
