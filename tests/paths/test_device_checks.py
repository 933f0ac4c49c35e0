"""A malformed ring on the whole path: the step that meets it says the verdict of whoever checks, and nothing stalls."""

from __future__ import annotations

from collections import Counter

import pytest
from driving import IN, KNOWN, OUT, Driven, Pause

from virtviz.errors import KnobError
from virtviz.paths.knobs import KNOBS, make_world
from virtviz.paths.traffic import Poke
from virtviz.ring.verdicts import IGNORED, NAMES, RESET, ROWS, STOPS, what_of

NEXT, WRITE, INDIRECT = 1, 2, 4
SIZE = 32
SMALL = KNOWN | {"queue.size": SIZE, "tx_stop_threshold": 8}
CHECKS = KNOBS["device_checks"].choices
DESC, BUFFER, LENGTH = 0x4000, 0x8000, 60
"""Somewhere in guest memory: a descriptor table and a buffer; only where they lie in the world counts."""


def desc(number, **fields):
    return {f"desc[{number}].{name}": value for name, value in fields.items()}


def table(*entries, length=0, flags=INDIRECT, **more):
    """Let descriptor 0 refer to the descriptors from 8 on, which nobody uses, as to a table."""
    found = desc(0, addr=TABLE_AT["tx"], len=length or 16 * len(entries), flags=flags, **more)
    for number, (flag, follows) in enumerate(entries, 8):
        found |= desc(number, addr=BUFFER, len=LENGTH, flags=flag, next=follows)
    return found


_PROBE = Driven([OUT], SMALL)
TABLE_AT = {"tx": _PROBE.vm.tx_layout.desc + 16 * 8}
LONG = [(NEXT, i + 1) for i in range(SIZE - 9)]

STATES = {
    ("tx", "avail.idx jumped"): {"avail.idx": SIZE + 4},
    ("tx", "head out of range"): {"avail.ring[0]": SIZE},
    ("tx", "next out of range"): desc(0, flags=NEXT, next=999),
    ("tx", "descriptor loop"): desc(0, flags=NEXT, next=0),
    ("tx", "longer than the queue"): table((NEXT, 1), (0, 0), length=16 * (SIZE + 1)),
    ("tx", "readable after writable"): desc(0, flags=NEXT | WRITE, next=1),
    ("tx", "zero length"): desc(0, len=0, flags=NEXT, next=1),
    ("tx", "indirect not negotiated"): table((0, 0)),
    ("tx", "indirect and next"): table((0, 0), flags=INDIRECT | NEXT, next=1),
    ("tx", "indirect later in a chain"): table((0, 0), flags=NEXT, next=1)
    | desc(0, addr=BUFFER, len=LENGTH)
    | desc(1, addr=TABLE_AT["tx"], len=16, flags=INDIRECT),
    ("tx", "indirect inside indirect"): table((INDIRECT, 0)),
    ("tx", "indirect length"): table((0, 0), length=17),
    ("tx", "table outside memory"): desc(0, addr=1 << 40, len=16, flags=INDIRECT),
    ("tx", "address outside memory"): desc(0, addr=1 << 40, len=5000),
    ("tx", "no header"): desc(0, flags=WRITE),
    ("tx", "writable while sending"): desc(0, flags=NEXT, next=1) | desc(1, flags=WRITE),
    ("tx", "header incomplete"): desc(0, len=8),
    ("tx", "nothing to send"): desc(0, len=12),
    ("rx", "avail.idx jumped"): {"avail.idx": 9999},
    ("rx", "head out of range"): {"avail.ring[0]": SIZE},
    ("rx", "address outside memory"): desc(0, addr=1 << 40, len=5000),
    ("rx", "descriptor loop"): desc(0, flags=WRITE | NEXT, next=0),
    ("rx", "nothing writable"): desc(0, flags=0),
    ("rx", "readable while receiving"): desc(0, flags=NEXT, next=1),
    ("rx", "no room for the header"): desc(0, len=8),
}
"""Queue and malformed state -> the fields that make it."""
ELSEWHERE = {
    *("too many pieces", "too many in flight", "chain not available"),
    *("ring ran dry", "too many buffers", "command incomplete", "not ready", "queue not allowed"),
    *("used id out of range", "used id not outstanding"),
}
"""Tested on the ring alone, or of a kind that this path has not: packed rings, a control queue, the driver's side."""
OTHER_NAMES = {("table outside memory", "vhost"): "address outside memory"}
"""vhost does not tell a table from any other piece of memory."""
LETS_PASS = {("nothing to send", "qemu")}
"""With a TAP, which reads the virtio-net header, QEMU lets a frame of no bytes pass (virtio_net_flush_tx)."""
ALLOWED = {("indirect later in a chain", "strict")}
"""The specification allows it (2.7.5.3.2), so there is nothing to say."""
APART = 120
"""Steps between two positions that are compared."""

