"""Worlds in simulated time: rates, delays, who was busy, and what is published beside them."""

from __future__ import annotations

import io
import json

import jsonschema
import pytest

from virtviz.export.compared import comparison_schema
from virtviz.export.costs import costs_json, write_costs
from virtviz.export.timing import timing_json, write_timing_table
from virtviz.paths.costs import CONFIDENCE, load_costs, profile_names
from virtviz.paths.traffic import Item, make_traffic
from virtviz.study.subjects import Frames, read_subject
from virtviz.study.timing import arrivals_of, measure, published

BURSTS = Frames(packets=128, burst=64)


def measured(text, frames=BURSTS, **settings):
    return measure(read_subject(text), frames, [{name: str(value) for name, value in settings.items()}])


@pytest.fixture(scope="module")
def both():
    return [measured("vhost-net"), measured("virtio-qemu,ioeventfd=off")]


# Figures


def test_delays_are_from_the_beginning_to_the_end_of_a_packets_way():
    traffic = make_traffic([Item(), Item(outgoing=False, answers=0)], rounds=3)
    passed = [
        ("sent", 1, 10), ("in-ring", 1, 11), ("on-wire", 1, 110), ("from-wire", 2, 200), ("received", 2, 260),
        ("sent", 3, 300), ("on-wire", 3, 410), ("from-wire", 4, 500), ("received", 4, 600),
        ("sent", 5, 700), ("on-wire", 5, 1110), ("from-wire", 6, 1200), ("drop", 0, 0),
    ]  # fmt: skip
    out, back = arrivals_of(passed, traffic)
    assert (out.way, out.packets, out.arrived) == ("out", 3, 3)
    assert (out.first_ns, out.p50_ns, out.p95_ns) == (100, 110, 410)
    # Two intervals between three arrivals, in 1,000 ns.
    assert out.pps == 2_000_000
    assert (back.way, back.packets, back.arrived, back.first_ns) == ("in", 3, 2, 60)


def test_a_lone_packet_has_a_delay_and_no_rate():
    (out, back) = measured("vhost-net", Frames()).arrivals
    assert (out.arrived, back.arrived) == (1, 1)
    assert out.pps == back.pps == 0
    assert out.first_ns == out.p50_ns == out.p95_ns > 2000


def test_between_two_machines_a_packet_arrives_at_the_other_program():
    traffic = make_traffic([Item(to_vm=1)])
    (across,) = arrivals_of([("sent", 1, 5), ("received", 1, 95)], traffic)
    assert (across.way, across.arrived, across.first_ns) == ("across", 1, 90)


def test_every_packet_of_a_burst_arrives_and_threads_work_in_parallel(both):
    for timing in both:
        (out,) = timing.arrivals
        assert (out.packets, out.arrived) == (128, 128)
        assert max(busy.ns for busy in timing.busy) <= timing.duration_ns < sum(busy.ns for busy in timing.busy)


def test_heavy_exits_make_the_vcpu_the_bottleneck(both):
    vhost, heavy = both
    assert heavy.arrivals[0].pps < vhost.arrivals[0].pps
    busiest = max(heavy.busy, key=lambda busy: busy.ns)
    assert (busiest.thread, busiest.kind) == ("vm1.vcpu0", "vcpu")


def test_dearer_wake_ups_lengthen_a_lone_packets_delay():
    quick, slow = (measured("vhost-net", Frames(), costs=name) for name in ("estimates", "cloud-vm-2026"))
    more = (
        load_costs("cloud-vm-2026").nanoseconds["wakeup-latency"]
        - load_costs("estimates").nanoseconds["wakeup-latency"]
    )
    assert slow.arrivals[0].first_ns > quick.arrivals[0].first_ns + 0.9 * more


def test_the_same_run_takes_the_same_time():
    assert timing_json([measured("vhost-net")]) == timing_json([measured("vhost-net")])


# What is published


def test_every_published_rate_says_where_it_is_from_or_that_nothing_was_found():
    for path in ("vhost-net", "virtio-qemu", "e1000", "vhost-user"):
        for way in ("out", "in"):
            for rate in published(path, way):
                assert rate.what
                assert (rate.confidence in CONFIDENCE and rate.source) or (rate.low is None and not rate.source)


def test_those_of_the_path_come_before_the_general_ones():
    found = [rate.path for rate in published("vhost-net", "out")]
    assert found == sorted(found, key=lambda path: path == "any")
    assert found[0] == "vhost-net"
    assert [rate.low for rate in published("virtio-qemu", "in") if rate.path != "any"] == [None]


# How it is written


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_shows_rate_delay_threads_and_assumptions(both, width):
    out = io.StringIO()
    write_timing_table(out, both, width)
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    for said in (
        "packets a second",
        "p50",
        "p95",
        "vm1.vcpu0",
        "published, to be held beside it",
        "cost profile estimates",
    ):
        assert said in text
    assert "0.91 to 1.08 Mpps" in text


def test_the_json_fits_the_schema(both):
    document = json.loads(timing_json(both))
    jsonschema.validate(document, comparison_schema())
    assert [world["arrivals"][0]["arrived"] for world in document["worlds"]] == [128, 128]
    assert document["worlds"][0]["world"]["schedule"] == "time"


@pytest.mark.parametrize("name", profile_names())
@pytest.mark.parametrize("width", [80, 160])
def test_a_profile_is_a_table_of_every_figure_with_its_source(name, width):
    profile = load_costs(name)
    out = io.StringIO()
    write_costs(out, profile, width)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    for key, cost in profile.costs.items():
        assert any(line.startswith(key) and f" {cost.ns}  {cost.confidence}  " in line for line in lines)
    assert json.loads(costs_json(profile))["costs"]["step"]["ns"] == 5
