"""A malformed ring under QEMU's own back-end: the verdict is told, the device asks for a reset, and nobody hears."""

from __future__ import annotations

from collections import Counter

import pytest
from driving import IN, KNOWN, OUT, Driven, Item, Pause
from test_device_checks import BUFFER, DESC, ELSEWHERE, LENGTH, NEXT, SIZE, SMALL, STATES, TABLE_AT, desc, events

from virtviz.paths.traffic import Poke
from virtviz.ring.verdicts import IGNORED, NAMES, RESET, ROWS, what_of

QEMU = SMALL | {"path": "virtio-qemu"}
PLACES = {
    "ioeventfd": {},
    "no ioeventfd": {"ioeventfd": "off"},
    "halted, AMD": {"profile": "recorded", "vcpu": "halted"},
}
every_state = pytest.mark.parametrize(("queue", "problem"), STATES)
everywhere = pytest.mark.parametrize("settings", PLACES.values(), ids=PLACES)
NOTICED_ELSEWHERE = {("rx", "avail.idx jumped")}
"""QEMU notices it where it counts buffers, although in other places it lets it pass."""
LETS_PASS = {("tx", "nothing to send")}
"""With a TAP, which reads the virtio-net header, QEMU lets a frame of no bytes pass (virtio_net_flush_tx)."""


def expected(queue, problem):
    if (queue, problem) in NOTICED_ELSEWHERE:
        return RESET
    return IGNORED if (queue, problem) in LETS_PASS else what_of(problem, "qemu")


def broken(queue, problem, settings=(), **more):
    features = "event_idx,mergeable" if problem == "indirect not negotiated" else "event_idx,indirect,mergeable"
    return Driven(events(queue, problem), QEMU | {"features": features} | dict(settings), **more)


@everywhere
@every_state
def test_the_step_that_meets_it_says_what_why_and_the_verdict(queue, problem, settings):
    world = broken(queue, problem, settings)
    assert world.machine.run(60_000) < 60_000
    step = next(step for step in world.steps() if f"{problem}. Verdict" in step.text)
    verdict = expected(queue, problem)
    assert f"Verdict, {verdict}" in step.text
    assert ROWS[problem].why in step.text
    assert (step.outcome == verdict) == (verdict == RESET)
    if verdict == RESET:
        assert f"prints “{ROWS[problem].message.split('{')[0]}" in step.text
    if verdict == RESET:
        assert world.cell("qemu-4002.nic.broken")


@every_state
def test_a_broken_device_asks_for_a_reset_tells_the_driver_and_the_driver_does_not_care(queue, problem):
    world = broken(queue, problem).run()
    device = [world.cell(f"vm1.device.{name}") for name in ("status", "isr", "generation", "config_status")]
    if not world.cell("qemu-4002.nic.broken"):
        assert expected(queue, problem) != RESET
        assert device == [15, 0, 0, 1]
        return
    assert device[0] == 64 | 15
    assert device[1:] == [3, device[2], 1]
    assert device[2] >= 1
    ops = world.ops()
    assert ("schedule", "scheduled") in ops
    assert ("decide", "unchanged") in ops
    assert not [outcome for op, outcome in ops if op == "carrier_off"]
    # Reading the status is the one thing here that leaves the guest for QEMU.
    assert world.counters()["heavy_exits"] == sum(op == "read_status" for op, _ in ops) > 0


def test_the_order_of_an_error_is_message_status_interrupt_look():
    world = broken("tx", "head out of range").run()
    names = [op for op, _ in world.ops()]
    wanted = ["read_head", "ask_for_reset", "note_change", "signal_change", "send_msi", "take_vector", "hear"]
    wanted += ["begin", "read_status", "exit_ept_misconfig", "return_to_qemu", "get_config", "complete", "decide"]
    at = -1
    for name in wanted:
        at = names.index(name, at + 1)
    # The thread that was interrupted goes on, and what follows in the ring is not served.
    assert world.u16("used_idx") == 0


@every_state
def test_undo_is_exact_and_nothing_runs_for_ever(queue, problem):
    machine = broken(queue, problem).machine
    seen = {0: machine.digest()}
    while machine.run(150):
        assert machine.length < 60_000
        seen[machine.position] = machine.digest()
    while machine.back():
        if machine.position in seen:
            assert machine.digest() == seen[machine.position]
    machine.seek(machine.length)
    assert machine.digest() == seen[machine.length]


@every_state
def test_counting_equals_recording(queue, problem):
    def hits(*, recording):
        machine = broken(queue, problem, recording=recording).machine
        machine.run(60_000)
        return Counter({(machine.program.arcs[i].op.path, machine.program.arcs[i].outcome): n
                        for i, n in enumerate(machine.hits) if n})  # fmt: skip

    assert hits(recording=True) == hits(recording=False)


