"""The trace is what its description and its schema say, and its counters are the sums of its steps."""

import io
import json
from collections import Counter

import jsonschema
import pytest

from virtviz.engine.counters import count
from virtviz.export.headless import counted_totals, recorded_steps, recorded_totals, world_and_traffic
from virtviz.export.jsonl import header_json, timed_steps, write_document, write_jsonl
from virtviz.export.schema import trace_schema
from virtviz.lesson.loader import load, load_text
from virtviz.lesson.shelf import shelf
from virtviz.paths.describe import initial_state
from virtviz.paths.wiring import simulate
from virtviz.session.run import run_lesson

LESSONS = {entry.id: entry.path for entry in shelf()}

CONTRACT_STEP = [
    *("n", "t_ns", "thread", "context", "place", "domain", "op", "title", "row", "function", "source", "spec", "text"),
    *("packet", "queue", "reads", "writes", "crossings", "effects", "milestone"),
]
CONTRACT_HEADER = ["format", "format_version", "lesson", "seed", "world", "threads", "places", "state"]
CONTRACT_COUNTERS = {
    *("user_kernel", "guest_host", "heavy_exits", "light_exits", "host_syscalls", "guest_syscalls", "wakeups"),
    *("vcpu_wakeups", "interrupts", "hw_interrupts", "host_copies", "guest_copies", "dma", "eventfd_signals"),
    *("upcalls", "drops"),
}
HOLDING = """
format_version: 1
id: 99-holding
title: A held vCPU
level: beginner
minutes: 1
objectives: [See what a held vCPU changes.]
world: {flows: known}
scenario:
  - send: {id: burst, from: vm1, kind: udp, bytes: 18, count: 4}
script:
  - {id: stop, when: {milestone: notified}, hold: vm1.vcpu0}
  - {id: go, when: {milestone: used}, release: vm1.vcpu0}
"""
"""While the vCPU is held the worker becomes idle, so that the next packet has to kick again."""


@pytest.fixture(scope="module")
def validator():
    schema = trace_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture(params=LESSONS)
def lesson(request):
    return load(LESSONS[request.param])


def recorded_lesson(lesson, settings=(), packets=None):
    world, traffic = world_and_traffic(lesson, list(settings), packets)
    run = run_lesson(lesson, simulate(world, traffic), 0)
    out = io.StringIO()
    header = header_json(run.header, initial_state(run.machine))
    write_jsonl(out, header, recorded_steps(run, to_the_end=True), lambda: recorded_totals(run).json())
    return run, out.getvalue()


def test_every_line_of_a_run_fits_the_schema(recorded, validator):
    for line in recorded.text.splitlines():
        validator.validate(json.loads(line))


def test_every_line_of_every_lesson_fits_the_schema(lesson, validator):
    _, text = recorded_lesson(lesson)
    for line in text.splitlines():
        validator.validate(json.loads(line))


def test_a_run_as_one_document_fits_the_schema_and_holds_the_same(ping, validator):
    header, *_, footer = ping.text.splitlines()
    out = io.StringIO()
    write_document(out, header, timed_steps(ping.trace), lambda: footer)
    document = json.loads(out.getvalue())
    validator.validate(document)
    assert [document["header"], *document["steps"], document["footer"]] == list(map(json.loads, ping.text.splitlines()))


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        (0, '"format":"virtviz-trace"', '"format":"x"'),
        (0, '"seed":7', '"seed":"7"'),
        (3, '"kind":"copy"', '"kind":"coffee"'),
        (3, '"n":3', '"n":0'),
        (3, '"milestone":null', '"milestone":3'),
        (-1, '"upcalls":0', '"upcalls":-1'),
    ],
)
def test_the_schema_refuses_a_line_that_is_wrong(ping, validator, line, old, new):
    text = ping.text.splitlines()[line]
    assert old in text
    assert not validator.is_valid(json.loads(text.replace(old, new)))


def in_order(keys, wanted):
    found = [key for key in keys if key in wanted]
    return found == list(wanted)


def test_lines_have_the_keys_of_the_contract_in_its_order(ping):
    header, *steps, footer = map(json.loads, ping.text.splitlines())
    assert in_order(header, CONTRACT_HEADER)
    assert list(header)[:4] == ["format", "format_version", "lesson", "title"]
    for step in steps:
        assert list(step)[: len(CONTRACT_STEP)] == CONTRACT_STEP
    assert list(footer) == ["steps", "packets", "counters", "drops"]
    assert set(footer["counters"]) == CONTRACT_COUNTERS
    assert list(footer["counters"]["user_kernel"]) == ["guest", "host"]


def test_steps_are_numbered_and_the_footer_counts_them(recorded):
    _, *steps, footer = map(json.loads, recorded.text.splitlines())
    assert [step["n"] for step in steps] == list(range(1, footer["steps"] + 1))
    assert footer["packets"] == recorded.simulation.traffic.packets


