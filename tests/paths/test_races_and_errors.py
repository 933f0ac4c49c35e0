"""What happens when somebody is just in time, or writes nonsense into a ring."""

from __future__ import annotations

import pytest
from driving import FLAGS, IN, KNOWN, OUT, Driven, Item, burst

from virtviz.paths.traffic import peer_endpoint, vm_endpoint
from virtviz.spec.frames import udp


def done(world):
    return set(world.ops())


# Just in time


def test_a_frame_that_comes_while_the_tap_is_not_watched_is_found_when_it_is_watched_again():
    world = Driven([IN, IN], KNOWN)
    world.move("vcpu0").step_until("data_ready", without=["vcpu0"])
    assert world.ops()[-1] == ("data_ready", "watched")
    world.move("softirq", "wake_worker").move("vhost", "count_packet").move("vhost", "peek_frame")
    assert world.ops()[-1] == ("peek_frame", "empty")
    world.step_until("data_ready", without=["vcpu0", "vhost"])
    assert world.ops()[-1] == ("data_ready", "unwatched")
    world.move("vhost", "watch_tap")
    assert world.ops()[-1] == ("watch_tap", "readable")
    world.run()
    assert world.cell("vm1.program.received") == 2


def test_buffers_that_come_while_the_worker_asks_for_a_kick_are_used_at_once():
    settings = {"queue.size": 32, "tx_stop_threshold": 8, "vcpu": "running"}
    world = Driven(burst(33, outgoing=False), KNOWN, settings)
    # The guest polls 17 packets and begins to refill; the worker meanwhile uses the rest of its buffers.
    world.move("vcpu0").run(without=["vcpu0", "vhost"])
    while world.cell("vhost-4002.rx.done") < 32:
        world.move("vhost", "count_packet")
    world.move("vhost", "read_avail_idx")
    assert world.ops()[-1] == ("read_avail_idx", "empty")
    # Nothing was published yet, so nothing can be refilled: the worker asks, and is kicked later.
    world.move("vhost").run()
    assert ("next_work", "handle_rx_kick") in done(world)
    assert world.cell("vm1.program.received") == 33


def test_without_apicv_two_signals_of_one_vector_are_one_interrupt():
    world = Driven([OUT, OUT], KNOWN, FLAGS, {"apicv": "off", "tx_batch": 1})
    world.step_until("own_work", without=["vhost"])
    world.move("vhost")
    assert {("deliver", "new"), ("deliver", "merged"), ("kick_again", "forced out")} <= done(world)
    world.run()
    counters = world.counters()
    assert (counters["eventfd_signals"], counters["interrupts"]) == (2 + 2, 1)


def test_a_completion_just_after_the_queue_was_stopped_schedules_the_poll_at_once():
    world = Driven(burst(10), KNOWN, {"queue.size": 16, "tx_stop_threshold": 8, "guest_bql": "off"})
    world.step_until("mb_before_stop_recheck", without=["vhost"]).move("vhost").move("vcpu0", "recheck_after_stop")
    assert world.ops()[-1] == ("recheck_after_stop", "too late")
    world.run()
    assert world.u16("used_idx") == 10


def test_without_transmit_napi_a_stopped_queue_is_opened_by_the_completion_interrupt():
    settings = {"queue.size": 16, "tx_stop_threshold": 8, "napi_tx": "off"}
    world = Driven(burst(40), KNOWN, settings)
    world.run(without=["vhost"])
    assert world.cell("vm1.txq.driver_off") == 1
    assert ("recheck_after_stop", "enough") in done(world)
    world.run()
    assert world.u16("used_idx") == 40
    assert world.counters()["interrupts"] >= 1


def test_without_transmit_napi_the_driver_may_open_the_queue_itself():
    settings = {"queue.size": 16, "tx_stop_threshold": 8, "napi_tx": "off"}
    world = Driven(burst(20), KNOWN, settings)
    world.step_until("mb_before_stop_recheck", without=["vhost"]).move("vhost").move("vcpu0", "open_if_room")
    assert world.ops()[-1] == ("open_if_room", "opened")
    assert world.run().u16("used_idx") == 20


