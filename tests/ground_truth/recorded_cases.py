"""The recorded cases, and for each the world in which a simulation does the same.

A recording shows one moment of one guest: whether its CPU ran or slept, whether interrupts were enabled, who was
faster. What is chosen here was read off the recording and is written beside it; nothing below `tests/` knows of any
case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from recorded_lines import GUEST_HARDIRQ, GUEST_SOFTIRQ, HANDLER, MAIN_LOOP, PAIR, SECOND, VCPU, WORKER

from virtviz.engine.trace import Trace
from virtviz.paths.knobs import make_world
from virtviz.paths.traffic import Item, Pause, make_traffic
from virtviz.paths.wiring import Simulation, simulate

UDP = {"kind": "udp", "length": 18}
ONE_OUT = (Item(**UDP), Pause(), Item("packet", **UDP))
TWO_OUT = (*ONE_OUT, Pause(), Item(**UDP))
ONE_ACROSS = (Item("packet", to_vm=1, **UDP),)
ONE_OUT_1 = (Item(vcpu=1, **UDP), Pause(), Item("packet", vcpu=1, **UDP))
ONE_IN = (Item("packet", outgoing=False, **UDP),)
PING = (Item(), Item(outgoing=False, answers=0), Pause(), Item("packet"), Item(outgoing=False, answers=2))
PING_1 = (
    Item(vcpu=1),
    Item(outgoing=False, answers=0, vcpu=1),
    Pause(),
    Item("packet", vcpu=1),
    Item(outgoing=False, answers=2, vcpu=1),
)
PING_FIRST = (Item("packet"), Item(outgoing=False, answers=0))

KNOWN = {"flows": "known"}
QEMU = {"path": "virtio-qemu"}
HEAVY = QEMU | {"ioeventfd": "off"}
BRIDGE = {"switch": "bridge"}
E1000 = {"path": "e1000"}
PAIRS = {"queues": 2}
OFF, HALTED, NIC = {"guest_if": "off"}, {"vcpu": "halted"}, {"far_port": "nic"}

TO_ENTRY = ("vcpu", "vm_entry")
TO_WAKEUP = ("vcpu", "wake_worker")
TO_HALT = ("vcpu", "exit_hlt")
TO_REST = ("vcpu", "")
OTHER_TO_REST = ("vm2.vcpu", "")
TO_ENTRY_1, TO_REST_1 = ("vcpu1", "vm_entry"), ("vcpu1", "")
WORKER_2_DONE = ("vhost-4002.q2", "")
TX_SIGNALLED = ("vhost", "kick_vcpu")
WORKER_DONE = ("vhost", "")
QEMU_DONE = ("qemu", "")
HANDLER_DONE = ("handler1", "")
HANDLER_2_DONE = ("handler2", "")
TO_ICR = ("vcpu", "read_icr")
TIMER_OVER = ("vm1.mitigation", "")

Reasons = Mapping[tuple[str, str], tuple[int, str]]
TIMER_FIRST = {
    (VCPU, "kvm_entry"): (
        1,
        "the guest's timer took the entry at which the device's interrupt could have been injected",
    ),
    (VCPU, "kvm_exit:vintr"): (1, "so the device's interrupt needed an interrupt-window exit"),
}
TIMER_TWICE = {key: (2, why) for key, (_, why) in TIMER_FIRST.items()}
VCPU_B = VCPU + SECOND
OTHER_TIMER = "guest B's timer, kept by the host, wakes its vCPU once more"
ENDS_BEFORE_MAIN_LOOP = {
    (MAIN_LOOP, name): (1, "the recording ends before the main loop has looked why it was woken last")
    for name in (
        "switch in",
        "ppoll:ret=1",
        "read:eventfd",
        "eventfd_read",
        "read:ret=data",
        "ppoll:enter",
        "switch out",
    )
}
LOCK_CONTENDED = "the main loop had to wait for the Big QEMU Lock, which the vCPU's thread held"
WAKES_UP = ("switch in", "kvm_vcpu_wakeup", "kvm_entry")
HALTS = ("kvm_exit:hlt", "kvm_vcpu_halt", "kvm_vcpu_block", "switch out")
IDLE_TIMER = "the timer of vCPU 0, kept by the host, wakes it, although it has nothing to do with the packet"
RECEIVE_FIRST = {
    (thread + PAIR, function): (
        count,
        (
            "on vCPU 1 the recorded guest had given the receive queue the higher vector, which is taken first; here "
            "the transmit queue has it on every vCPU"
        ),
    )
    for thread, functions in {
        GUEST_HARDIRQ: {"irq_handler_entry": 1, "vring_interrupt": 1, "skb_recv_done": 1, "virtqueue_disable_cb": 1},
        GUEST_SOFTIRQ: {
            "virtnet_poll_tx": 1,
            "virtqueue_disable_cb": 1,
            "free_old_xmit_skbs": 1,
            "virtqueue_get_buf": 2,
            "virtqueue_enable_cb_prepare": 1,
            "napi_complete_done": 1,
            "virtqueue_poll": 1,
        },
    }.items()
    for function, count in functions.items()
}
OTHER_HANDLER = (
    "the scheduler ran handler1 where upcalls are handler2's; here a handler stays on its CPU and takes both"
)
TWO_HANDLERS = {
    (HANDLER, name): (count, OTHER_HANDLER)
    for name, count in {
        "wake OVS handler": 1,
        "switch in": 1,
        "poll:ret=1": 1,
        "recvmsg:enter": 2,
        "recvmsg:ret=-11": 2,
        "poll:enter": 3,
        "poll:ret=0": 2,
        "switch out": 1,
    }.items()
}
ONE_HANDLER = {
    (HANDLER, name): (1, OTHER_HANDLER) for name in ("recvmsg:enter", "recvmsg:ret=-11", "poll:enter", "poll:ret=0")
}


@dataclass(frozen=True, slots=True)
class Case:
    """A recorded case.

    Attributes:
        name: the file's name without its ending.
        items: what is sent; the packet called `packet` is the recorded one, what comes before it only warms up.
        settings: the world, over the profile `recorded`.
        plan: who moves until what, from the recorded packet's system call on; then everybody until blocked.
        why: what in the recording shows it.
        unmatched: logical thread and function -> how many recorded ones the simulation does not have, and why.
        extra: the same for what the simulation has and the recording has not.
        softirq_apart: see `recorded_lines.reduce`.
    """

    name: str
    items: Sequence[Item | Pause]
    settings: Mapping[str, object]
    plan: Sequence[tuple[str, str]]
    why: str
    unmatched: Reasons = field(default_factory=dict)
    extra: Reasons = field(default_factory=dict)
    softirq_apart: bool = False

    @property
    def protocol(self) -> str:
        """The protocol of the recorded packet."""
        return "udp" if any(isinstance(i, Item) and i.kind == "udp" for i in self.items) else "icmp"

    @property
    def qemu_events(self) -> bool:
        """Whether QEMU's own events were recorded too."""
        return self.name.endswith("with-qemu-events")

    @property
    def begins_with(self) -> str:
        """The line the recorded window begins with."""
        first = next(i for i in self.items if isinstance(i, Item) and i.id == "packet")
        if not first.outgoing:
            return "softirq_entry"
        return "e1000_xmit_frame" if self.settings.get("path") == "e1000" else "start_xmit"


