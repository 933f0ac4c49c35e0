"""What holds for every burst, recorded or simulated, however fast anybody was."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from conformance import COUNTS
from projected_lines import project
from recorded_lines import WORKER, reduce

from virtviz.engine.schedule import BySimulatedTime, Chosen
from virtviz.engine.trace import Trace
from virtviz.paths.knobs import make_world
from virtviz.paths.traffic import Item, make_traffic
from virtviz.paths.wiring import simulate

RECORDED = [name for name in COUNTS if "txburst" in name]
PACKETS = 64


class Tally:
    """The numbers the invariants speak of: packets, kicks, rounds, chains, calls, signals, injections, empties."""

    def __init__(self, **numbers):
        self.__dict__.update(numbers)


def recorded(name):
    entry = COUNTS[name]
    host, results = entry["host_functions"], entry["vhost_and_kvm_results"]
    guest = entry.get("guest_functions", {})
    return Tally(
        kicks=host["ioeventfd_write"],
        exits=entry["vm_exits"]["npf: MMIO write, handled in the kernel (ioeventfd)"],
        heavy=entry["exits_to_user_space_total"],
        rounds=host["handle_tx"],
        chains=results["vhost_get_vq_desc -> got a chain"],
        empties=results["vhost_get_vq_desc -> empty"],
        more=results.get("vhost_enable_notify -> more work found", 0),
        frames=host["netif_receive_skb"],
        sends=host["tun_sendmsg"],
        calls=host["vhost_add_used_and_signal_n"],
        signals=entry["eventfd_signals"].get("vhost_tx_batch", 0),
        injections=sum(n for key, n in entry["interrupt_injections"].items() if "0x28" in key and "re-" not in key),
        wakeups=sum(n for key, n in entry["thread_wakeups"].items() if key.startswith("vhost")),
        requeues=0,
        asked=guest.get("virtqueue_kick_prepare"),
        reclaims=guest.get("virtqueue_get_buf"),
        reclaim_rounds=guest.get("free_old_xmit_skbs"),
    )


def simulated(scheduler, *settings):
    world = make_world({"profile": "recorded", "flows": "known"}, *settings)
    simulation = simulate(world, make_traffic([Item(kind="udp", length=18) for _ in range(PACKETS)]))
    while simulation.machine.run(scheduler=scheduler):
        pass
    simulation.machine.run()
    assert simulation.dropped() == {}
    trace = Trace(simulation.machine)
    lines = project(trace, 0, "udp", "start_xmit")
    functions = Counter(name for _, name in lines.lines)
    results = Counter((name, value) for name, values in lines.results.items() for value in values)
    ops = Counter((trace.machine.arc_at(n).op.path, trace.machine.arc_at(n).outcome) for n in range(len(trace)))
    return Tally(
        kicks=functions["ioeventfd_write"],
        exits=functions["kvm_exit:npf"],
        heavy=0,
        rounds=functions["handle_tx"],
        chains=results["vgd", "head"],
        empties=results["vgd", "empty"],
        more=results["ven", "1"],
        frames=functions["netif_receive_skb"],
        sends=functions["tun_sendmsg"],
        calls=functions["vhost_add_used_and_signal_n"],
        signals=sum(name == "eventfd_signal" for thread, name in lines.lines if thread == WORKER),
        injections=functions["kvm_inj_virq"],
        wakeups=functions["wake vhost worker"],
        requeues=ops["vm1.transmitq1.handle/requeue", "done"],
        asked=functions["virtqueue_kick_prepare"],
        reclaims=functions["virtqueue_get_buf"],
        reclaim_rounds=functions["free_old_xmit_skbs"],
    )


def check(burst):
    assert burst.chains == burst.frames == PACKETS
    assert 1 <= burst.kicks <= PACKETS
    assert burst.exits == burst.kicks
    assert burst.heavy == 0
    assert burst.rounds <= burst.kicks + burst.requeues
    assert burst.wakeups <= burst.kicks
    assert burst.empties == burst.rounds - burst.requeues + burst.more
    assert burst.sends == burst.calls <= burst.rounds + PACKETS // 64
    assert burst.signals <= burst.calls
    assert burst.injections <= burst.signals
    if burst.asked is not None:
        assert burst.asked == PACKETS
        # Each buffer comes back once; every round of reclaiming ends by finding none.
        assert burst.reclaims == PACKETS + burst.reclaim_rounds


def test_all_recorded_bursts_are_here():
    assert len(RECORDED) == 4


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_burst_keeps_the_invariants(name):
    check(recorded(name))


@pytest.mark.parametrize(
    "settings",
    [{}, {"vcpu": "halted"}, {"guest_if": "off"}, {"tx_batch": 8}, {"weight": 20}, {"queue.start": 65500}],
    ids=str,
)
def test_a_burst_in_simulated_time_keeps_the_invariants(settings):
    check(simulated(BySimulatedTime(), settings))


@pytest.mark.parametrize("seed", range(8))
def test_a_burst_in_any_order_keeps_the_invariants(seed):
    chance = random.Random(seed)
    check(simulated(Chosen(lambda machine: chance.choice(machine.movable() or [-1]))))


def test_a_readable_run_sends_the_whole_burst_with_one_kick():
    burst = simulated(None)
    check(burst)
    assert (burst.kicks, burst.rounds, burst.signals, burst.injections) == (1, 1, 1, 1)


@pytest.mark.parametrize("seed", [0, 1, 2, 3, None])
def test_a_burst_into_the_guest_keeps_the_invariants(seed):
    world = make_world({"profile": "recorded", "flows": "known"})
    simulation = simulate(world, make_traffic([Item(kind="udp", length=18, outgoing=False) for _ in range(PACKETS)]))
    machine, chance = simulation.machine, random.Random(seed)
    order = Chosen(lambda machine: chance.choice(machine.movable() or [-1]))
    while machine.run(scheduler=BySimulatedTime() if seed is None else order):
        pass
    machine.run()
    assert simulation.dropped() == {}
    lines = project(Trace(machine), 0, "udp", "tun_net_xmit")
    functions = Counter(name for _, name in lines.lines)
    results = Counter((name, value) for name, values in lines.results.items() for value in values)
    signals = sum(name == "eventfd_signal" for thread, name in lines.lines if thread == WORKER)
    # A frame is one copy and one buffer; the worker's rounds end because the TAP is empty.
    assert functions["skb_copy_datagram_iter"] == results["vgd", "head"] == PACKETS
    # Buffers remain, so that no kick is asked for, and none comes.
    assert functions["vhost_enable_notify"] == functions["ioeventfd_write"] == functions["kvm_exit:npf"] == 0
    assert functions["wake vhost worker"] <= functions["handle_rx"] <= functions["tun_net_xmit"] == PACKETS
    # Most often the guest polls already, and moves used_event no further.
    assert 1 <= functions["kvm_inj_virq"] <= signals <= functions["vhost_add_used_and_signal_n"] <= PACKETS


@pytest.mark.parametrize("ioeventfd", ["on", "off"])
@pytest.mark.parametrize("seed", range(6))
def test_a_burst_through_qemu_keeps_the_invariants_of_its_back_end(seed, ioeventfd):
    chance = random.Random(seed)
    world = make_world({"profile": "recorded", "flows": "known", "path": "virtio-qemu", "ioeventfd": ioeventfd})
    out, back = Item(kind="udp", length=18), Item(kind="udp", length=18, outgoing=False)
    simulation = simulate(world, make_traffic([item for _ in range(PACKETS) for item in (out, back)]))
    simulation.machine.run(scheduler=Chosen(lambda machine: chance.choice(machine.movable() or [-1])))
    functions = Counter(name for _, name in project(Trace(simulation.machine), 0, "udp", "start_xmit").lines)
    kicks = functions["kvm_exit:npf"]
    assert functions["writev:tap"] == PACKETS
    # Frames are read one by one, and every round of reading ends by finding none.
    assert functions["skb_copy_datagram_iter"] == PACKETS
    assert functions["read:tap"] == PACKETS + functions["read:ret=-11"]
    assert 1 <= kicks <= PACKETS
    assert functions["ioeventfd_write" if ioeventfd == "on" else "kvm_userspace_exit"] == kicks
    # A kick of a queue that waits already wakes nobody.
    assert functions["write:eventfd"] <= (kicks if ioeventfd == "off" else 0)
    assert functions["read:eventfd"] <= kicks
    assert functions["ioctl:KVM_SIGNAL_MSI"] <= 2 * PACKETS
    assert functions["kvm_inj_virq"] <= functions["ioctl:KVM_SIGNAL_MSI"]


@pytest.mark.parametrize("outgoing", [True, False], ids=["out", "in"])
@pytest.mark.parametrize("seed", [0, 1, 2, None])
def test_a_burst_of_an_emulated_card_keeps_the_invariants(seed, outgoing):
    world = make_world({"profile": "recorded", "flows": "known", "path": "e1000"})
    items = [Item(kind="udp", length=18, outgoing=outgoing) for _ in range(PACKETS)]
    simulation = simulate(world, make_traffic(items))
    machine = simulation.machine
    chance = random.Random(seed)
    order = Chosen(lambda machine: chance.choice(machine.movable() or [-1]))
    while machine.run(scheduler=BySimulatedTime() if seed is None else order):
        pass
    machine.run()
    assert simulation.dropped() == {}
    ops = Counter(machine.arc_at(n).op.name for n in range(machine.length))
    heavy, interrupts = ops["return_to_qemu"], ops["read_icr"]
    # Of an interrupt the handler reads the cause, masks and flushes; the poll's end unmasks and flushes.
    assert 1 <= interrupts == ops["unmask"] // 2 <= PACKETS
    if outgoing:
        # Every store of the tail sends at once what is there, frame by frame; several packets may share one.
        assert ops["write_back"] == ops["hand_up"] == PACKETS
        assert 1 <= heavy - 5 * interrupts <= PACKETS
        assert ops["park"] == 0
    else:
        assert ops["set_done"] == PACKETS
        assert heavy == 5 * interrupts
        # Refills are only noted, by KVM.
        assert 1 <= ops["park"] <= PACKETS


def test_the_kept_parts_of_the_recorded_burst_are_a_bursts_beginning_and_end():
    threads = reduce("vhost-tap-ovs.txburst").threads
    one = ["start_xmit", "virtqueue_disable_cb", "free_old_xmit_skbs", "virtqueue_get_buf"]
    one += ["virtqueue_enable_cb_delayed", "virtqueue_add_outbuf", "virtqueue_kick_prepare"]
    guest = threads["guest process"]
    # Only the first packet kicks before the worker has run.
    assert guest[:9] == [*one, "virtqueue_notify", "vp_notify"]
    assert guest[9:25] == ["dev_hard_start_xmit", *one] * 2
    poll = ["softirq_entry", "virtnet_poll_tx", "virtqueue_disable_cb", "free_old_xmit_skbs", "virtqueue_get_buf"]
    end = ["virtqueue_enable_cb_prepare", "napi_complete_done"]
    softirq = threads["guest softirq"]
    # An interrupt came while the poll was at work: it is polled again, and then there is nothing.
    assert softirq[softirq.index("...") + 1 :] == [
        *poll,
        "virtqueue_get_buf",
        *end,
        "virtqueue_disable_cb",
        *poll,
        *end,
        "virtqueue_poll",
    ]
