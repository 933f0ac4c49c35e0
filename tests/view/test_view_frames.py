import pytest
from live_source import PING, Live

from virtviz.engine.counters import COUNTERS, count
from virtviz.paths.traffic import Item
from virtviz.view import fold_of, make_frame
from virtviz.view.fold import CHECKPOINT_STEPS, step_counts


@pytest.fixture(scope="module")
def ping():
    return Live()


@pytest.fixture(scope="module")
def frames(ping):
    return [make_frame(ping, position) for position in range(ping.length + 1)]


def way(frames, number):
    """Where a packet was, each place once in a row."""
    places = [packet.where for frame in frames for packet in frame.packets if packet.number == number]
    return [b for a, b in zip(["", *places], places, strict=False) if a != b]


def test_a_packet_out_passes_every_place_of_its_way_once(frames):
    assert way(frames, 1) == [
        "vm1.app",
        "vm1.stack",
        "vm1.virtio_net",
        "vm1.transmitq1",
        "vhost_net",
        "tap0",
        "ovs",
        "eth0",
        "eth0.tx",
        "eth0.hw",
        "wire",
    ]


def test_a_packet_in_passes_every_place_of_its_way_once(frames):
    assert way(frames, 2) == [
        "eth0.rx",
        "eth0",
        "ovs",
        "tap0",
        "tap0.queue",
        "vhost_net",
        "vm1.receiveq1",
        "vm1.virtio_net",
        "vm1.stack",
        "socket",
        "vm1.app",
    ]


def test_a_kick_and_an_interrupt_do_not_carry_the_packet_through_kvm(frames):
    in_kvm = [frame for frame in frames if frame.step and frame.step.place == "kvm" and frame.step.packet]
    assert in_kvm
    assert all(packet.where != "kvm" for frame in in_kvm for packet in frame.packets)


def test_a_missed_flow_takes_the_packet_up_to_user_space_and_back_down():
    live = Live(flows="unknown")
    frames = [make_frame(live, position) for position in range(live.length + 1)]
    assert way(frames, 1)[6:10] == ["ovs", "ovs.upcalls1", "netlink", "vswitchd"]
    assert way(frames, 1)[-3:] == ["eth0.tx", "eth0.hw", "wire"]


def test_exactly_one_thread_runs_after_each_step_and_none_before_the_first(frames):
    assert frames[0].running is None
    for frame in frames[1:]:
        assert [t.name for t in frame.threads if t.state == "runs"] == [frame.step.thread]


def test_a_woken_thread_is_shown_as_woken_at_that_step_only(ping, frames):
    woken = {(f.position, t.name) for f in frames for t in f.threads if t.woken}
    assert (ping.position_of("wake_worker"), "vhost-4002") in woken
    assert all(ping.trace.step(position).effects for position, _ in woken)


def test_at_first_the_virtual_cpu_stands_in_its_program(frames):
    vcpu = next(t for t in frames[0].threads if t.kind == "vcpu")
    assert (vcpu.place, vcpu.domain, vcpu.state) == ("vm1.app", "guest-user", "ready")


def test_counters_are_those_of_the_machine_at_every_position(ping, frames):
    arcs = ping.machine.program.arcs
    for frame in frames:
        ping.machine.seek(frame.position)
        assert {c.name: c.value for c in frame.counters} == count(arcs, ping.machine.hits)


def test_deltas_add_up_to_the_counters(frames):
    for name in COUNTERS:
        assert sum(frame.counter(name).delta for frame in frames) == frames[-1].counter(name).value


def test_the_ledger_lists_what_the_counters_count(ping, frames):
    ledger = fold_of(ping).ledger
    assert [entry for frame in frames for entry in frame.cost] == ledger
    assert sorted({entry.n for entry in ledger}) == [
        n for n in range(1, ping.length + 1) if ping.trace.step(n).crossings or ping.trace.step(n).effects
    ]


def test_milestones_crossings_and_notifications_are_noted_once(ping):
    fold = fold_of(ping)
    fold.at(ping.length)
    steps = [ping.trace.step(n) for n in range(1, ping.length + 1)]
    assert fold.milestones == [s.n for s in steps if s.milestone]
    assert fold.crossings == [s.n for s in steps if s.crossings]
    make_frame(ping, 3)
    make_frame(ping, ping.length)
    assert fold.milestones == [s.n for s in steps if s.milestone]


def test_the_direction_follows_the_packet_worked_on_last(ping, frames):
    assert frames[0].direction == ""
    assert frames[ping.position_of("kick")].direction == "out"
    assert frames[ping.position_of("take_used", packet=2)].direction == "in"


def test_a_frame_says_where_the_thread_goes_on_after_its_crossing(ping, frames):
    assert frames[ping.position_of("kick")].where_next == "host-kernel"
    assert frames[ping.position_of("publish_avail_idx")].where_next == ""


def test_frames_are_the_same_from_whichever_side_one_comes(frames):
    other = Live()
    backwards = [make_frame(other, position) for position in range(other.length, -1, -1)]
    assert backwards[::-1] == frames


def test_positions_that_do_not_exist_are_refused(ping):
    with pytest.raises(IndexError, match=r"0\.\."):
        make_frame(ping, ping.length + 1)
    with pytest.raises(IndexError):
        make_frame(ping, -1)
    with pytest.raises(KeyError):
        make_frame(ping, 0, queue="vm1.controlq")


def test_going_back_in_a_long_run_folds_no_more_than_to_the_checkpoint_before():
    live = Live(rounds=40)
    make_frame(live, live.length)
    for position in (live.length - 1, 4001, 4000, 17, 3000):
        live.steps_asked = 0
        make_frame(live, position)
        assert live.steps_asked <= CHECKPOINT_STEPS + 8


def test_of_a_long_run_only_the_last_arrived_packets_are_remembered():
    live = Live(rounds=40)
    frame = make_frame(live, live.length)
    assert len(frame.packets) < 12
    assert frame.packets[-1].name == "reply#80"


def test_every_step_of_a_run_adds_to_the_counters_what_its_frame_says(ping, frames):
    for frame in frames[1:]:
        added = {}
        for name, more in step_counts(frame.step):
            added[name] = added.get(name, 0) + more
        assert {c.name: c.delta for c in frame.counters if c.delta} == {k: v for k, v in added.items() if v}


def test_packets_in_a_ring_are_listed_in_the_order_in_which_they_came():
    live = Live(items=[Item(f"burst{i}", kind="udp", length=18) for i in range(3)])
    rings = [dict(make_frame(live, p).rings)["vm1.transmitq1"] for p in range(live.length + 1)]
    assert all(list(numbers) == sorted(numbers) for numbers in rings)
    assert max(map(len, rings)) >= 1


def test_before_anything_happens_the_ring_of_the_first_packet_is_shown():
    assert make_frame(Live(PING), 0).ring.queue == "vm1.transmitq1"
    assert make_frame(Live([Item("hello", outgoing=False, kind="udp")]), 0).ring.queue == "vm1.receiveq1"