def test_the_receive_poll_opens_a_stopped_transmit_queue():
    settings = {"queue.size": 16, "tx_stop_threshold": 8, "guest_bql": "off"}
    world = Driven([*burst(20), IN], KNOWN, settings)
    world.run(without=["vhost"])
    # A frame comes in; its poll finds what the worker has sent meanwhile.
    world.move("vhost", "publish_used_idx").move("vhost")
    world.run()
    assert world.u16("used_idx") == 20
    assert world.cell("vm1.txq.driver_off") == 0


def test_a_packet_that_comes_between_the_wish_and_the_last_look_is_polled():
    world = Driven([IN, IN], KNOWN)
    world.move("vcpu0").step_until("wake_worker", without=["vcpu0"])
    world.move("vhost").move("vcpu0", "leave_poll_list")
    # The second packet's interrupt has been taken away: the guest is asked for nothing until it looks.
    world.run(without=["vcpu0", "vhost"]).move("vhost", "publish_used_idx")
    world.move("vcpu0", "last_look")
    assert world.ops()[-1] == ("last_look", "more")
    world.run()
    assert world.cell("vm1.program.received") == 2


def test_an_interrupt_whose_work_is_done_already_does_no_harm():
    world = Driven([IN, IN], KNOWN)
    world.move("vcpu0").step_until("wake_worker", without=["vcpu0"])
    world.move("vhost").move("vcpu0", "enable_callbacks")
    world.run(without=["vcpu0", "vhost"]).move("vhost")
    world.move("vcpu0", "vring_interrupt")
    assert ("schedule_poll", "scheduled already") not in done(world)
    world.run()
    assert world.cell("vm1.program.received") == 2
    assert world.simulation.dropped() == {}


def test_a_card_polls_at_most_64_frames_before_others_have_a_turn():
    world = Driven(burst(67, outgoing=False), KNOWN, {"nic_ring": 128})
    world.move("vcpu0").run(without=["vcpu0", "softirq"]).run()
    assert ("take_frame", "enough") in done(world)
    assert ("take_frame", "list full") in done(world)
    assert world.cell("vm1.program.received") == 67


def test_more_than_64_filled_buffers_are_given_back_before_the_next_frame():
    world = Driven(burst(80, outgoing=False), KNOWN)
    world.move("vcpu0").run(without=["vcpu0", "vhost"]).move("vhost")
    writes = [
        w.new for step in world.steps() for w in step.writes if (w.field, w.owner[-8:]) == ("used.idx", "eceiveq1")
    ]
    assert writes == [65, 80]


# The switch


def raw(source, target, n=0):
    return udp(source, target, (40000, 9), bytes([n]))


def test_a_frame_for_nobody_is_dropped_by_the_switch():
    frame = raw(peer_endpoint(1), peer_endpoint(2))
    world = Driven([Item(kind="raw", raw=frame, length=len(frame), outgoing=False)]).run()
    assert world.simulation.dropped() == {"ovs.no_action": 1}


def test_a_broadcast_leaves_by_every_other_port():
    frame = b"\xff" * 6 + raw(vm_endpoint(0), peer_endpoint(1))[6:]
    world = Driven([Item(kind="raw", raw=frame, length=len(frame))]).run()
    assert world.cell("eth0.sent") == 1
    assert world.simulation.dropped() == {}


@pytest.mark.parametrize("far_port", ["nic", "veth"])
def test_a_full_flow_table_goes_on_asking(far_port):
    frames = [raw(vm_endpoint(0), peer_endpoint(1)) for _ in range(260)]
    frames = [frame[:6] + n.to_bytes(6, "big") + frame[12:] for n, frame in enumerate(frames)]
    frames.append(frames[-1])
    items = [Item(kind="raw", raw=frame, length=len(frame)) for frame in frames]
    world = Driven(items, {"queue.size": 1024, "far_port": far_port})
    for _ in items:
        world.step_until("return_to_user")
        world.run(without=["vcpu0"])
    world.run()
    assert world.cell("ovs.flows.count") == 256
    assert world.counters()["upcalls"] == 261
    assert ("install_flow", "table full") in done(world)
    assert world.simulation.dropped() == {}


# Nonsense in the rings