def test_a_good_ring_meets_no_verdict():
    world = Driven([OUT, IN, OUT], QEMU).run()
    assert world.simulation.dropped() == {}
    assert not [step for step in world.steps() if "Verdict" in step.text]


# Frames for and from a broken device


def test_a_frame_for_a_device_broken_while_sending_is_read_and_lost():
    world = Driven([OUT, Poke("transmitq1", "avail.ring[0]", SIZE), Pause(), IN, IN, OUT], QEMU).run()
    assert ("read_head", "dropped") in world.ops()
    assert ("count", "failed") in world.ops()
    assert world.simulation.dropped() == {"qemu-4002.errors": 1, "qemu-4002.lost": 2}
    assert world.counters()["drops"] == 2


def test_a_frame_whose_buffers_cannot_be_counted_is_kept():
    world = Driven([Poke("receiveq1", "avail.ring[0]", SIZE), IN, IN, OUT], QEMU).run()
    assert ("find_buffers", "needs reset") in world.ops()
    assert ("count", "kept") in world.ops()
    assert world.cell("qemu-4002.read_poll") == 0
    assert world.simulation.dropped() == {"qemu-4002.errors": 1}


def test_the_bottom_half_asks_for_a_kick_in_vain():
    world = Driven([OUT, OUT, Poke("transmitq1", "avail.ring[1]", SIZE)], QEMU).run()
    assert ("read_avail_idx", "still broken") in world.ops()
    # virtqueue_pop() gives nothing, so virtio-net takes the queue for empty and turns kicks on.
    assert (world.u16("used_idx"), world.u16("avail_event")) == (1, 2)


def test_a_buffer_that_virtio_net_refuses_ends_the_bottom_half_at_once():
    world = Driven([OUT, Poke("transmitq1", "desc[0].len", 8)], QEMU).run()
    assert ("after_error", "buffer") in world.ops()
    assert ("enable_kicks", "done") not in world.ops()
    assert world.cell("qemu-4002.transmitq1.ring.in_flight") == 0


# avail.idx


@pytest.mark.parametrize("jump", [SIZE + 1, 300, 65535])
def test_while_sending_a_jump_is_bounded_by_the_index_itself_and_by_the_burst(jump):
    world = Driven([OUT, Poke("transmitq1", "avail.idx", jump)], QEMU, recording=False)
    machine = world.machine
    machine.run()
    hits = Counter()
    for i, n in enumerate(machine.hits):
        arc = machine.program.arcs[i]
        hits[arc.op.name, arc.outcome] += n
    taken = hits["read_head", "head"]
    # virtqueue_split_pop() compares avail.idx with nothing: entry by entry is taken until it is reached, 65535 at most.
    assert taken == jump
    assert hits["count", "burst"] + hits["count", "burst, kicks on"] == jump // 256
    assert world.cell("qemu-4002.nic.broken") == 0


def test_while_receiving_a_jump_is_an_error_at_once():
    world = Driven([Poke("receiveq1", "avail.idx", SIZE + 5), IN], QEMU).run()
    (step,) = [step for step in world.steps() if step.outcome == RESET]
    assert f"prints “Guest moved used index from 0 to {SIZE + 5}”" in step.text


# What needs more than one poke, or good timing


def pieces_for_vhost(size=64, entries=17):
    """Let descriptor 0 refer to a table again and again: chain and table together have more than 1024 pieces."""
    fields = desc(0, addr=TABLE(size), len=16 * entries, flags=NEXT | 4, next=0)
    for number in range(8, 8 + entries):
        fields |= desc(number, addr=BUFFER, len=LENGTH, flags=NEXT if number < 7 + entries else 0, next=number - 7)
    return fields


def TABLE(size):  # noqa: N802 - like TABLE_AT
    return Driven([OUT], KNOWN | {"queue.size": size}).vm.tx_layout.desc + 16 * 8


def test_too_many_pieces_with_vhost():
    pokes = [Poke("transmitq1", field, value) for field, value in pieces_for_vhost().items()]
    world = Driven([OUT, *pokes, IN], KNOWN | {"queue.size": 64}).run()
    step = next(step for step in world.steps() if "too many pieces. Verdict" in step.text)
    assert step.outcome == "stops until the next kick"
    assert world.cell("vm1.program.received") == 1


@pytest.mark.parametrize("settings", [{}, {"path": "virtio-qemu"}], ids=["vhost checks", "QEMU"])
def test_too_many_pieces_as_qemu_checks(settings):
    fields = desc(0, addr=TABLE_AT["tx"], len=16 * 1100, flags=4) | desc(8, addr=BUFFER, len=LENGTH, flags=NEXT, next=0)
    pokes = [Poke("transmitq1", field, value) for field, value in fields.items()]
    world = Driven([OUT, *pokes, IN], SMALL | {"device_checks": "qemu"} | settings).run()
    step = next(step for step in world.steps() if "too many pieces. Verdict" in step.text)
    assert step.outcome == RESET
    assert "prints “virtio: too many write descriptors in indirect table”" in step.text


