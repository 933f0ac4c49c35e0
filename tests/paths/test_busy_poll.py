"""A worker that polls: what comes while it does costs neither kick nor wake-up; what comes after costs both."""

from __future__ import annotations

import pytest
from driving import IN, KNOWN, OUT, Driven, Item, Pause, burst

BUSY = KNOWN | {"busy_poll_us": 50}
PING = [Item(), Item(outgoing=False, answers=0)]


def outcomes(world, op):
    return [outcome for name, outcome in world.ops() if name == op]


def test_a_packet_sent_while_the_worker_polls_needs_no_kick_and_no_wake_up():
    def cost(*settings):
        world = Driven([OUT, OUT], *settings).step_until("return_to_user", without=["vhost"])
        # The worker sends the first, and polls; then the guest sends the second.
        world.run(without=["vcpu0", "vhost"])
        while world.machine.move(world.thread("vhost")) and world.last.name not in ("begin_to_poll", "next_work"):
            pass
        return world.run().counters()

    lone, polled = cost(KNOWN), cost(BUSY)
    assert (lone["light_exits"], lone["wakeups"]) == (2, 2)
    assert (polled["light_exits"], polled["wakeups"]) == (1, 1)


def test_the_batch_goes_before_the_worker_polls():
    names = [op for op, _ in Driven(burst(3), BUSY).run(without=["vhost"]).run().ops()]
    assert names.index("send_batch") < names.index("begin_to_poll") < names.index("enable_kicks")


def test_when_time_is_up_the_worker_asks_for_a_kick_and_sleeps():
    world = Driven([OUT, Pause(), OUT], BUSY).run()
    assert outcomes(world, "poll").count("time is up") == 2
    assert world.counters()["light_exits"] == 2
    assert world.u16("avail_event") == world.u16("used_idx") == 2
    assert not world.cell("vhost-4002.busy_poll.spinning")


@pytest.mark.parametrize("features", ["event_idx,mergeable", "mergeable"])
@pytest.mark.parametrize("items", [PING, [IN, IN, OUT, IN], [*burst(70), *burst(70, outgoing=False)]], ids=range(3))
def test_nothing_is_lost_and_undo_is_exact(items, features):
    world = Driven(items, BUSY | {"features": features})
    machine = world.machine
    begin = machine.digest()
    machine.run()
    end = machine.digest()
    outgoing = sum(item.outgoing for item in items)
    assert world.u16("used_idx") == outgoing
    assert world.cell("vm1.program.received") == len(items) - outgoing
    assert world.simulation.dropped() == {}
    machine.seek(0)
    assert machine.digest() == begin
    machine.seek(machine.length)
    assert machine.digest() == end
    counted = Driven(items, BUSY | {"features": features}, recording=False)
    counted.machine.run()
    assert counted.machine.hits == machine.hits


def test_a_frame_that_comes_while_the_worker_polls_for_frames_needs_no_wake_up():
    def wakeups(settings):
        world = Driven([IN, IN], settings).step_until("queue_work", without=["vcpu0"])
        return world.run().counters()["wakeups"]

    assert wakeups(BUSY) <= wakeups(KNOWN)
