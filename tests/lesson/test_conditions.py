"""Conditions, tried on a real run: a ping, its answer, and two packets more."""

from __future__ import annotations

import pytest

from virtviz.engine.counters import count
from virtviz.engine.trace import Trace
from virtviz.lesson.conditions import Matcher, begins_with, comparison, is_called, is_field, is_packet
from virtviz.lesson.model import When
from virtviz.paths.describe import describe
from virtviz.paths.knobs import make_world
from virtviz.paths.traffic import Item, make_traffic
from virtviz.paths.wiring import simulate


class Ran:
    """A run, its steps, and all counters after each."""

    def __init__(self, rounds: int = 1) -> None:
        items = [Item("echo"), Item("reply", outgoing=False, answers=0), Item("burst.1"), Item("burst.2")]
        simulation = simulate(make_world({"flows": "known"}), make_traffic(items, rounds))
        machine = simulation.machine
        machine.run()
        trace = Trace(machine)
        self.header = describe(simulation)
        self.steps, self.counters = [], []
        for n in range(1, len(trace) + 1):
            self.steps.append(trace.step(n))
            self.counters.append(count(machine.program.arcs, machine.hits))

    def matching(self, **keys) -> list:
        """Give the steps that match a condition."""
        matcher = Matcher(When(**keys), self.header)
        return [s for s, c in zip(self.steps, self.counters, strict=True) if matcher.matches(s, c)]

    def fired(self, **keys) -> list[int]:
        """Give the steps at which a condition fires."""
        matcher = Matcher(When(**keys), self.header)
        return [s.n for s, c in zip(self.steps, self.counters, strict=True) if matcher.feed(s, c)]


@pytest.fixture(scope="module")
def ran():
    return Ran()


@pytest.mark.parametrize(
    ("keys", "holds"),
    [
        ({"op": "publish_avail_idx"}, lambda s: s.op == "publish_avail_idx"),
        ({"outcome": "no kick"}, lambda s: s.outcome == "no kick"),
        ({"milestone": "at-tap"}, lambda s: s.milestone == "at-tap"),
        ({"domain": "guest-user"}, lambda s: s.domain == "guest-user"),
        ({"place": "virtio_net"}, lambda s: s.place == "vm1.virtio_net"),
        ({"place": "vm1.virtio_net"}, lambda s: s.place == "vm1.virtio_net"),
        ({"queue": "receiveq1"}, lambda s: s.queue == "vm1.receiveq1"),
        ({"thread": "vhost"}, lambda s: s.thread == "vhost-4002"),
        ({"thread": "vcpu"}, lambda s: s.thread == "vm1.vcpu0"),
        ({"thread": "softirq"}, lambda s: s.thread == "softirq/cpu1"),
        ({"packet": "echo"}, lambda s: s.packet == 1),
        ({"packet": "burst"}, lambda s: s.packet in (3, 4)),
        ({"packet": "burst.2"}, lambda s: s.packet == 4),
        ({"packet": 2}, lambda s: s.packet == 2),
        ({"crossing": "vm-exit"}, lambda s: [c.kind for c in s.crossings] == ["vm-exit"]),
        ({"effect": "copy"}, lambda s: [e.kind for e in s.effects] == ["copy"]),
        ({"field": "avail.idx"}, lambda s: any(w.field == "avail.idx" for w in s.writes)),
        (
            {"field": "transmitq1.used.idx"},
            lambda s: any(w.field == "used.idx" and "tx" not in w.owner and "transmit" in w.owner for w in s.writes),
        ),
        ({"field": "avail.ring"}, lambda s: any(w.field.startswith("avail.ring[") for w in s.writes)),
        ({"field": "avail.ring[1]"}, lambda s: any(w.field == "avail.ring[1]" for w in s.writes)),
        ({"field": "vm1.transmitq1.num_free"}, lambda s: any(w.field == "vm1.transmitq1.num_free" for w in s.writes)),
        ({"field": "transmitq1.num_free"}, lambda s: any(w.field == "vm1.transmitq1.num_free" for w in s.writes)),
        ({"op": "kick", "packet": "burst"}, lambda s: s.op == "kick" and s.packet in (3, 4)),
        ({"any": [When(op="kick"), When(milestone="used")]}, lambda s: s.op == "kick" or s.milestone == "used"),
        ({"thread": "vhost", "any": [When(packet=1)]}, lambda s: s.thread == "vhost-4002" and s.packet == 1),
    ],
    ids=lambda value: None if callable(value) else str(value),
)
def test_a_condition_matches_the_steps_that_have_all_it_asks_for(ran, keys, holds):
    expected = [s.n for s in ran.steps if holds(s)]
    assert expected, "the run has no such step"
    assert [s.n for s in ran.matching(**keys)] == expected


def test_a_condition_fires_once_at_the_first_step_that_matches(ran):
    assert ran.fired(op="publish_avail_idx") == [ran.matching(op="publish_avail_idx")[0].n]


def test_nth_counts_the_steps_that_match(ran):
    matching = ran.matching(op="read_avail_idx", thread="vhost")
    assert ran.fired(op="read_avail_idx", thread="vhost", nth=3) == [matching[2].n]
    assert ran.fired(op="read_avail_idx", thread="vhost", nth=len(matching) + 1) == []


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (">= 2", lambda n: n >= 2),
        ("2", lambda n: n == 2),
        (2, lambda n: n == 2),
        ("<1", lambda n: n < 1),
        ("!= 0", bool),
    ],
)
def test_counters_are_compared_after_the_step(ran, wanted, fits):
    expected = [s.n for s, c in zip(ran.steps, ran.counters, strict=True) if fits(c["host_copies"])]
    assert [s.n for s in ran.matching(counter={"host_copies": wanted})] == expected


def test_a_condition_may_be_about_counters_alone(ran):
    assert ran.fired(counter={"light_exits": ">= 2", "user_kernel.host": 0}) == [
        next(s.n for s, c in zip(ran.steps, ran.counters, strict=True) if c["light_exits"] >= 2)
    ]


def test_names_of_packets_mean_those_of_every_round_and_numbers_one():
    ran = Ran(rounds=2)
    assert {s.packet for s in ran.matching(packet="burst")} == {3, 4, 7, 8}
    assert {s.packet for s in ran.matching(packet=7)} == {7}


def test_names_match_as_people_write_them():
    assert is_called("vm1.transmitq1", "transmitq1")
    assert not is_called("vm1.transmitq1", "q1")
    assert begins_with("vm1.vcpu0", "vcpu")
    assert not begins_with("vm1.vcpu0", "")
    assert is_packet("burst.2", "burst")
    assert not is_packet("bursting", "burst")
    assert is_field("vm1.transmitq1.desc[3]", "desc")
    assert is_field("vm1.transmitq1.desc[3]", "desc[3]")
    assert not is_field("vm1.transmitq1.desc[3]", "desc[4]")
    assert not is_field("vm1.transmitq1.avail.idx", "ail.idx")


@pytest.mark.parametrize("text", ["", "two", ">= two", "=> 2", "> -1", ">= 2 or so", "1.5", "9" * 40])
def test_what_is_no_comparison_is_known_as_none(text):
    assert comparison(text) is None