def lie_between(world, op, without):
    """Let the device look first, then change what it has looked at, and let it go on."""
    world.step_until(op, without=without)
    for _ in world.simulation.traffic.pokes:
        world.move("outside", "change")
    return world.run()


@everywhere
def test_ring_ran_dry(settings):
    pokes = [Poke("receiveq1", f"desc[{i}].len", 1) for i in range(SIZE)]
    world = Driven([*pokes, IN], QEMU | dict(settings)).move("vcpu0")
    world = lie_between(world, "find_buffers", ["outside", "vcpu0"])
    (step,) = [step for step in world.steps() if "ring ran dry. Verdict" in step.text]
    assert step.outcome == RESET
    assert step.text.count("virtio-net unexpected empty queue") == 1
    assert world.simulation.dropped() == {"qemu-4002.errors": 1, "qemu-4002.lost": 1}


def test_a_ring_error_in_the_middle_of_a_frame_is_two_errors():
    pokes = [Poke("receiveq1", "desc[0].len", 1), Poke("receiveq1", "avail.ring[1]", SIZE)]
    world = Driven([*pokes, IN], QEMU).move("vcpu0")
    world = lie_between(world, "find_buffers", ["outside", "vcpu0"])
    assert [step.text.partition(".")[0] for step in world.steps() if step.outcome == RESET] == [
        "head out of range",
        "ring ran dry",
    ]
    assert world.cell("vm1.device.generation") == 2
    assert world.cell("qemu-4002.receiveq1.ring.in_flight") == 0


def test_too_many_in_flight_while_receiving():
    pokes = [Poke("receiveq1", f"desc[{i}].len", 1) for i in range(SIZE)] + [Poke("receiveq1", "avail.idx", SIZE + 9)]
    world = Driven([*pokes, IN], QEMU).move("vcpu0")
    world = lie_between(world, "find_buffers", ["outside", "vcpu0"])
    found = [step.text.partition(".")[0] for step in world.steps() if step.outcome == RESET]
    assert found == ["too many in flight", "ring ran dry"]
    assert [step for step in world.steps() if "prints “Virtqueue size exceeded”" in step.text]


def test_too_many_in_flight_in_a_batch_of_a_vhost_that_checks_as_qemu():
    events = [OUT, Poke("transmitq1", "avail.idx", SIZE), Poke("transmitq1", "avail.idx", SIZE + 8)]
    world = (
        Driven(events, SMALL | {"device_checks": "qemu"}).run(without=["outside", "vhost"]).move("outside", "change")
    )
    for _ in range(SIZE):
        world.move("vhost", "remember_head")
    assert world.cell("vhost-4002.tx.done") == SIZE
    world.move("outside", "change").run()
    (step,) = [step for step in world.steps() if "too many in flight. Verdict" in step.text]
    assert step.outcome == RESET


LARGE_IN = Item(kind="udp", length=1472, outgoing=False)
TINY = {"queue.size": 1024, "rx_buffer": 64}


def test_too_many_buffers_with_qemu():
    pokes = [Poke("receiveq1", f"desc[{i}].len", 1) for i in range(1024)]
    world = Driven([*pokes, LARGE_IN], KNOWN | TINY | {"path": "virtio-qemu"}).move("vcpu0")
    world = lie_between(world, "find_buffers", ["outside", "vcpu0"])
    (step,) = [step for step in world.steps() if step.outcome == RESET]
    assert step.text.startswith("too many buffers. Verdict, needs reset")
    assert "prints “virtio-net unexpected long buffer chain”" in step.text
    # The frame counts as received, so QEMU goes on reading the TAP.
    assert ("count", "more") in world.ops()


def test_with_vhost_a_frame_for_too_many_buffers_is_thrown_away():
    pokes = [Poke("receiveq1", f"desc[{i}].len", 1) for i in range(1024)]
    world = Driven([*pokes, LARGE_IN, OUT], KNOWN | TINY).run()
    assert ("discard_packet", "dropped") in world.ops()
    assert sum("too many buffers. Verdict, ignored" in step.text for step in world.steps()) == 1
    assert world.simulation.dropped() == {"vhost-4002.discarded": 1}


def test_every_state_of_a_ring_or_of_virtio_net_is_met_on_this_path_or_cannot_be():
    here = {"too many pieces", "too many in flight", "ring ran dry", "too many buffers"}
    of_others = {"chain not available", "command incomplete", "not ready", "queue not allowed"}
    of_drivers = {"used id out of range", "used id not outstanding"}
    assert {problem for _, problem in STATES} | here | of_others | of_drivers == set(NAMES)
    assert here <= ELSEWHERE
    assert DESC
