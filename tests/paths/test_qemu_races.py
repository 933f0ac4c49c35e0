"""QEMU's own back-end when somebody is just in time, when buffers are missing, and when a ring holds nonsense."""

from __future__ import annotations

import pytest
from driving import FLAGS, IN, KNOWN, OUT, Driven, Item, Pause, burst

from virtviz.errors import KnobError
from virtviz.paths.knobs import make_world
from virtviz.paths.traffic import vm_endpoint

QEMU = KNOWN | {"path": "virtio-qemu"}
HEAVY = QEMU | {"ioeventfd": "off"}
BOTH = pytest.mark.parametrize("settings", [QEMU, HEAVY], ids=["ioeventfd", "no ioeventfd"])
BIG_IN = Item(kind="udp", length=1472, outgoing=False)
FIELDS = ("avail_idx", "avail_event", "used_idx", "used_event")


def done(world):
    return set(world.ops())


def indices(world):
    return tuple(world.u16(field) for field in FIELDS)


# Notifications


def test_lone_packets_leave_the_indices_as_vhost_leaves_them():
    world = Driven([OUT, Pause(), OUT], QEMU)
    for n in (1, 2):
        world.step_until("return_to_user", without=["qemu"])
        assert indices(world) == (n, n - 1, n - 1, n - 1)
        world.move("qemu")
        assert indices(world) == (n, n, n, n - 1)
        world.move("vcpu0", "last_look")
        assert indices(world) == (n, n, n, n)


def test_a_burst_costs_one_kick_and_one_writev_for_each_packet():
    world = Driven(burst(4), QEMU).run(without=["qemu"]).run()
    kicks = sum(op == "kick" for op, _ in world.ops())
    assert (kicks, sum(op == "send" for op, _ in world.ops())) == (1, 4)
    assert [op for op, _ in world.ops()].count("read_kick") == 1
    assert [write.new for s in world.steps() for write in s.writes if write.field == "used.idx"] == [1, 2, 3, 4]


def test_one_read_takes_all_kicks():
    world = Driven(burst(4), QEMU, FLAGS).run(without=["qemu"])
    assert world.cell("vm1.transmitq1.kick.counter") == 4
    world.run()
    assert [op for op, _ in world.ops()].count("read_kick") == 1
    assert world.cell("vm1.transmitq1.kick.counter") == 0
    assert world.u16("used_idx") == 4


def test_while_kicks_are_wanted_each_buffer_taken_moves_avail_event():
    world = Driven([OUT, OUT, OUT], QEMU)
    world.step_until("return_to_user", without=["qemu"]).move("qemu", "enable_kicks")
    assert world.u16("avail_event") == 1
    # The second packet comes after the wish and before the last look; its own kick is on its way.
    world.step_until("publish_avail_idx", without=["qemu"]).move("qemu", "read_head")
    assert world.u16("avail_event") == 2
    world.move("qemu", "enable_kicks")
    assert ("read_avail_idx", "more came") in done(world)
    assert ("disable_kicks", "done") in done(world)
    assert world.run().u16("used_idx") == 3


def test_a_kick_while_the_bottom_half_is_scheduled_again_is_noted_already():
    world = Driven([OUT, OUT, OUT], QEMU, FLAGS)
    # The second packet kicks after the first kick was read: the next ppoll() finds kick and bottom half together.
    world.step_until("return_to_user", without=["qemu"]).move("qemu", "read")
    world.step_until("return_to_user", without=["qemu"]).move("qemu", "enable_kicks")
    # The third comes just before the last look, so the bottom half schedules itself, before the kick is served.
    world.step_until("return_to_user", without=["qemu"]).move("qemu", "note_kick")
    assert world.ops()[-1] == ("note_kick", "noted already")
    assert world.run().u16("used_idx") == 3


def test_after_256_packets_others_have_a_turn():
    world = Driven(burst(300), QEMU, {"queue.size": 512, "bql_limit_min": 1 << 20}).run(without=["qemu"]).run()
    assert ("count", "burst") in done(world)
    assert world.u16("used_idx") == 300