def test_only_a_run_that_was_ended_says_truncated(ping):
    run, text = recorded_lesson(load(LESSONS["3-vhost"]))
    assert "truncated" not in json.loads(text.splitlines()[-1])
    run.truncated = True
    assert json.loads(recorded_totals(run).json())["truncated"] is True


def count_again(steps):
    """Count by the definitions of the words alone: how often each kind of crossing and effect occurs, by side."""
    crossed, done, woken = Counter(), Counter(), Counter()
    for step in steps:
        crossed.update((c["kind"], c["side"]) for c in step["crossings"])
        done.update((e["kind"], e["side"]) for e in step["effects"])
        woken.update(e["target_kind"] for e in step["effects"] if e["kind"] == "wakeup")

    def both(kind):
        return done[kind, "guest"] + done[kind, "host"]

    exits, heavy = crossed["vm-exit", "guest"], crossed["kvm-run-return", "host"]
    borders = ("syscall-enter", "syscall-return", "kvm-run-return", "kvm-run-enter")
    return {
        "user_kernel": {side: sum(crossed[border, side] for border in borders) for side in ("guest", "host")},
        "guest_host": exits + crossed["vm-entry", "guest"],
        "heavy_exits": heavy,
        "light_exits": exits - heavy,
        "host_syscalls": crossed["syscall-enter", "host"],
        "guest_syscalls": crossed["syscall-enter", "guest"],
        "vcpu_wakeups": woken["vcpu"],
        "wakeups": woken.total() - woken["vcpu"],
        "interrupts": both("irq-inject"),
        "hw_interrupts": both("hw-irq"),
        "host_copies": done["copy", "host"],
        "guest_copies": done["copy", "guest"],
        "dma": both("dma"),
        "eventfd_signals": both("eventfd-signal"),
        "upcalls": both("upcall"),
        "drops": both("drop"),
    }


def test_counters_are_the_sums_over_the_steps(recorded):
    _, *steps, footer = map(json.loads, recorded.text.splitlines())
    assert footer["counters"] == count_again(steps)


def test_counters_of_every_lesson_are_the_sums_over_its_steps(lesson):
    _, text = recorded_lesson(lesson)
    _, *steps, footer = map(json.loads, text.splitlines())
    assert footer["counters"] == count_again(steps)


@pytest.mark.parametrize("packets", [None, 40])
@pytest.mark.parametrize("settings", [{}, {"profile": "recorded"}, {"flows": "unknown"}, {"vcpu": "halted"}], ids=str)
def test_counting_only_gives_the_counters_of_the_recorded_run(lesson, settings, packets):
    run, _ = recorded_lesson(lesson, [settings], packets)
    world, traffic = world_and_traffic(lesson, [settings], packets)
    assert counted_totals(lesson, world, traffic) == recorded_totals(run)


def test_counting_only_follows_a_script_that_holds_a_thread_and_so_changes_what_is_counted():
    lesson = load_text(HOLDING)
    world, traffic = world_and_traffic(lesson, [])
    free = simulate(world, traffic).machine
    free.run()
    run, _ = recorded_lesson(lesson)
    assert recorded_totals(run).counters != count(free.program.arcs, free.hits)
    assert counted_totals(lesson, world, traffic) == recorded_totals(run)


def test_a_long_recorded_run_goes_on_to_its_end_when_asked_to(monkeypatch):
    lesson = load(LESSONS["3-vhost"])
    whole, text = recorded_lesson(lesson, packets=25)
    monkeypatch.setattr("virtviz.session.run.STEPS_MAX", 400)
    monkeypatch.setattr("virtviz.export.headless.STRETCH", 64)
    _, text_in_stretches = recorded_lesson(lesson, packets=25)
    assert whole.length > 1000
    assert text_in_stretches == text


def test_a_repeated_scenario_says_how_often_it_is_repeated():
    _, text = recorded_lesson(load(LESSONS["3-vhost"]), packets=12)
    header, *_, footer = map(json.loads, text.splitlines())
    assert header["rounds"] == 3
    assert footer["packets"] == 3 * len(header["packets"]) == 15


def test_a_threads_steps_follow_one_another_in_simulated_time(recorded):
    _, *steps, _ = map(json.loads, recorded.text.splitlines())
    ended = Counter()
    for step in steps:
        assert ended[step["thread"]] <= step["t_ns"] <= step["end_ns"], step
        ended[step["thread"]] = step["end_ns"]


@pytest.mark.parametrize("world", ["known flow", "unknown flow", "recorded profile", "halted vCPU"])
def test_a_lone_packets_milestones_follow_one_another_in_simulated_time(record, world):
    _, *steps, _ = map(json.loads, record(world).text.splitlines())
    reached = Counter()
    for step in steps:
        if step["packet"] and step["milestone"] not in (None, "used", "completed"):
            assert reached[step["packet"]] <= step["t_ns"], step
            reached[step["packet"]] = step["t_ns"]