def poke(world, address, value):
    world.vm.memory.plain_u16[address // 2] = value


@pytest.mark.parametrize("what", ["avail.idx", "head", "next", "writable", "address"])
def test_vhost_stops_at_a_bad_transmit_buffer_until_the_next_kick(what):
    world = Driven([OUT, OUT], KNOWN)
    layout = world.vm.tx_layout
    world.step_until("wake_worker", without=["vhost"])
    if what == "avail.idx":
        poke(world, layout.avail_idx, 300)
    elif what == "head":
        poke(world, layout.avail_ring(0), 256)
    elif what == "next":
        poke(world, layout.desc + 12, 1)
        poke(world, layout.desc + 14, 999)
    elif what == "writable":
        poke(world, layout.desc + 12, 2)
    else:
        poke(world, layout.desc + 6, 0xFFFF)
    world.run(without=["vcpu0"])
    assert world.simulation.dropped() == {"vhost_net.errors": 1}
    assert world.u16("used_idx") == 0
    assert ("next_work", "sleep") in done(world)


@pytest.mark.parametrize("what", ["avail.idx", "head", "readable", "length"])
def test_vhost_stops_at_a_bad_receive_buffer(what):
    world = Driven([IN], KNOWN)
    layout = world.vm.rx_layout
    world.move("vcpu0")
    if what == "avail.idx":
        poke(world, layout.avail_idx, 9999)
    elif what == "head":
        poke(world, layout.avail_ring(0), 256)
    elif what == "readable":
        poke(world, layout.desc + 12, 0)
    else:
        poke(world, layout.desc + 10, 0xFFFF)
    world.run(without=["vcpu0"])
    assert world.simulation.dropped() == {"vhost_net.errors": 1}
    assert world.u16("used_idx", "rx") == 0


def test_a_receive_buffer_in_several_pieces_is_filled_piece_by_piece():
    world = Driven([Item(kind="udp", length=400, outgoing=False)], KNOWN)
    memory, layout = world.vm.memory, world.vm.rx_layout
    world.move("vcpu0")
    first = int.from_bytes(memory.read(layout.desc, 8), "little")
    # Descriptor 0 becomes 100 bytes, and goes on with descriptor 255, which has room for the rest.
    poke(world, layout.desc + 8, 100)
    poke(world, layout.desc + 12, 3)
    poke(world, layout.desc + 14, 255)
    second = int.from_bytes(memory.read(layout.desc + 16 * 255, 8), "little")
    world.run(without=["vcpu0"])
    frame = world.simulation.traffic.frame(1)
    assert memory.read(first + 12, 88) + memory.read(second, len(frame) - 88) == frame
    assert memory.plain_u16[(layout.used_ring(0) + 4) // 2] == len(frame) + 12


@pytest.mark.parametrize(("items", "queue", "call"), [([OUT], "tx", "free_old_xmit"), ([IN], "rx", "virtnet_receive")])
def test_a_driver_stops_using_a_queue_whose_used_element_is_nonsense(items, queue, call):
    world = Driven(items, KNOWN)
    layout = world.vm.tx_layout if queue == "tx" else world.vm.rx_layout
    if queue == "tx":
        world.step_until("return_to_user", without=["vhost"])
    else:
        world.move("vcpu0")
    world.run(without=["vcpu0"])
    poke(world, layout.used_ring(0), 999)
    name = "vm1.transmitq1" if queue == "tx" else "vm1.receiveq1"
    world.move("vcpu0", "take_used")
    assert world.ops()[-1] == ("take_used", "bad")
    assert world.cell(f"{name}.broken") == 1
    world.run()


@pytest.mark.parametrize("what", ["too short", "too many pieces"])
def test_a_driver_drops_a_received_buffer_that_holds_no_packet(what):
    world = Driven([IN], KNOWN)
    layout = world.vm.rx_layout
    world.move("vcpu0").run(without=["vcpu0"])
    if what == "too short":
        poke(world, layout.used_ring(0) + 4, 20)
    else:
        buffer = int.from_bytes(world.vm.memory.read(layout.desc, 8), "little")
        poke(world, buffer + 10, 5)
    world.run()
    assert world.simulation.dropped() == {"vm1.virtio_net.rx_errors": 1}
    assert world.cell("vm1.program.received") == 0
