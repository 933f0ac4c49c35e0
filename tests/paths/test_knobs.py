"""What does not go together is refused with what to do; `test_every_knob` has what each setting is there for."""

from __future__ import annotations

import pytest
from driving import FLAGS, IN, KNOWN, OUT, Driven, Item, Pause, burst

from virtviz.errors import KnobError
from virtviz.paths.knobs import KNOBS, PROFILES, find_knob, make_world, parse_setting

PING = [Item(), Item(outgoing=False, answers=0)]


@pytest.mark.parametrize("choice", ["nic", "veth", "dummy"])
def test_each_far_port_takes_the_frame(choice):
    world = Driven([OUT], {"far_port": choice}).run()
    milestones = [step.milestone for step in world.steps()]
    assert milestones.count("on-wire") == 1


@pytest.mark.parametrize(
    ("settings", "knob", "advice"),
    [
        ({"queue.size": 16}, "queue.size", "set tx_stop_threshold below 16 (real Linux cannot)"),
        ({"queue.size": 64, "tx_stop_threshold": 64}, "queue.size", "set tx_stop_threshold below 64"),
        ({"cpu": "amd"}, "apicv", "set apicv=off"),
        ({"guest_kernel": "6.1"}, "guest_bql", "set guest_bql=off"),
        ({"busy_poll_us": 50, "path": "virtio-qemu"}, "busy_poll_us", "set path=vhost-net, or busy_poll_us=0"),
        ({"sndbuf": "limited", "path": "virtio-qemu"}, "sndbuf", "set path=vhost-net, or unlimited"),
        ({"sndbuf": "limited", "queues": 2}, "sndbuf", "set queues=1, or unlimited"),
        ({"sndbuf": "limited", "busy_poll_us": 9}, "sndbuf", "set busy_poll_us=0, or unlimited"),
        ({"halt_poll_ns": 200000}, "halt_poll_ns", "set vcpu=halted, or halt_poll_ns=0"),
        ({"pv_eoi": "off"}, "pv_eoi", "set apicv=off, or pv_eoi=on"),
        ({"profile": "recorded", "fast_mmio": "off"}, "fast_mmio", "set cpu=intel, or fast_mmio=on"),
        ({"path": "virtio-qemu", "ioeventfd": "off", "fast_mmio": "off"}, "fast_mmio", "set ioeventfd=on"),
        ({"ioeventfd": "off"}, "ioeventfd", "set path=virtio-qemu"),
        ({"queue.format": "packed"}, "queue.format", "does not offer VIRTIO_F_RING_PACKED"),
        ({"queue.format": "packed"}, "queue.format", "use split, or path=virtio-qemu"),
        ({"switch": "bridge", "tunnel": "vxlan"}, "tunnel", "set switch=ovs, or tunnel=none"),
        ({"device": "tun"}, "device", "set device=tap, or path=program"),
        ({"vms": 3}, "vms", "a whole number from 1 to 2"),
        ({"queue.size": 100}, "queue.size", "not 100: its indices count to 65536"),
        ({"queue.size": 100}, "queue.size", "set a power of two, or queue.format=packed"),
        ({"queue.size": 1025}, "queue.size", "a whole number from 4 to 1024, not '1025'"),
        ({"queue.size": "many"}, "queue.size", "a whole number from 4 to 1024, not 'many'"),
        ({"queue.start": 65536}, "queue.start", "a whole number from 0 to 65535"),
        ({"features": "tso"}, "features", "set features=csum,tso"),
        ({"features": "csum", "path": "vhost-user"}, "features", "leave them out of features"),
        ({"features": "csum,tso", "tunnel": "vxlan"}, "features", "not modelled for tunnel=vxlan"),
        ({"features": "event_idx,packed"}, "features", "any of event_idx, indirect, mergeable"),
        ({"apicv": "maybe"}, "apicv", "one of on, off, not 'maybe'"),
        ({"profile": "old"}, "profile", "one of default, recorded, not 'old'"),
        ({"que.size": 4}, "que.size", "did you mean queue.size?"),
        ({"xyzzy": 4}, "xyzzy", "the knobs are path, guest"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused_with_what_to_do(settings, knob, advice):
    with pytest.raises(KnobError) as caught:
        make_world(settings)
    assert caught.value.knob == knob
    assert advice in str(caught.value)


def test_a_path_that_the_transport_refuses_is_not_advised():
    with pytest.raises(KnobError, match=r"path=virtio-qemu$"):
        make_world({"queue.format": "packed", "transport": "mmio"})


def test_each_refusal_can_be_followed():
    make_world({"queue.size": 16, "tx_stop_threshold": 4})
    make_world({"cpu": "amd", "apicv": "off"})
    make_world({"guest_kernel": "6.1", "guest_bql": "off"})
    make_world({"pv_eoi": "off", "apicv": "off"})
    make_world({"switch": "ovs", "tunnel": "vxlan"})
    make_world({"switch": "bridge", "tunnel": "none"})


def test_settings_are_read_as_on_the_command_line():
    assert parse_setting(" queue.size = 128 ") == ("queue.size", "128")
    with pytest.raises(KnobError, match="write --set knob=value"):
        parse_setting("queue.size")


def test_later_settings_go_over_earlier_ones_and_over_the_profile():
    world = make_world({"profile": "recorded", "far_port": "nic"}, {"far_port": "dummy"})
    assert (world.profile, world["far_port"], world["apicv"]) == ("recorded", "dummy", "off")
    assert world["features"] == frozenset(("event_idx", "indirect", "mergeable"))


def test_both_profiles_are_worlds():
    for profile in PROFILES:
        assert make_world(profile=profile).plain()["profile"] == profile


def test_departures_from_linux_are_said():
    assert make_world().departures() == []
    said = make_world({"tx_stop_threshold": 4, "rx_buffer": 600}).departures()
    assert said == ["tx_stop_threshold 4 (Linux: 19)", "rx_buffer 600 (Linux: 1536 or more)"]


@pytest.mark.parametrize("knob", KNOBS)
def test_every_knob_says_what_it_does_and_what_it_may_be(knob):
    assert find_knob(knob).what.endswith(".")
    assert find_knob(knob).allowed()


# Names by kernel

NAMES = {
    "6.12": {"vhost_run_work_list", "vhost_task_wake", "free_old_xmit", "check_sq_full_and_disable"},
    "6.1": {"vhost_worker", "vhost_work_queue", "free_old_xmit_skbs"},
}


@pytest.mark.parametrize(("kernel", "other"), [("6.12", "6.1"), ("6.1", "6.12")])
def test_functions_have_their_names_in_the_worlds_kernels(kernel, other):
    settings = {"host_kernel": kernel, "guest_kernel": kernel, "guest_bql": "off"}
    steps = Driven(PING, settings).run().steps()
    functions = {step.function for step in steps}
    assert NAMES[kernel] <= functions
    assert not NAMES[other] & functions
    assert {step.source.split()[1] for step in steps if step.function in NAMES[kernel]} == {kernel}


@pytest.mark.parametrize(
    ("kernel", "what"),
    [("6.1", "kthread"), ("6.3", "kthread"), ("6.4", "vhost_task"), ("6.12", "vhost_task")],
)
def test_a_worker_is_a_kernel_thread_before_6_4_and_a_thread_of_qemu_since(kernel, what):
    steps = Driven([OUT], {"host_kernel": kernel}).run().steps()
    (text,) = {step.text for step in steps if step.op == "next_work" and step.outcome == "sleep"}
    assert what in text
    worker = [step for step in steps if step.place == "vhost_net"]
    woken = {step.function for step in worker if step.op == "wake_worker"}
    assert woken == {"vhost_task_wake" if what == "vhost_task" else "vhost_work_queue"}
    run = {step.function for step in worker if step.op == "next_work"}
    assert run == {"vhost_run_work_list" if kernel == "6.12" else "vhost_worker"}


@pytest.mark.parametrize("far_port", ["nic", "veth"])
def test_with_a_limited_send_buffer_vhost_sends_one_by_one_and_gives_all_back_at_once(far_port):
    def sent(sndbuf):
        world = Driven(burst(3), KNOWN | {"sndbuf": sndbuf, "far_port": far_port}).run(without=["vhost"]).run()
        steps = [step for step in world.steps() if step.thread == "vhost-4002"]
        return world, [step.op for step in steps], [w.new for s in steps for w in s.writes if w.field == "used.idx"]

    batched, ops, used = sent("unlimited")
    alone, single_ops, same = sent("limited")
    assert used == same == [3]
    assert batched.counters()["host_copies"] == alone.counters()["host_copies"]
    assert batched.counters()["host_syscalls"] == alone.counters()["host_syscalls"] == 0
    # In a batch all are copied first, and then all go; else each is copied by the TAP and goes at once.
    assert [op for op in ops if op in ("copy_packet", "next_frame")][:4] == ["copy_packet"] * 3 + ["next_frame"]
    handed = [op for op in single_ops if op in ("remember_head", "hand_up")]
    assert handed == ["hand_up", "remember_head"] * 3
    # And so they have left before the worker asks for the next kick.
    assert ops.index("enable_kicks") < ops.index("next_frame")
    assert single_ops.index("hand_up") < single_ops.index("enable_kicks")
    assert alone.simulation.dropped() == {}


@pytest.mark.parametrize("apicv", ["on", "off"])
def test_while_kvm_polls_an_interrupt_needs_no_wake_up_of_the_vcpu(apicv):
    def counted(nanoseconds):
        settings = KNOWN | {"vcpu": "halted", "apicv": apicv, "halt_poll_ns": nanoseconds}
        world = Driven(PING, settings).run()
        return world, world.counters()

    slept, asleep = counted(0)
    polled, awake = counted(200000)
    assert asleep["vcpu_wakeups"] > awake["vcpu_wakeups"] == 0
    assert asleep["light_exits"] == awake["light_exits"]
    assert ("poll", "interrupt") in polled.ops()
    assert slept.cell("vm1.program.received") == polled.cell("vm1.program.received") == 1


def test_when_kvm_has_polled_long_enough_the_vcpu_sleeps_after_all():
    settings = KNOWN | {"vcpu": "halted", "halt_poll_ns": 200000}
    lost = Driven([Item(), Item(outgoing=False, answers=0), OUT], settings | {"far_port": "dummy"}).run()
    assert ("poll", "time is up") in lost.ops()
    assert ("sleep", "sleep") in lost.ops()
    assert lost.u16("used_idx") == 2


def test_without_paravirtual_eoi_every_end_of_an_interrupt_is_an_exit():
    def counted(pv_eoi):
        world = Driven(PING, KNOWN | {"apicv": "off", "pv_eoi": pv_eoi}).run()
        counters = world.counters()
        return counters["light_exits"], counters["interrupts"], sum(op == "exit_msr" for op, _ in world.ops())

    (fewer, interrupts, quiet), (more, same, loud) = counted("on"), counted("off")
    assert interrupts == same == loud
    assert more - fewer == loud - quiet > 0


def test_an_end_of_an_interrupt_is_an_exit_while_another_one_waits():
    # Both queues' interrupts wait before the vCPU is in the guest again, and are injected one after the other.
    settings = KNOWN | {"apicv": "off", "vcpu": "halted", "far_port": "veth"}
    ops = Driven(PING, settings).run().ops()
    assert ("acknowledge", "exit") in ops


@pytest.mark.parametrize("path", ["vhost-net", "virtio-qemu"])
def test_without_the_fast_bus_a_kick_on_intel_is_decoded(path):
    def kick(fast):
        ops = [op for op, _ in Driven([OUT], KNOWN | {"path": path, "fast_mmio": fast}).run().ops()]
        return ops[ops.index("exit_ept_misconfig") : ops.index("vm_entry") + 1]

    assert "emulate" not in kick("on")
    assert kick("off")[:5] == ["exit_ept_misconfig", "try_fast_bus", "emulate", "find_ioeventfd", "signal_eventfd"]
    assert kick("off")[-1] == "vm_entry"


def test_an_older_guest_turns_callbacks_off_once_less_in_its_poll():
    begun = [
        [step.outcome for step in Driven(PING, KNOWN, {"guest_bql": "off", "guest_kernel": kernel}).run().steps()
         if (step.op, step.row) == ("begin", "G-RX.2")]
        for kernel in ("6.12", "6.1")
    ]  # fmt: skip
    assert begun == [["nothing"], ["begun"]]


def test_without_apicv_intel_has_a_function_of_its_own():
    for cpu, function in (("intel", "vmx_deliver_interrupt"), ("amd", "svm_deliver_interrupt")):
        steps = Driven([OUT], {"apicv": "off", "cpu": cpu}).run().steps()
        assert [step.function for step in steps if step.op == "deliver"] == [function]


def test_flags_instead_of_event_indices_are_written():
    steps = Driven([OUT, Pause(), IN], FLAGS).run().steps()
    written = {write.field for step in steps for write in step.writes}
    assert {"avail.flags", "used.flags"} <= written
    assert "avail_event" not in written


@pytest.mark.parametrize(
    "setting",
    [
        {"ioeventfd": "off"},
        {"features": "event_idx"},
        {"queue.start": 5},
        {"rx_buffer": 64},
        {"napi_tx": "off"},
        {"tx_stop_threshold": 40},
        {"guest_bql": "off"},
        {"tx_batch": 4},
        {"weight": 8},
        {"device_checks": "qemu"},
    ],
    ids=str,
)
def test_settings_of_virtio_mean_nothing_for_an_e1000_and_are_refused_with_what_to_do(setting):
    (name,) = setting
    with pytest.raises(KnobError) as caught:
        make_world({"path": "e1000"} | setting)
    assert name in str(caught.value)
    assert "or set path=vhost-net or path=virtio-qemu" in str(caught.value)


def test_the_ring_of_an_e1000_is_not_smaller_than_linux_makes_it():
    with pytest.raises(KnobError, match=r"set queue\.size=64 or more"):
        make_world({"path": "e1000", "queue.size": 32})