def test_a_wake_up_that_finds_qemu_at_work_does_nothing():
    world = Driven([OUT, OUT], QEMU, FLAGS)
    world.step_until("return_to_user", without=["qemu"]).move("qemu", "take_lock")
    world.step_until("wake_main_loop", without=["qemu"])
    assert world.ops()[-1] == ("wake_main_loop", "nobody waits")
    assert world.run().u16("used_idx") == 2


# The Big QEMU Lock


def test_the_vcpu_thread_waits_for_the_lock_and_goes_on_when_it_is_free():
    world = Driven([OUT, OUT], HEAVY, FLAGS)
    world.step_until("return_to_user", without=["qemu"]).move("qemu", "enable_kicks")
    # The main loop is at work and holds the lock; the second packet kicks.
    world.move("vcpu0", "return_to_qemu").move("vcpu0")
    assert world.ops()[-1][0] == "return_to_qemu"
    assert world.thread("vcpu0") not in world.machine.movable()
    assert world.run().u16("used_idx") == 2


def test_the_vcpu_thread_holds_the_lock_while_it_serves_the_kick():
    world = Driven([OUT], HEAVY).step_until("find_queue", without=["qemu"])
    assert world.cell("qemu-4002.lock") == world.thread("vcpu0") + 1
    # ppoll() returns for the eventfd, but the main loop cannot go on before the vCPU thread has given the lock up.
    world.move("vcpu0", "notify").move("vcpu0", "wake_main_loop").move("qemu")
    assert world.ops()[-1] == ("wait", "ready")
    world.move("vcpu0", "release_lock").move("qemu", "take_lock")
    assert world.ops()[-1] == ("take_lock", "woken")


# Buffers


@BOTH
def test_a_frame_without_a_buffer_waits_in_qemu_until_the_guest_kicks(settings):
    few = {"queue.size": 4, "tx_stop_threshold": 2}
    world = Driven(burst(12, outgoing=False), settings, few)
    world.move("vcpu0").run(without=["vcpu0"])
    assert ("count", "kept") in done(world)
    assert world.cell("qemu-4002.read_poll") == 0
    # Four are delivered, one waits in QEMU, seven on the TAP.
    assert world.cell("tap0.queue.put") - world.cell("tap0.queue.taken") == 7
    assert world.cell("qemu-4002.frames.free_count") == 1
    world.run()
    assert {("flush", "waits"), ("read_tap_again", "delivered")} <= done(world)
    assert world.cell("vm1.program.received") == 12
    assert world.simulation.dropped() == {}


def test_without_ioeventfd_the_waiting_frame_is_delivered_by_the_vcpu_thread():
    world = Driven(burst(12, outgoing=False), HEAVY, {"queue.size": 4, "tx_stop_threshold": 2}).run()
    copied = {step.thread for step in world.steps() if step.op == "copy_packet" and step.outcome == "copied"}
    assert copied == {"qemu-4002", "vm1.vcpu0"}
    assert world.counters()["heavy_exits"] > 0


def test_buffers_that_come_while_qemu_asks_for_a_kick_are_used_at_once():
    world = Driven(burst(6, outgoing=False), QEMU, {"queue.size": 4, "tx_stop_threshold": 2})
    world.move("vcpu0").step_until("enable_kicks", without=["vcpu0"])
    world.move("vcpu0", "check_kick").move("qemu", "recheck")
    assert world.ops()[-1] == ("recheck", "more")
    assert world.run().cell("vm1.program.received") == 6