every_state = pytest.mark.parametrize(("queue", "problem"), STATES)
every_check = pytest.mark.parametrize("checks", CHECKS)


def events(queue, problem):
    name = "transmitq1" if queue == "tx" else "receiveq1"
    pokes = [Poke(name, field, value) for field, value in STATES[queue, problem].items()]
    return [OUT, OUT, *pokes, OUT, IN] if queue == "tx" else [*pokes, IN, OUT, IN]


def broken(queue, problem, checks, **more):
    features = "event_idx,mergeable" if problem == "indirect not negotiated" else "event_idx,indirect,mergeable"
    return Driven(events(queue, problem), SMALL | {"device_checks": checks, "features": features}, **more)


def met(queue, problem, checks):
    """Run until the malformed state was met; answers the step."""
    world = broken(queue, problem, checks)
    assert world.machine.run(60_000) < 60_000
    name = OTHER_NAMES.get((problem, checks), problem)
    return name, next(step for step in world.steps() if f"{name}. Verdict" in step.text)


def test_every_state_is_met_here_or_elsewhere():
    assert {problem for _, problem in STATES} | ELSEWHERE == set(NAMES)


@every_check
@every_state
def test_the_step_that_meets_it_says_what_why_and_the_verdict(queue, problem, checks):
    if (problem, checks) in ALLOWED:
        assert not [step for step in broken(queue, problem, checks).run().steps() if "Verdict" in step.text]
        return
    name, step = met(queue, problem, checks)
    expected = IGNORED if (problem, checks) in LETS_PASS else what_of(problem, checks)
    assert f"Verdict, {expected}" in step.text
    assert ROWS[name].why in step.text
    assert (step.outcome == expected) == (expected != IGNORED)
    if expected == RESET:
        assert f"prints “{ROWS[name].message.split('{')[0]}" in step.text or not ROWS[name].message
    assert ("prints nothing" in step.text) == (expected == STOPS or (expected == RESET and not ROWS[name].message))


@every_check
@every_state
def test_undo_is_exact_and_nothing_runs_for_ever(queue, problem, checks):
    world = broken(queue, problem, checks)
    machine = world.machine
    seen = {0: machine.digest()}
    while machine.run(APART):
        assert machine.length < 60_000
        seen[machine.position] = machine.digest()
    while machine.back():
        if machine.position in seen:
            assert machine.digest() == seen[machine.position]
    machine.seek(machine.length)
    assert machine.digest() == seen[machine.length]


@every_check
@every_state
def test_counting_equals_recording(queue, problem, checks):
    def hits(*, recording):
        world = broken(queue, problem, checks, recording=recording)
        world.machine.run(60_000)
        arcs = world.machine.program.arcs
        return Counter({(arcs[i].op.path, arcs[i].outcome): n for i, n in enumerate(world.machine.hits) if n})

    assert hits(recording=True) == hits(recording=False)


@every_state
def test_with_vhost_the_other_queue_is_served_all_the_same(queue, problem):
    world = broken(queue, problem, "vhost")
    world.machine.run(60_000)
    if queue == "tx":
        assert world.cell("vm1.program.received") == 1
    else:
        assert world.u16("used_idx") == 1


def worked(world):
    """Say what the worker took from its list, and when it slept."""
    return [outcome for _, outcome in world.ops() if outcome in ("handle_tx_kick", "sleep")]


