"""Several queue pairs: a worker, a queue of the TAP and a vCPU for each; who does what, and what it costs."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from driving import KNOWN, OUT, Driven, Item, Pause

from virtviz.engine.counters import COUNTERS
from virtviz.engine.schedule import BySimulatedTime, Chosen
from virtviz.engine.trace import Trace
from virtviz.paths.capture import frame_bytes, frames_at
from virtviz.paths.describe import describe
from virtviz.paths.tap_queues import FLOWS_MAX, TapFlows, flow_hash
from virtviz.paths.traffic import Poke, make_traffic, program_of

TWO = {"queues": 2}
UDP = {"kind": "udp", "length": 18}
ONE_PACKET = dict.fromkeys(COUNTERS, 0) | {
    "light_exits": 1,
    "guest_host": 2,
    "wakeups": 1,
    "guest_syscalls": 1,
    "user_kernel.guest": 2,
    "host_copies": 1,
    "guest_copies": 1,
    "interrupts": 1,
    "eventfd_signals": 2,
}
"""One kick, one worker woken, one copy; two eventfds, one of which interrupts the guest."""


def ran(items, *settings):
    return Driven(items, TWO, KNOWN, *settings).run()


def ping(vcpu, **more):
    """Give a question of the program on a vCPU, to be followed by `answer`."""
    return Item(vcpu=vcpu, **UDP, **more)


def answer(vcpu, asked, **more):
    return Item(vcpu=vcpu, outgoing=False, answers=asked, **UDP, **more)


def names(steps, attribute, **wanted):
    """Name what the steps that have some values have of another."""
    chosen = (step for step in steps if all(getattr(step, name) == value for name, value in wanted.items()))
    return [getattr(step, attribute) for step in chosen]


@pytest.mark.parametrize("vcpu", [0, 1])
def test_a_packet_costs_the_same_whichever_pair_it_goes_by(vcpu):
    world = ran([Item("out", vcpu=vcpu, **UDP)], {"far_port": "dummy"})
    assert world.counters() == ONE_PACKET


@pytest.mark.parametrize("pairs", [2, 3, 4])
def test_a_packet_is_the_affair_of_one_pair_alone(pairs):
    for vcpu in range(pairs):
        world = Driven([Item("out", vcpu=vcpu, **UDP)], KNOWN, {"queues": pairs}).run()
        steps = world.steps()
        mine = {f"vm1.vcpu{vcpu}", f"vhost-4002.q{vcpu + 1}"}
        assert {step.thread for step in steps if step.thread.startswith(("vm1", "vhost"))} == mine
        assert {step.queue for step in steps if step.queue} == {f"vm1.transmitq{vcpu + 1}"}


def test_only_the_worker_of_the_pair_is_woken_and_interrupts_the_vcpu_of_the_pair():
    steps = ran([Item("out", vcpu=1, **UDP)]).steps()
    targets = [(effect.kind, effect.target) for step in steps for effect in step.effects if effect.target]
    assert ("wakeup", "vhost-4002.q2") in targets
    assert ("irq-inject", "vm1.vcpu1") in targets
    assert not {target for _, target in targets} & {"vhost-4002.q1", "vm1.vcpu0"}
    taken = [(step.thread, step.queue) for step in steps if step.op == "vring_interrupt"]
    assert taken == [("vm1.vcpu1", "vm1.transmitq2")]


@pytest.mark.parametrize("pairs", [2, 4])
def test_every_queue_has_a_notify_address_of_its_own(pairs):
    world = Driven([Item(vcpu=vcpu, **UDP) for vcpu in range(pairs)], KNOWN, {"queues": pairs}).run()
    texts = {step.queue: step.text for step in world.steps() if step.op == "exit_ept_misconfig"}
    for pair in range(pairs):
        # Queue q of the device is 4q behind the first; pair k has queues 2k and 2k+1.
        assert f"{0xFEBFF000 + 4 * (2 * pair + 1):#x}" in texts[f"vm1.transmitq{pair + 1}"]


def test_an_answer_returns_on_the_pair_that_the_question_was_sent_on():
    for vcpu in (0, 1):
        steps = ran([ping(vcpu), answer(vcpu, 0)]).steps()
        (chosen,) = names(steps, "outcome", op="select_queue")
        assert chosen == f"queue {vcpu + 1}"
        assert names(steps, "thread", milestone="in-guest-buffer") == [f"vhost-4002.q{vcpu + 1}"]
        assert names(steps, "thread", milestone="received") == [f"vm1.vcpu{vcpu}"]


def test_the_tap_remembers_a_flow_after_its_frame_was_switched_and_before_the_buffer_is_given_back():
    order = names(ran([ping(1)]).steps(), "op", thread="vhost-4002.q2")
    assert order.index("send_batch") < order.index("update_flow") < order.index("write_used")
    assert order.index("next_action") < order.index("update_flow")


def test_a_frame_of_a_flow_that_the_guest_never_sent_goes_by_its_hash():
    item = Item(outgoing=False, **UDP)
    traffic = make_traffic([item])
    for pairs in (2, 3, 4):
        steps = Driven([item], KNOWN, {"queues": pairs}).run().steps()
        assert names(steps, "outcome", op="select_queue") == [
            f"queue {flow_hash(traffic.frame(1)) * pairs // 2**32 + 1}"
        ]


def test_a_conversation_is_one_flow_in_both_directions_and_another_port_is_another():
    traffic = make_traffic([ping(0), answer(0, 0), ping(1), answer(1, 2), Item(), Item(vcpu=1)])
    first, back, second, back_too, echo, echo_too = (flow_hash(traffic.frame(n)) for n in range(1, 7))
    assert first == back != second == back_too
    # Identifiers of echo requests are no ports.
    assert echo == echo_too
    assert flow_hash(b"\xff" * 12 + b"\x08\x06" + bytes(46)) == flow_hash(bytes(12) + b"\x08\x06" + bytes(28))


def test_programs_are_told_apart_by_their_ports_and_identifiers():
    traffic = make_traffic([ping(2), answer(2, 0), Item(vcpu=3), Item(vcpu=3, outgoing=False, answers=2)])
    assert program_of(traffic.frame(2), 4) == 2
    assert program_of(traffic.frame(4), 4) == 3
    assert program_of(traffic.frame(4), 2) == 0
    assert program_of(b"\0" * 14, 4) == 0


def flows_of(queues):
    from virtviz.engine.state import State  # noqa: PLC0415 - for this alone

    return TapFlows(State(recording=False), "tap0", queues)


def test_a_flow_that_comes_from_another_queue_moves_there():
    flows = flows_of(2)
    assert [flows.update(7, 0), flows.update(7, 0), flows.update(7, 1)] == ["new", "known", "moved"]
    assert flows.queue_of(7) == (1, True)
    # Its neighbour in the table has the same place to begin with.
    assert flows.update(7 + FLOWS_MAX, 0) == "new"
    assert [flows.queue_of(7), flows.queue_of(7 + FLOWS_MAX)] == [(1, True), (0, True)]
    assert flows.queue_of(8) == (0, False)
    assert flows.queue_of(0xFFFFFFFF) == (1, False)


def test_a_tap_that_remembers_all_it_can_spreads_the_rest_by_their_hash():
    flows = flows_of(4)
    assert {flows.update(flow, 3) for flow in range(1, FLOWS_MAX + 1)} == {"new"}
    assert flows.update(0xF0000000, 1) == "no room"
    assert flows.queue_of(0xF0000000) == (3, False)
    assert flows.cells.count == FLOWS_MAX


def test_a_queue_that_is_switched_off_takes_the_flows_that_used_it_with_it():
    flows = flows_of(2)
    # Both have the same place in the table, so the second one lies behind the first.
    flows.update(1, 1)
    flows.update(1 + FLOWS_MAX, 0)
    flows.forget(1)
    assert flows.cells.count == 1
    assert flows.queue_of(1 + FLOWS_MAX) == (0, True)
    assert flows.queue_of(1) == (0, False)
    flows.forget(1)
    assert flows.cells.count == 1


def test_a_hash_chooses_among_the_queues_that_are_switched_on():
    flows = flows_of(2)
    assert flows.queue_of(0xFFFFFFFF) == (1, False)
    flows.count_off = lambda: 1
    assert flows.queue_of(0xFFFFFFFF) == (0, False)


PINGS = [Item(), Item(vcpu=1), Item(outgoing=False, answers=0), Item(vcpu=1, outgoing=False, answers=1)]
"""Two programs ping one host. That is one flow, so both answers come to the pair that was used last."""


def test_a_program_on_another_vcpu_that_polls_is_woken_by_a_store():
    world = ran(PINGS)
    woken = names(world.steps(), "outcome", op="let_it_run")
    assert sorted(set(woken)) == ["here", "there"]
    assert [pair.program.cells.received for pair in world.vm.pairs] == [1, 1]
    assert world.counters()["light_exits"] == 2


@pytest.mark.parametrize("processor", [{}, {"apicv": "off"}, {"cpu": "amd", "apicv": "off"}])
def test_a_program_on_a_halted_vcpu_is_woken_by_an_interrupt_that_costs_the_sender_an_exit(processor):
    world = ran(PINGS, {"vcpu": "halted"}, processor)
    steps = world.steps()
    (sent,) = [step for step in steps if step.op == "exit_icr"]
    (left,) = [crossing for step in steps for crossing in step.crossings if "command register" in crossing.cause]
    (taken,) = [step for step in steps if step.op == "reschedule"]
    assert (sent.thread, taken.thread, left.kind) == ("vm1.vcpu1", "vm1.vcpu0", "vm-exit")
    assert "0xfd" in sent.text
    assert [pair.program.cells.received for pair in world.vm.pairs] == [1, 1]


IN_QEMU = {"path": "virtio-qemu"}


def test_in_qemu_one_thread_serves_all_pairs():
    world = ran([ping(1), ping(0), answer(1, 0), answer(0, 1)], IN_QEMU)
    steps = world.steps()
    assert {step.thread for step in steps if step.row.startswith("Q-")} == {"qemu-4002"}
    assert set(names(steps, "queue", milestone="fetched")) == {"vm1.transmitq1", "vm1.transmitq2"}
    assert set(names(steps, "queue", milestone="in-guest-buffer")) == {"vm1.receiveq1", "vm1.receiveq2"}
    taken = {(step.thread, step.queue) for step in steps if step.op == "vring_interrupt"}
    assert taken == {(f"vm1.vcpu{n}", f"vm1.{way}q{n + 1}") for n in (0, 1) for way in ("transmit", "receive")}


@pytest.mark.parametrize("ioeventfd", ["on", "off"])
def test_in_qemu_a_packet_costs_the_same_whichever_pair_it_goes_by(ioeventfd):
    settings = IN_QEMU | {"ioeventfd": ioeventfd, "far_port": "dummy"}
    alone = Driven([Item(**UDP)], KNOWN, settings).run().counters()
    for vcpu in (0, 1):
        assert ran([Item(vcpu=vcpu, **UDP)], settings).counters() == alone


def test_in_qemu_kicks_of_several_pairs_are_served_in_one_turn_the_later_registered_first():
    world = Driven([ping(0), ping(1)], TWO, KNOWN, IN_QEMU)
    steps = world.run(without=["qemu"]).run().steps()
    served = [step.outcome for step in steps if step.op == "next_handler"]
    assert served[:4] == ["transmit kick 2", "transmit kick", "no time to wait", "bottom half"]
    assert served[4] == "bottom half 2"


def test_in_qemu_the_tap_remembers_a_flow_only_after_the_softirq_so_that_a_first_answer_in_it_goes_by_hash():
    item = Item(vcpu=1, kind="udp", length=18)
    steps = ran([item, answer(1, 0), Pause(), item, answer(1, 2)], IN_QEMU, {"far_port": "veth"}).steps()
    by_hash = f"queue {flow_hash(make_traffic([item]).frame(1)) * 2 // 2**32 + 1}"
    order = [(step.op, step.outcome) for step in steps if step.op in ("select_queue", "update_flow")]
    assert order == [
        ("select_queue", by_hash),
        ("update_flow", "new"),
        ("select_queue", "queue 2"),
        ("update_flow", "known"),
    ]


def test_in_qemu_a_malformed_ring_of_one_pair_breaks_the_whole_device():
    world = Driven([OUT, Poke("transmitq1", "avail.ring[0]", 999), Pause(), ping(1)], TWO, KNOWN, IN_QEMU).run()
    assert world.cell("qemu-4002.nic.errors") == 1
    assert "fetched" not in {step.milestone for step in world.steps()}


def drawn(random, pairs):
    """Draw a scenario of several programs: questions with and without answers, and frames that come by themselves."""
    items = []
    for number in range(12):
        vcpu, kind = random.randrange(pairs), random.choice(("udp", "icmp-echo"))
        if random.random() < 0.3:
            items.append(Item(f"in{number}", outgoing=False, vcpu=vcpu, **UDP))
            continue
        items.append(Item(f"out{number}", vcpu=vcpu, kind=kind, length=30))
        if random.random() < 0.6:
            back = Item(f"back{number}", outgoing=False, vcpu=vcpu, kind=kind, length=30, answers=len(items) - 1)
            items.append(back)
    return items


def at_random(random):
    def choose(machine):
        movable = machine.movable()
        return random.choice(movable) if movable else -1

    return Chosen(choose)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"vcpu": "halted"},
        {"cpu": "amd", "apicv": "off", "vcpu": "halted"},
        {"cpu": "amd", "apicv": "off", "guest_if": "off"},
        {"store_buffer": "on"},
        {"far_port": "veth"},
        {"switch": "bridge", "napi_tx": "off"},
        {"vms": 2, "flows": "known", "weight": 1, "tx_batch": 1},
        {"queue.size": 32, "features": "indirect", "rx_buffer": 256},
        {"path": "virtio-qemu"},
        {"path": "virtio-qemu", "ioeventfd": "off", "vcpu": "halted"},
        {"path": "virtio-qemu", "far_port": "veth", "store_buffer": "on"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())) or "default",
)
@pytest.mark.parametrize("pairs", [1, 2, 3, 4])
def test_nothing_is_lost_whoever_moves(pairs, settings):
    for seed in range(3):
        random = Random(seed)
        items = drawn(random, pairs)
        world = Driven(items, {"queues": pairs}, settings, recording=False).run(scheduler=at_random(random))
        wanted = Counter(item.vcpu for item in items if not item.outgoing)
        assert {vcpu: pair.program.cells.received for vcpu, pair in enumerate(world.vm.pairs)} == {
            vcpu: wanted[vcpu] for vcpu in range(pairs)
        }
        assert not world.simulation.dropped()


def test_within_a_queue_and_a_flow_order_holds_whoever_moves():
    items = [Item(vcpu=n % 3, kind="udp", length=18) for n in range(18)]
    for seed in range(4):
        world = Driven(items, KNOWN, {"queues": 3, "tx_batch": 2}).run(scheduler=at_random(Random(seed)))
        steps = world.steps()
        for vcpu in range(3):
            began = [n for n in range(1, 19) if items[n - 1].vcpu == vcpu]
            for milestone in ("in-ring", "fetched", "at-tap", "on-wire"):
                passed = [step.packet for step in steps if step.milestone == milestone]
                assert [packet for packet in passed if packet in began] == began, (seed, milestone)


def test_undoing_everything_gives_the_first_state_back():
    world = Driven(PINGS, TWO, {"vcpu": "halted"})
    before = world.machine.digest()
    after = world.run().machine.digest()
    end = world.machine.position
    while world.machine.back():
        pass
    assert world.machine.digest() == before
    world.machine.seek(end)
    assert world.machine.digest() == after


@pytest.mark.parametrize("pairs", [2, 4])
def test_counting_gives_what_recording_gives(pairs):
    items = [Item(vcpu=n % pairs) for n in range(2 * pairs)]
    items += [Item(vcpu=n % pairs, outgoing=False, answers=n) for n in range(2 * pairs)]
    settings = {"queues": pairs, "vcpu": "halted"}
    counted = Driven([*items, Pause()], settings, rounds=8, recording=False).run()
    recorded = Driven([*items, Pause()], settings, rounds=8).run()
    assert counted.counters() == recorded.counters()


def duration(pairs, frames=80):
    """Give how long frames of as many programs take to pass the TAP, in simulated time."""
    items = [Item(vcpu=n % pairs, **UDP) for n in range(frames)]
    world = Driven(items, KNOWN, {"queues": pairs, "far_port": "dummy"}).run(scheduler=BySimulatedTime())
    steps = world.steps()
    workers = Counter(step.thread for step in steps if step.milestone == "at-tap")
    assert workers == {f"vhost-4002{f'.q{n + 1}' if pairs > 1 else ''}": frames // pairs for n in range(pairs)}
    return max(step.t_ns for step in steps if step.milestone == "at-tap")


def test_several_senders_use_several_workers_at_once():
    one = duration(1)
    assert duration(2) < 0.65 * one
    assert duration(4) < 0.4 * one


def test_a_description_lists_every_queue_and_every_thread():
    header = describe(Driven([Item()], {"queues": 3}).simulation)
    assert [queue.name for queue in header.queues] == [
        f"vm1.{kind}q{pair}" for pair in (1, 2, 3) for kind in ("transmit", "receive")
    ]
    assert [queue.direction for queue in header.queues] == ["out", "in"] * 3
    assert [thread.name for thread in header.threads][:6] == [
        *(f"vm1.vcpu{n}" for n in range(3)),
        *(f"vhost-4002.q{n}" for n in (1, 2, 3)),
    ]


def test_every_step_of_a_packet_knows_its_bytes():
    for settings in ({}, {"rx_buffer": 600}, {"profile": "recorded"}):
        items = [*PINGS, Item(vcpu=1, kind="udp", length=1400, fragments=2), Item(outgoing=False, length=900)]
        world = ran(items, settings)
        trace = Trace(world.machine)
        for n in range(1, len(trace) + 1):
            # The machine stands at the step that was asked for last.
            step = trace.step(n)
            want = world.simulation.traffic.frame(step.packet) if step.packet else b""
            assert frame_bytes(world.simulation, step) == want, (settings, n, step.op)


def test_frames_of_all_pairs_pass_the_one_tap():
    world = ran(PINGS)
    seen = {frame for _, frame in frames_at(world.simulation, Trace(world.machine), "tap0")}
    assert seen == {world.simulation.traffic.frame(n) for n in range(1, 5)}


def test_a_machine_of_one_pair_has_no_flow_table():
    names = list(Driven([Item()]).machine.state.names)
    assert not [name for name in names if "flows.hashes" in name and name.startswith("tap0")]
    assert "tap0.flows.hashes[0]" in list(Driven([Item()], TWO).machine.state.names)