CASES = (
    Case(
        "vhost-tap-ovs.tx1-hit",
        ONE_OUT,
        KNOWN | OFF,
        (TO_ENTRY, WORKER_DONE),
        (
            "kvm_entry stands before handle_tx_kick: the guest runs. After the kick IPI a vintr exit: its "
            "interrupts are off"
        ),
    ),
    Case("vhost-tap-ovs.tx1-hit.rep1", ONE_OUT, KNOWN | OFF, (TO_ENTRY, WORKER_DONE), "as tx1-hit"),
    Case(
        "vhost-tap-ovs.tx1-hit.rep2",
        ONE_OUT,
        KNOWN,
        (TO_WAKEUP, WORKER_DONE),
        "kvm_entry stands after the worker's sched_switch (S), and injects: the worker was faster than the entry",
    ),
    Case("vhost-tap-ovs.tx1-hit.rep3", ONE_OUT, KNOWN | OFF, (TO_ENTRY, WORKER_DONE), "as tx1-hit"),
    Case(
        "vhost-tap-ovs.tx1-hit.with-qemu-events",
        ONE_OUT,
        KNOWN,
        (TO_ENTRY, WORKER_DONE),
        "the guest runs, and the kick IPI's entry injects at once: its interrupts are on",
    ),
    Case("vhost-tap-ovs.rx1-hit", ONE_IN, KNOWN | HALTED, (TO_REST,), "kvm_vcpu_wakeup: the vCPU had halted"),
    Case("vhost-tap-ovs.rx1-hit.with-qemu-events", ONE_IN, KNOWN | HALTED, (TO_REST,), "as rx1-hit"),
    Case(
        "vhost-tap-ovs.ping-hit",
        PING,
        KNOWN | HALTED,
        (TO_REST, WORKER_DONE),
        "the vCPU halts before handle_tx_kick and sleeps until both interrupts wait",
    ),
    Case(
        "vhost-tap-ovs.ping-hit.rep1",
        PING,
        KNOWN | HALTED,
        (TO_REST, WORKER_DONE),
        "as ping-hit; the guest's timer wakes the vCPU while the worker is at work",
        TIMER_FIRST | {(WORKER, "wake vCPU thread"): (1, "the timer had woken the vCPU before the first signal")},
        {(WORKER, "wake vCPU thread"): (1, "without a timer the first signal wakes the vCPU")},
    ),
    Case(
        "vhost-tap-ovs.ping-hit.rep2",
        PING,
        KNOWN | OFF,
        (TO_ENTRY, TX_SIGNALLED, TO_ENTRY, WORKER_DONE),
        "the guest runs with interrupts off: a kick IPI for each of the two signals, then two vintr exits",
    ),
    Case(
        "vhost-tap-ovs.ping-hit.with-qemu-events",
        PING,
        KNOWN | HALTED,
        (TO_REST, WORKER_DONE),
        "as ping-hit; the timer's interrupt is injected first",
        TIMER_FIRST,
    ),
    Case(
        "vhost-tap-ovs.ping-first",
        PING_FIRST,
        OFF | HALTED,
        (TO_WAKEUP, WORKER_DONE),
        "kvm_entry stands after the worker's sched_switch (S); a vintr exit; then the vCPU halts until the answer",
        {
            (VCPU, name): (1, "the guest's timer woke the halted vCPU once in between, and it halted again")
            for name in (
                "kvm_entry",
                "kvm_exit:hlt",
                "kvm_vcpu_halt",
                "kvm_vcpu_block",
                "switch out",
                "switch in",
                "kvm_vcpu_wakeup",
            )
        },
    ),
    Case(
        "vhost-tap-ovs.ping-first.with-qemu-events",
        PING_FIRST,
        OFF | HALTED,
        (TO_ENTRY, WORKER_DONE, TO_HALT, HANDLER_DONE, WORKER_DONE),
        "the answer's interrupt comes between the HLT exit and kvm_vcpu_halt, which therefore does not sleep",
        TIMER_FIRST,
    ),
    Case(
        "vhost-tap-ovs-nic.ping-hit",
        PING,
        KNOWN | OFF | NIC,
        (TO_WAKEUP, ("vhost", "ring_doorbell"), ("eth0", ""), ("softirq", ""), WORKER_DONE),
        (
            "the card interrupts the worker inside e1000_xmit_frame; kvm_entry stands after both signals, "
            "then two vintr exits"
        ),
        softirq_apart=True,
    ),
    Case(
        "vhost-tap-ovs-nic.ping-first",
        PING_FIRST,
        OFF | NIC | {"handlers": 1},
        (
            TO_ENTRY,
            WORKER_DONE,
            TO_REST,
            ("handler1", "ring_doorbell"),
            ("eth0", ""),
            ("softirq", ""),
            ("handler1", "wake_worker"),
            WORKER_DONE,
            HANDLER_DONE,
        ),
        "worker and softirq run on one CPU, so one handler takes both upcalls; the worker preempts it inside sendmsg",
        {
            (VCPU, "kvm_exit:msr"): (
                2,
                "one reads msr 3b, the idle guest's time-keeping; one ends the interrupt while the timer waits",
            ),
            (VCPU, "kvm_msr"): (2, "as above"),
            (VCPU, "kvm_entry"): (3, "after those two, and after the HLT that the waiting timer ended at once"),
            (VCPU, "kvm_exit:hlt"): (1, "the guest halts, but its timer is pending and it goes on at once"),
            (VCPU, "kvm_exit:vintr"): (1, "the timer's interrupt is injected first"),
            (HANDLER, "switch out"): (1, "a futex of ovs-vswitchd was contended"),
            (HANDLER, "switch in"): (1, "a futex of ovs-vswitchd was contended"),
        },
        {
            (VCPU, "kvm_exit:interrupt"): (
                1,
                "the guest runs when the answer comes; in the recording the vCPU was outside the guest",
            )
        },
        softirq_apart=True,
    ),
    Case(
        "vhost-tap-bridge.tx1-hit",
        ONE_OUT,
        KNOWN | BRIDGE,
        (TO_ENTRY, WORKER_DONE),
        "a bridge in place of Open vSwitch; the kick IPI's entry injects at once: the guest's interrupts are on",
    ),
    Case(
        "vhost-tap-bridge.ping-hit",
        PING,
        KNOWN | BRIDGE | OFF,
        (TO_WAKEUP, WORKER_DONE),
        "the same bridge; kvm_entry stands after the worker's sched_switch (S), then two vintr exits",
    ),
    Case(
        "vhost-napi-tx-off-tap-ovs.tx1-hit",
        ONE_OUT,
        KNOWN | {"napi_tx": "off"},
        (TO_ENTRY, WORKER_DONE),
        "the same guest with napi_tx=0",
    ),
    Case(
        "vhost-napi-tx-off-tap-ovs.tx2-hit",
        TWO_OUT,
        KNOWN | {"napi_tx": "off"},
        (TO_ENTRY, WORKER_DONE),
        "the same, and another packet when the first has long been handled",
        {
            (VCPU, name): (count, "between the two packets the guest idles, and starts the second sender")
            for name, count in {
                "kvm_entry": 3,
                "kvm_exit:hlt": 2,
                "kvm_vcpu_halt": 1,
                "kvm_vcpu_block": 1,
                "switch out": 1,
                "switch in": 1,
                "kvm_vcpu_wakeup": 1,
            }.items()
        },
    ),
    Case(
        "vhost-vm-to-vm-ovs.udp1-hit",
        ONE_ACROSS,
        KNOWN | HALTED | {"vms": 2},
        (OTHER_TO_REST, TO_ENTRY, WORKER_DONE),
        "kvm_entry of A stands before handle_tx_kick: guest A runs; kvm_vcpu_wakeup of B: its vCPU had halted",
        {
            (VCPU_B, "kvm_exit:msr"): (
                1,
                "guest B's timer waits when the interrupt is ended, so that this takes an exit",
            ),
            (VCPU_B, "kvm_msr"): (1, "as above"),
            (VCPU_B, "kvm_entry"): (2, "after that exit, and after the timer's wake-up"),
            (VCPU, f"wake {VCPU_B}"): (1, OTHER_TIMER),
        }
        | {(VCPU_B, name): (1, OTHER_TIMER) for name in ("switch in", "kvm_vcpu_wakeup")}
        | {
            (VCPU_B, name): (2, "guest B waits for another packet and halts, twice because of its timer")
            for name in ("kvm_exit:hlt", "kvm_vcpu_halt", "kvm_vcpu_block", "switch out")
        },
    ),
    Case(
        "vhost-mq-tap-ovs.tx1-q0-hit",
        ONE_OUT,
        KNOWN | PAIRS | OFF,
        (TO_ENTRY, WORKER_DONE),
        "two queue pairs, the sender on vCPU 0: the first pair's worker; a vintr exit: the guest's interrupts are off",
    ),
    Case(
        "vhost-mq-tap-ovs.tx1-q1-hit",
        ONE_OUT_1,
        KNOWN | PAIRS,
        (TO_ENTRY_1, WORKER_2_DONE),
        "the same with the sender on vCPU 1: the second pair's worker; the kick IPI's entry injects at once",
        {(VCPU, name): (1, IDLE_TIMER) for name in (*WAKES_UP, *HALTS)}
        | {(VCPU + PAIR, f"wake {VCPU}"): (1, IDLE_TIMER)},
    ),
    Case(
        "vhost-mq-tap-ovs.ping-q1-hit",
        PING_1,
        KNOWN | PAIRS | HALTED,
        (TO_REST_1, WORKER_2_DONE),
        "vCPU 1 halts before handle_tx_kick and sleeps until both interrupts wait; the answer comes on its own pair",
        {(VCPU, name): (1, IDLE_TIMER) for name in WAKES_UP}
        | {(VCPU + PAIR, function): reason for (_, function), reason in TIMER_FIRST.items()}
        | RECEIVE_FIRST,
        RECEIVE_FIRST,
    ),
    Case(
        "virtio-qemu-tap-ovs.tx1-hit",
        ONE_OUT,
        KNOWN | QEMU | OFF,
        (TO_ENTRY, QEMU_DONE),
        "kvm_entry is before ppoll returns: the guest runs. After the kick IPI a vintr exit: its interrupts are off",
    ),
    Case(
        "virtio-qemu-tap-ovs.tx1-hit.with-qemu-events",
        ONE_OUT,
        KNOWN | QEMU | OFF,
        (TO_ENTRY, QEMU_DONE),
        "as tx1-hit",
    ),
    Case(
        "virtio-qemu-tap-ovs.ping-first",
        PING_FIRST,
        QEMU | HALTED,
        (TO_REST, QEMU_DONE),
        "the vCPU halts before ppoll returns, is woken by each of the two interrupts, and halts in between",
        TIMER_FIRST
        | {
            (VCPU, "kvm_entry"): (2, "the guest's timer took one entry; the other follows the exit below"),
            (VCPU, "kvm_exit:msr"): (1, "the interrupt is ended while the timer waits"),
            (VCPU, "kvm_msr"): (1, "as above"),
        }
        | {
            (HANDLER, name): (count, OTHER_HANDLER)
            for name, count in {
                "wake OVS handler": 1,
                "switch in": 1,
                "poll:enter": 2,
                "poll:ret=0": 1,
                "recvmsg:enter": 1,
                "recvmsg:ret=-11": 1,
                "switch out": 1,
                "poll:ret=1": 1,
            }.items()
        },
    ),
    Case(
        "virtio-qemu-tap-ovs.ping-first.with-qemu-events",
        PING_FIRST,
        QEMU | HALTED,
        (TO_REST, QEMU_DONE, ("vcpu", "enable_callbacks"), ("handler1", ""), ("handler2", ""), QEMU_DONE),
        "the answer's interrupt comes while the guest polls its transmit queue",
        TIMER_TWICE
        | {(GUEST_SOFTIRQ, "softirq_entry"): (1, "the softirq ran in ksoftirqd, which leaves it and takes it up again")}
        | TWO_HANDLERS,
        ONE_HANDLER,
    ),
    Case(
        "virtio-qemu-noioeventfd-tap-ovs.tx1-hit",
        ONE_OUT,
        KNOWN | HEAVY,
        (TO_ENTRY, QEMU_DONE),
        "kvm_entry is before ppoll returns, and the kick IPI's entry injects at once: the guest's interrupts are on",
    ),
    Case(
        "virtio-qemu-noioeventfd-tap-ovs.tx1-hit.with-qemu-events",
        ONE_OUT,
        KNOWN | HEAVY | OFF,
        (TO_ENTRY, QEMU_DONE),
        "the same with interrupts off: a vintr exit",
    ),
    Case(
        "e1000-tap-ovs.tx1-hit",
        ONE_OUT,
        KNOWN | E1000,
        (TO_REST,),
        "the main loop's ppoll returns while the guest is in its interrupt: the timer's 128 µs are over by then",
    ),
    Case(
        "e1000-tap-ovs.tx1-hit.with-qemu-events",
        ONE_OUT,
        KNOWN | E1000,
        (TO_REST,),
        "as tx1-hit",
    ),
    Case(
        "e1000-tap-ovs.rx1-hit",
        ONE_IN,
        KNOWN | E1000 | HALTED,
        (TO_REST,),
        "kvm_vcpu_wakeup: the vCPU had halted",
        {
            (VCPU, "wake QEMU main loop"): (1, LOCK_CONTENDED),
            (MAIN_LOOP, "switch out"): (1, LOCK_CONTENDED),
            (MAIN_LOOP, "switch in"): (1, LOCK_CONTENDED),
        },
    ),
    Case(
        "e1000-tap-ovs.rx1-hit.with-qemu-events",
        ONE_IN,
        KNOWN | E1000 | HALTED,
        (TO_REST,),
        "as rx1-hit",
        extra=ENDS_BEFORE_MAIN_LOOP,
    ),
    Case(
        "e1000-tap-ovs.ping-hit",
        PING,
        KNOWN | E1000,
        (TO_ICR, TIMER_OVER, QEMU_DONE),
        "ppoll returns 2, for eventfd and TAP, and the answer is there before ICR is read: one interrupt for both",
    ),
    Case(
        "e1000-tap-ovs.ping-hit.with-qemu-events",
        PING,
        KNOWN | E1000,
        (TO_ICR, TIMER_OVER, QEMU_DONE),
        "as ping-hit",
    ),
    Case(
        "e1000-tap-ovs.ping-first",
        PING_FIRST,
        E1000,
        (TO_REST, HANDLER_2_DONE, TIMER_OVER, QEMU_DONE),
        (
            "the main loop gets to run when the answer has come. The timer is over but not run: the frame raises no "
            "line, and the timer does"
        ),
        {
            (VCPU, "kvm_exit:vintr"): (1, "the guest is at work with interrupts off when the answer's comes"),
            (VCPU, "kvm_entry"): (1, "after that exit"),
        }
        | TWO_HANDLERS,
        ENDS_BEFORE_MAIN_LOOP | ONE_HANDLER,
    ),
    Case(
        "e1000-tap-ovs.ping-first.with-qemu-events",
        PING_FIRST,
        E1000 | HALTED,
        (TO_REST,),
        "the vCPU halts, and sleeps until the answer's interrupt",
        TIMER_FIRST | TWO_HANDLERS,
        ONE_HANDLER,
    ),
)


def run(case: Case) -> tuple[Simulation, Trace, int]:
    """Run a case in its own order."""
    simulation = simulate(make_world({"profile": "recorded"}, case.settings), make_traffic(case.items))
    machine = simulation.machine
    packet = simulation.traffic.packet_called("packet")
    vcpu = simulation.vms[0].pairs[simulation.traffic.item_of(packet)[1].vcpu].vcpu
    # The warm-up, as it comes.
    if case.begins_with != "softirq_entry":
        while machine.step() and vcpu.me.packet != packet:
            pass
    begin = machine.position
    for thread, until in case.plan:
        index = next(i for i, t in enumerate(machine.threads) if thread in t.name)
        while machine.move(index) and machine.arc_at(machine.position - 1).op.name != until:
            pass
    machine.run()
    return simulation, Trace(machine), begin