def test_vhost_tries_again_at_the_next_kick():
    mended = [Pause(), Poke("transmitq1", "avail.ring[0]", 0)]
    events = [OUT, Poke("transmitq1", "avail.ring[0]", SIZE), *mended, OUT]
    world = Driven(events, SMALL).run()
    # Nobody asked for a kick, so the second frame does not bring one, and both lie in the ring.
    assert worked(world) == ["handle_tx_kick", "sleep"]
    assert (world.u16("avail_idx"), world.u16("used_idx")) == (2, 0)
    world = Driven([*events[:-1], Poke("transmitq1", "avail_event", 1), OUT], SMALL).run()
    assert worked(world) == ["handle_tx_kick", "sleep"] * 2
    assert (world.u16("avail_idx"), world.u16("used_idx")) == (2, 2)
    assert world.simulation.dropped() == {"vhost-4002.errors": 1}


@pytest.mark.parametrize("checks", ["qemu", "strict"])
def test_a_device_that_needs_a_reset_serves_no_queue_any_more(checks):
    events = [OUT, Poke("transmitq1", "avail.ring[0]", SIZE), Pause(), OUT, IN]
    world = Driven(events, SMALL | {"device_checks": checks}).run()
    assert ("give_up", "done") in world.ops()
    assert ("next_work", "deaf") in world.ops()
    device = [world.cell(f"vm1.device.{name}") for name in ("status", "isr", "generation")]
    assert device == [64 | 15, 3, 1]
    # Two frames lie in the transmit queue, one in the TAP; what was wrong is counted, and so is what nobody fetches.
    assert world.simulation.dropped() == {"vhost-4002.errors": 1, "vhost-4002.unserved": 3}
    assert world.cell("vm1.program.received") == 0


@every_check
def test_a_good_ring_is_served_alike_whoever_checks(checks):
    world = Driven([OUT, IN, OUT], SMALL | {"device_checks": checks}).run()
    assert world.simulation.dropped() == {}
    assert (world.u16("used_idx"), world.cell("vm1.program.received")) == (2, 1)
    assert not [step for step in world.steps() if "Verdict" in step.text]


def test_a_frame_longer_than_the_network_carries_is_dropped_and_counted():
    world = Driven([OUT, Poke("transmitq1", "desc[0].len", 5000)], SMALL).run()
    assert world.simulation.dropped() == {"tap0.rx_errors": 1}
    assert world.counters()["drops"] == 1
    assert world.u16("used_idx") == 1


# The change itself


def test_a_change_is_one_step_of_an_outside_thread_between_what_comes_before_and_after():
    events = [OUT, Poke("transmitq1", "desc[0].len", 1500), Poke("receiveq1", "used.ring[3].id", 7), OUT]
    world = Driven(events, SMALL).run()
    steps = [step for step in world.steps() if step.thread == "vm1.outside"]
    assert [(step.op, step.row, step.place, step.domain) for step in steps] == [
        ("change", "POKE.1", "outside", "hardware")
    ] * 2
    written = [(w.owner, w.field, w.size, w.new) for step in steps for w in step.writes if w.space == "mem"]
    assert written == [("vm1.transmitq1", "desc[0].len", 4, 1500), ("vm1.receiveq1", "used.ring[3].id", 4, 7)]
    assert "in transmitq1, desc[0].len is now 1500" in steps[0].text
    sent = [step.n for step in world.steps() if step.milestone == "sent"]
    assert sent[0] < steps[0].n < steps[1].n < sent[1]


def test_a_change_comes_in_every_round():
    world = Driven([OUT, Poke("transmitq1", "used_event", 1)], SMALL, rounds=3).run()
    assert [op for op, _ in world.ops()].count("change") == 3


def test_a_change_waits_for_a_pause_before_it():
    world = Driven([OUT, Pause(), Poke("transmitq1", "used_event", 1)], SMALL).run()
    ops = [op for op, _ in world.ops()]
    assert ops.index("publish_used_idx") < ops.index("change")


def test_without_changes_there_is_nobody_outside():
    assert not [thread for thread in Driven([OUT], SMALL).machine.threads if "outside" in thread.name]


# The setting


def test_a_vhost_net_that_checks_as_another_is_said_not_to_be_real():
    assert make_world().departures() == []
    for checks in ("qemu", "strict"):
        (said,) = make_world({"device_checks": checks}).departures()
        assert said == f"device_checks {checks} (in-kernel vhost-net: vhost)"
    assert "a comparison, and not real" in KNOBS["device_checks"].what
    with pytest.raises(KnobError, match="one of vhost, qemu, strict"):
        make_world({"device_checks": "none"})