def test_a_packet_over_three_mergeable_buffers_is_published_in_one_store():
    world = Driven([BIG_IN], QEMU, {"rx_buffer": 600}).run()
    writes = [write for step in world.steps() for write in step.writes if write.field == "used.idx"]
    assert [(write.old, write.new) for write in writes] == [(0, 3)]
    layout, memory = world.vm.rx_layout, world.vm.memory
    assert [memory.plain_u16[(layout.used_ring(i) + 4) // 2] for i in range(3)] == [600, 600, 326]
    assert [outcome for op, outcome in world.ops() if op == "copy_packet"] == ["buffer full", "buffer full", "copied"]
    assert ("copy_to_user", "copied") in done(world)
    assert world.counters()["host_copies"] == 2


def test_without_mergeable_buffers_the_same_packet_is_thrown_away():
    world = Driven([BIG_IN], QEMU, {"rx_buffer": 600, "features": "event_idx"}).run()
    assert world.simulation.dropped() == {"qemu-4002.discarded": 1}
    assert world.u16("used_idx", "rx") == 0


def test_after_50_frames_other_descriptors_have_a_turn():
    world = Driven(burst(60, outgoing=False), QEMU)
    world.move("vcpu0").run(without=["vcpu0", "qemu"])
    world.run()
    assert ("count", "enough") in done(world)
    assert world.cell("vm1.program.received") == 60


def test_a_frame_for_another_address_is_dropped_by_the_device():
    world = Driven([IN], QEMU)
    world.move("vcpu0").step_until("read", without=["vcpu0"])
    frame = world.cell("qemu-4002.nic.frame")
    memory = next(region for region in world.machine.state.regions if region.name == "qemu-4002.memory")
    memory.write((frame - 1) * 2048 + 12, vm_endpoint(7).mac)
    world.run()
    assert world.simulation.dropped() == {"qemu-4002.filtered": 1}


# Nonsense


def poke(world, address, value):
    world.vm.memory.write(address, value.to_bytes(2, "little"))


@BOTH
@pytest.mark.parametrize("what", ["head", "write flag"])
def test_a_bad_transmit_ring_breaks_the_device_for_good(settings, what):
    world = Driven([OUT, OUT], settings).step_until("return_to_user", without=["qemu"])
    layout = world.vm.tx_layout
    if what == "head":
        poke(world, layout.avail_ring(0), 999)
    else:
        poke(world, layout.desc + 12, 2)
    world.move("qemu")
    assert world.simulation.dropped() == {"qemu-4002.errors": 1}
    assert world.u16("used_idx") == 0
    assert world.cell("qemu-4002.nic.broken") == 1
    # Another kick finds a device that does nothing until it is reset.
    assert world.run().u16("used_idx") == 0


@BOTH
def test_an_avail_idx_that_jumps_is_not_noticed_while_sending(settings):
    world = Driven([OUT], settings).step_until("return_to_user", without=["qemu"])
    poke(world, world.vm.tx_layout.avail_idx, 100)
    world.move("qemu")
    # As in virtqueue_split_pop, which does not compare it with the queue's size: what lies in the ring is sent again.
    assert world.u16("used_idx") == 100
    assert world.cell("qemu-4002.nic.broken") == 0


@pytest.mark.parametrize("what", ["index", "head", "no room"])
def test_a_bad_receive_ring_breaks_the_device_for_good(what):
    world = Driven([IN], QEMU).move("vcpu0")
    layout = world.vm.rx_layout
    if what == "index":
        poke(world, layout.avail_idx, 1000)
        # QEMU looks at the index again only when what it knew of is used up.
        for slot in range(layout.size):
            poke(world, layout.desc + 16 * slot + 12, 0)
    elif what == "head":
        poke(world, layout.avail_ring(0), 999)
    else:
        poke(world, layout.desc + 12, 0)
    world.run(without=["vcpu0"])
    if what == "no room":
        # The buffers behind it are enough, but taking this one is an error.
        assert ("read_desc", "needs reset") in done(world)
    assert world.cell("qemu-4002.nic.broken") == 1
    assert world.u16("used_idx", "rx") == 0


# Settings


def test_vhost_needs_ioeventfd():
    with pytest.raises(KnobError, match="path=virtio-qemu"):
        make_world({"ioeventfd": "off"})
