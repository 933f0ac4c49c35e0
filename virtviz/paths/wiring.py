"""Putting a simulated world together: from settings and traffic to a machine that stands just before its first step.

A virtual machine, a back-end and a far port are each made by one function; a data path is the choice of which are joined. What happens before the first packet
(filling the receive queue, putting workers to sleep) is run like everything else, and then forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from virtviz.engine.counting import CountingMachine
from virtviz.engine.places import Domain, Place, Role
from virtviz.engine.program import link
from virtviz.engine.recording import RecordingMachine
from virtviz.engine.state import State
from virtviz.engine.threads import Thread, ThreadKind
from virtviz.paths import host_net, kvm, ovs, virtio_net, vswitchd
from virtviz.paths.context import Context, WatchedContext
from virtviz.paths.costs import load_costs
from virtviz.paths.guest_cpu import GuestCpu, HaltingIdle, PollingIdle, RunSoftirqs, TakeInterrupt
from virtviz.paths.guest_stack import Deliver, Program, Recvmsg, RunQueue, Sendmsg, Socket, TxQueue
from virtviz.paths.knobs import EVENT_IDX, INDIRECT, MERGEABLE, World
from virtviz.paths.nic import DummyXmit, Nic, NicEngine, NicPoll, NicXmit, RunNicQueue
from virtviz.paths.packets import PacketPool
from virtviz.paths.queues import Fifo
from virtviz.paths.tap import Tap, TapSendmsg, TapXmit
from virtviz.paths.traffic import Traffic, peer_endpoint, vm_endpoint
from virtviz.paths.vhost import (
    FlushTx,
    HandleRx,
    HandleTx,
    PollWakeup,
    ReturnBuffers,
    ServeTap,
    VhostQueue,
    Work,
    Worker,
    WorkerLoop,
)
from virtviz.ring.split import SplitLayout
from virtviz.ring.split_device import SplitDevice
from virtviz.ring.split_driver import SplitDriver

if TYPE_CHECKING:
    from virtviz.engine.machine import Machine
    from virtviz.engine.memory import Region
    from virtviz.engine.ops import Routine

PAGE = 4096
TX_SLOT_BYTES = 2048
HOST_SLOT_BYTES = 2048
FIRST_PID = 4002
TX_ROWS = {"write": "V-TX.12", "publish": "V-TX.13", "decide": "V-TX.14", "signal": "V-TX.15"}
RX_ROWS = {"write": "V-RX.11", "publish": "V-RX.12", "decide": "V-RX.13", "signal": "V-RX.14"}


@dataclass(slots=True)
class Vm:
    """One virtual machine: its memory, its queues, its threads."""

    name: str
    memory: Region
    program: Program
    tx_layout: SplitLayout
    rx_layout: SplitLayout
    tx_driver: SplitDriver
    rx_driver: SplitDriver
    tx_device: SplitDevice
    rx_device: SplitDevice
    vcpu: Thread


@dataclass(slots=True)
class Simulation:
    """A world ready to run.

    Attributes:
        world, traffic: what it was made from.
        machine: the machine, before its first step.
        vms: the virtual machines.
        pools: packet memories by the name of their owner, for looking at packets.
        drops: name of each drop counter -> reads it.
    """

    world: World
    traffic: Traffic
    machine: Machine
    vms: list[Vm]
    pools: dict[str, PacketPool]
    drops: dict[str, Callable[[], int]] = field(default_factory=dict)

    def dropped(self) -> dict[str, int]:
        """Give the drop counters that are not 0."""
        return {name: read() for name, read in self.drops.items() if read()}


def simulate(world: World, traffic: Traffic, *, recording: bool = True, omit: Sequence[str] = ()) -> Simulation:
    """Build a world, bring it up, and stop before its first step.

    Args:
        world: checked settings.
        traffic: what is sent.
        recording: keep a timeline; without it the machine only counts.
        omit: ops to leave out, by name, such as a barrier whose absence is to be shown.
    """
    return _Builder(world, traffic, recording=recording, observed=recording, omit=omit).build()


class _Builder:
    def __init__(
        self, world: World, traffic: Traffic, *, recording: bool, observed: bool, omit: Sequence[str]
    ) -> None:
        self.world = world
        self.traffic = traffic
        self.omit = omit
        self.observed = observed
        self.state = State(recording=recording)
        self.threads: list[Thread] = []
        self.cpus: list[int] = []
        self.backlogs: list[host_net.Backlog | None] = []
        self.drops: dict[str, Callable[[], int]] = {}
        self.pools: dict[str, PacketPool] = {}

    # Common parts

    def place(self, name: str, domain: Domain, title: str, role: Role = Role.PLAIN) -> Place:
        return Place(name, domain, title, role)

    def thread(self, name: str, cpu: int, kind: str = ThreadKind.HOST) -> Thread:
        """Make a thread; its first routine is set when there is one."""
        me = self.state.add(WatchedContext if self.observed else Context, name, index=len(self.threads))
        made = Thread(name, me, start=None, kind=kind)  # type: ignore[arg-type]
        self.threads.append(made)
        self.cpus.append(cpu)
        self.backlogs.append(None)
        return made

    def build(self) -> Simulation:
        world = self.world
        self.kvm = self.place("kvm", Domain.HOST_KERNEL, "KVM", Role.HYPERVISOR)
        self.vhost_place = self.place("vhost_net", Domain.HOST_KERNEL, "vhost-net")
        self.tap_place = self.place("tap0", Domain.HOST_KERNEL, "TAP")
        self.ovs_place = self.place("ovs", Domain.HOST_KERNEL, "OVS datapath")
        self.stack_place = self.place("host_stack", Domain.HOST_KERNEL, "host stack")
        self.host_memory_pool()
        vm = self.virtual_machine(0)
        machine = self.finish()
        simulation = Simulation(world, self.traffic, machine, [vm], self.pools, self.drops)
        self.boot(machine, vm)
        return simulation

    def host_memory_pool(self) -> None:
        """Make the host's packet memory, large enough that every queue can be full at once."""
        world = self.world
        slots = world.number("txqueuelen") + 3 * world.number("nic_ring") + 2 * 1000 + 64 * 8
        memory = self.state.region("host.skb", slots * HOST_SLOT_BYTES)
        self.host_pool = PacketPool(self.state, "host.pool", memory, 0, slots, HOST_SLOT_BYTES)
        self.pools["host"] = self.host_pool

    # The guest

    def virtual_machine(self, number: int) -> Vm:  # noqa: PLR0915 - a machine has many parts; they are listed once, here
        world, state, traffic = self.world, self.state, self.traffic
        name, pid = f"vm{number + 1}", FIRST_PID + 10 * number
        size, start = world.number("queue.size"), world.number("queue.start")
        event_idx, mergeable = world.has(EVENT_IDX), world.has(MERGEABLE)
        app_place = self.place(f"{name}.app", Domain.GUEST_USER, "app")
        stack_place = self.place(f"{name}.stack", Domain.GUEST_KERNEL, "stack")
        driver_place = self.place(f"{name}.virtio_net", Domain.GUEST_KERNEL, "virtio-net")
        kernel_place = self.place(f"{name}.kernel", Domain.GUEST_KERNEL, "guest kernel")
        cpu_user = self.place(f"{name}.cpu.user", Domain.GUEST_USER, "CPU", Role.CPU)
        cpu_kernel = self.place(f"{name}.cpu", Domain.GUEST_KERNEL, "CPU", Role.CPU)

        # Memory: two rings, a page to send from and one to receive into, packets, receive buffers.
        rx_layout = SplitLayout.at(PAGE, size)
        tx_layout = SplitLayout.at(-(-rx_layout.end // PAGE) * PAGE, size)
        send_page = -(-tx_layout.end // PAGE) * PAGE
        receive_page = send_page + PAGE
        skb_base = receive_page + PAGE
        sndbuf = world.number("socket_sndbuf")
        skb_slots = sndbuf // 768 + 2 + 256 + 64 + 8
        buffer_base = skb_base + skb_slots * TX_SLOT_BYTES
        buffer_slots = size + 256 + 64 + 8
        buffer_bytes = world.number("rx_buffer")
        memory = state.region(f"{name}.ram", buffer_base + buffer_slots * buffer_bytes)
        rx_name, tx_name = f"{name}.receiveq1", f"{name}.transmitq1"
        for layout, queue in ((rx_layout, rx_name), (tx_layout, tx_name)):
            layout.name_fields(memory, queue)
            for address in (layout.avail_idx, layout.used_idx, layout.used_event, layout.avail_event):
                memory.plain_u16[address // 2] = start
        skbs = PacketPool(state, f"{name}.skb", memory, skb_base, skb_slots, TX_SLOT_BYTES)
        buffers = PacketPool(state, f"{name}.rx_buffers", memory, buffer_base, buffer_slots, buffer_bytes, headroom=0)
        self.pools[f"{name}.skb"], self.pools[f"{name}.rx_buffers"] = skbs, buffers

        # The vCPU, seen by KVM and by the guest.
        thread = self.thread(f"{name}.vcpu0", cpu=1, kind=ThreadKind.VCPU)
        vcpu = kvm.Vcpu(state, f"{name}.vcpu0.kvm", ("receiveq1", "transmitq1"), apicv=world.on("apicv"))
        vcpu.thread = thread
        cpu = GuestCpu(state, f"{name}.cpu0", vcpu)
        vcpu.guest = cpu
        socket = Socket(state, f"{name}.socket", cpu, sndbuf)
        bql = world.on("guest_bql") and world.on("napi_tx")
        tx_queue = TxQueue(state, f"{name}.txq", cpu, bql=bql, limit_min=world.number("bql_limit_min") if bql else 0)
        indirect = world.has(INDIRECT)
        rx_driver = SplitDriver(state, rx_name, memory, rx_layout, event_idx=event_idx, start=start)
        tx_driver = SplitDriver(
            state, tx_name, memory, tx_layout, event_idx=event_idx, indirect=indirect, start=start
        )
        collected = Fifo(state, f"{name}.gro", 8)
        rxq = virtio_net.Receiveq(
            state, rx_name, rx_driver, buffers, skbs, collected, cpu, napi=0, mergeable=mergeable
        )
        txq = virtio_net.Transmitq(
            state, tx_name, tx_driver, skbs, tx_queue, socket, cpu, world.number("tx_stop_threshold"), napi=1,
            gives_up=not world.on("napi_tx"),
        )
        if not world.on("napi_tx"):
            # The very first completion of such a driver interrupts once, and turns callbacks off until the ring is full.
            tx_driver.cells.avail_flags_shadow = tx_driver.cells.event_triggered = 1
            if not event_idx:
                memory.plain_u16[tx_layout.avail_flags // 2] = 1

        # The back-end: worker, queues, eventfds, TAP.
        worker_thread = self.thread(f"vhost-{pid}", cpu=0)
        worker = Worker(state, f"vhost-{pid}")
        worker.thread = worker_thread
        tap = Tap(state, "tap0", self.host_pool, world.number("txqueuelen"))
        self.tap = tap
        tx_device = SplitDevice(state, f"vhost-{pid}.transmitq1.ring", memory, tx_layout, event_idx=event_idx, start=start)
        rx_device = SplitDevice(state, f"vhost-{pid}.receiveq1.ring", memory, rx_layout, event_idx=event_idx, start=start)
        limits = {"weight": world.number("weight"), "batch": world.number("tx_batch"), "mergeable": mergeable}
        vhost_tx = VhostQueue(state, f"vhost-{pid}.tx", tx_name, tx_device, worker, tap, skbs, **limits)
        vhost_rx = VhostQueue(state, f"vhost-{pid}.rx", rx_name, rx_device, worker, tap, buffers, **limits)
        kick_fds = [state.add(kvm.EventfdCells, f"{name}.{queue}.kick") for queue in vcpu.queues]
        call_fds = [state.add(kvm.EventfdCells, f"{name}.{queue}.call") for queue in vcpu.queues]

        # KVM's routines.
        def enter(row: str, what: str, after: str) -> Routine:
            return kvm.EnterGuest(f"{name}.enter_after_{what}", self.kvm, vcpu, row, after)

        vhost_place = self.vhost_place
        kick_class = kvm.HandleKickIntel if world["cpu"] == "intel" else kvm.HandleKickAmd
        kick_rows = {1: ("G-TX.13", Work.TX_KICK, "transmit queue kicked"), 0: ("G-RX.7", Work.RX_KICK, "receive queue kicked")}
        notify_class = virtio_net.Notify if world.on("guest_if") else virtio_net.NotifyInterruptsOff
        notify: dict[int, Routine] = {}
        for queue, (row, work, who) in kick_rows.items():
            queue_name = (rx_name, tx_name)[queue]
            wakeup = PollWakeup(f"{queue_name}.kick_wakeup", vhost_place, worker, work, "KICK.4", who)
            handle = kick_class(
                f"{queue_name}.kick_exit",
                self.kvm,
                vcpu,
                queue_name,
                queue,
                kick_fds[queue],
                wakeup,
                enter("KICK.5", f"{vcpu.queues[queue]}_kick", "The store is done with: the instruction is skipped."),
            )
            notify[queue] = notify_class(f"{queue_name}.notify", driver_place, queue_name, cpu, handle, row)
        halt = kvm.HaltVcpu(f"{name}.halt", self.kvm, vcpu, enter("IRQ.4", "halt", "The halt is over."))
        eoi_exit = kvm.EoiExit(f"{name}.eoi", self.kvm, vcpu, enter("IRQ.5", "eoi", "The interrupt is ended."))
        irqfd_class = kvm.IrqfdPosted if vcpu.apicv else kvm.IrqfdKicked
        irqfds = [
            irqfd_class(f"{(rx_name, tx_name)[bit]}.irqfd", self.kvm, vcpu, (rx_name, tx_name)[bit], bit, call_fds[bit])
            for bit in (0, 1)
        ]

        # The guest's routines, from the program down and back up.
        program = Program(state, f"{name}.program", app_place, traffic, number, memory, send_page, receive_page)
        idle_class = PollingIdle if world["vcpu"] == "running" else HaltingIdle
        idle = idle_class(f"{name}.idle", kernel_place, cpu, halt, program.gives_up)
        napi_tx = world.on("napi_tx")
        reclaim = {
            row: virtio_net.Reclaim(f"{tx_name}.reclaim_{what}", driver_place, txq, {"reclaim": row})
            for row, what in (("G-TX.5", "in_xmit"), ("G-TXC.2", "in_tx_poll"), ("G-RX.2", "in_rx_poll"))
        }
        add = virtio_net.AddBuffer(f"{tx_name}.add", driver_place, txq, notify[1])
        xmit_class = virtio_net.StartXmit if napi_tx else virtio_net.StartXmitWithoutNapi
        start_xmit = xmit_class(f"{tx_name}.start_xmit", driver_place, txq, reclaim["G-TX.5"], add, notify[1])
        run_queue = RunQueue(f"{tx_name}.qdisc_run", stack_place, tx_queue, skbs, start_xmit)
        refill = virtio_net.Refill(f"{rx_name}.refill", driver_place, rxq, notify[0])
        deliver = Deliver(f"{name}.deliver", stack_place, collected, socket, skbs, buffers, cpu)
        clean = virtio_net.CleanTransmit(f"{tx_name}.clean", driver_place, txq, reclaim["G-RX.2"])
        poll_rx_class = virtio_net.PollReceive if napi_tx else virtio_net.PollReceiveAlone
        poll_rx = poll_rx_class(f"{rx_name}.poll", driver_place, rxq, clean, refill, deliver)
        poll_tx = virtio_net.PollTransmit(f"{tx_name}.poll", driver_place, txq, reclaim["G-TXC.2"])
        softirq = RunSoftirqs(
            f"{name}.softirqs", kernel_place, cpu, {"receiveq1": poll_rx, "transmitq1": poll_tx}, run_queue
        )
        done_class = virtio_net.TransmitDone if napi_tx else virtio_net.TransmitDoneWithoutNapi
        handlers = {
            "receiveq1": virtio_net.ReceiveDone(f"{rx_name}.interrupt", driver_place, rxq),
            "transmitq1": done_class(f"{tx_name}.interrupt", driver_place, txq),
        }
        take_user, take_kernel = (
            TakeInterrupt(
                f"{name}.interrupt_in_{mode}", cpu, place, cpu_kernel, kernel_place, handlers, softirq, eoi_exit
            )
            for mode, place in (("user", cpu_user), ("kernel", cpu_kernel))
        )
        exit_user, exit_kernel = (
            kvm.LeaveForInterrupt(
                f"{name}.exit_from_{mode}",
                place,
                vcpu,
                enter("IRQ.4", f"exit_from_{mode}", "There was nothing to emulate."),
            )
            for mode, place in (("user", cpu_user), ("kernel", cpu_kernel))
        )
        program.sendmsg = Sendmsg(
            f"{name}.sendmsg", stack_place, program, socket, skbs, tx_queue, cpu, start_xmit, run_queue, softirq, idle
        )
        program.recvmsg = Recvmsg(f"{name}.recvmsg", stack_place, program, socket, skbs, buffers, cpu, idle)
        thread.start = virtio_net.OpenDevice(f"{name}.open", driver_place, refill, program)
        vcpu.take_gates = (take_user, take_kernel)
        vcpu.exit_gates = (exit_user, exit_kernel)
        thread.gates = (take_user, take_kernel) if vcpu.apicv else (take_user, take_kernel, exit_user, exit_kernel)
        thread.intercept = vcpu.intercept

        # The worker's routines; what lies behind the TAP is made by the far port.
        serve = ServeTap("tap0.wakeup", vhost_place, worker, Work.RX_NET, "N-IN.10", "a frame on the TAP")
        rewatch = ServeTap("tap0.rewatch", vhost_place, worker, Work.RX_NET, "V-RX.10", "a frame on the TAP")
        tap_xmit = TapXmit("tap0.xmit", self.tap_place, tap, serve)
        sendmsg = self.switch_and_far_port(tap, vhost_tx, tap_xmit)
        return_tx = ReturnBuffers(
            f"{tx_name}.return", vhost_place, vhost_tx, call_fds[1], irqfds[1], TX_ROWS
        )
        return_rx = ReturnBuffers(
            f"{rx_name}.return", vhost_place, vhost_rx, call_fds[0], irqfds[0], RX_ROWS
        )
        flush = FlushTx(f"{tx_name}.flush", vhost_place, vhost_tx, sendmsg, return_tx)
        handle_rx = HandleRx(f"{rx_name}.handle", vhost_place, vhost_rx, self.host_pool, return_rx, rewatch)
        handle_tx = HandleTx(f"{tx_name}.handle", vhost_place, vhost_tx, self.host_pool, flush)
        worker_thread.start = WorkerLoop(
            f"vhost-{pid}.loop",
            vhost_place,
            worker,
            vhost_tx,
            vhost_rx,
            {"handle_tx_kick": handle_tx, "handle_rx_kick": handle_rx, "handle_rx_net": handle_rx},
        )
        self.drops |= {
            f"{name}.qdisc": lambda: tx_queue.cells.dropped,
            f"{name}.virtio_net.tx_dropped": lambda: txq.cells.dropped,
            f"{name}.virtio_net.rx_errors": lambda: rxq.cells.errors,
            f"{name}.socket": lambda: socket.cells.dropped,
            "vhost_net.discarded": lambda: vhost_rx.cells.discarded,
            "vhost_net.errors": lambda: vhost_tx.cells.errors + vhost_rx.cells.errors,
            "tap0.rx_errors": lambda: tap.cells.rx_errors,
            "tap0.tx_dropped": lambda: tap.cells.tx_dropped,
        }
        self.worker_thread = worker_thread
        return Vm(
            name, memory, program, tx_layout, rx_layout, tx_driver, rx_driver, tx_device, rx_device, thread
        )

    # The switch and what is behind it

    def switch_and_far_port(self, tap: Tap, vhost_tx: VhostQueue, tap_xmit: Routine) -> Routine:
        """Make switch, upcall handlers and far port; answers the routine by which the TAP's frames enter."""
        world, state, pool = self.world, self.state, self.host_pool
        far = {"nic": "eth0", "veth": "veth0", "dummy": "dummy0"}[world.word("far_port")]
        ports = ["tap0", far]
        count = world.number("handlers")
        datapath = ovs.Datapath(state, "ovs", pool, count, ports)
        self.datapath = datapath
        switch = state.add(vswitchd.SwitchCells, "vswitchd", count_stale=int(world["ovs_flow_count"] == "stale"))
        wire = host_net.Wire(state, "wire", self.traffic)
        self.wire = wire
        handler_threads = [self.thread(f"handler{i + 1}", cpu=i) for i in range(count)]
        upcalls: dict[str, Routine] = {
            thread.name: ovs.Upcall(f"ovs.upcall_to_{thread.name}", self.ovs_place, datapath, i, thread)
            for i, thread in enumerate(handler_threads)
        }
        outputs: dict[str, Routine] = {"tap0": tap_xmit}
        execute = ovs.Execute("ovs.execute", self.ovs_place, datapath, outputs)
        receive = ovs.Receive("ovs.receive", self.ovs_place, datapath, execute, upcalls, self.cpus)
        softirq: Routine | None = None
        if far == "eth0":
            self.nic_port(wire, receive, outputs)
        elif far == "veth0":
            softirq = self.veth_port(wire, receive, outputs, handler_threads)
        else:
            outputs[far] = DummyXmit("dummy0.xmit", self.stack_place, pool)
        execute.__init__("ovs.execute", self.ovs_place, datapath, outputs)  # type: ignore[misc]
        for i, thread in enumerate(handler_threads):
            thread.start = self.handler(i, thread, datapath, switch, execute, softirq)
        self.drops |= {
            "ovs.lost": lambda: datapath.cells.lost,
            "ovs.no_action": lambda: datapath.cells.dropped,
        }
        if world["flows"] == "known":
            self.learn_flows()
        return TapSendmsg("tap0.sendmsg", self.tap_place, tap, vhost_tx, 1, receive, softirq)

    def nic_port(self, wire: host_net.Wire, receive: Routine, outputs: dict[str, Routine]) -> None:
        """Make a network card as the far port."""
        world, state = self.world, self.state
        nic = Nic(
            state, "eth0", self.host_pool, wire, self.traffic, world.number("nic_ring"), world.number("nic_tx_frames")
        )
        driver = self.place("eth0", Domain.HOST_KERNEL, "NIC driver")
        engine = self.place("eth0.hw", Domain.HARDWARE, "NIC")
        nic_thread = self.thread("eth0", cpu=2, kind=ThreadKind.HARDWARE)
        nic.softirq = self.thread("softirq/cpu1", cpu=1)
        nic_thread.start = NicEngine("eth0.engine", engine, nic)
        outputs["eth0"] = NicXmit("eth0.xmit", driver, nic)
        run_queue = RunNicQueue("eth0.qdisc_run", driver, nic, outputs["eth0"])
        nic.softirq.start = NicPoll("eth0.poll", driver, nic, receive, 2, run_queue)
        self.drops |= {
            "eth0.qdisc": lambda: nic.cells.qdisc_dropped,
            "eth0.rx_missed": lambda: nic.cells.rx_missed,
        }

    def veth_port(
        self, wire: host_net.Wire, receive: Routine, outputs: dict[str, Routine], handlers: Sequence[Thread]
    ) -> Routine:
        """Make the laboratory's far port: a veth pair into another network namespace."""
        state, pool = self.state, self.host_pool
        peer_place = self.place("peer", Domain.HOST_KERNEL, "far namespace")
        veth_place = self.place("veth0", Domain.HOST_KERNEL, "veth")
        sender = self.thread("peer", cpu=0)
        raisers = [self.worker_thread_index, sender.me.index, *(thread.me.index for thread in handlers)]
        for index in raisers:
            self.backlogs[index] = host_net.Backlog(state, f"{self.threads[index].name}.backlog")
        outputs["veth0"] = host_net.VethXmit(
            "veth0.xmit", veth_place, self.backlogs, host_net.FROM_SWITCH, pool, "veth0"
        )
        back = host_net.VethXmitBack("veth1.xmit", veth_place, self.backlogs, host_net.TO_SWITCH, pool, "veth1")
        peer = host_net.PeerReceive("peer.receive", peer_place, pool, self.traffic, back)
        poll = host_net.ProcessBacklog("host.process_backlog", self.stack_place, self.backlogs, pool, receive, peer, 2)
        softirq = host_net.LocalSoftirqs("host.bh_enable", self.stack_place, self.backlogs, poll)
        sender.start = host_net.Arrivals("peer.send", peer_place, pool, self.traffic, wire, back, softirq)
        self.drops |= {
            f"backlog.{self.threads[i].name}": lambda b=self.backlogs[i]: b.cells.dropped  # type: ignore[misc]
            for i in raisers
        }
        return softirq

    @property
    def worker_thread_index(self) -> int:
        """The number of the vhost worker's thread."""
        return next(i for i, thread in enumerate(self.threads) if thread.name.startswith("vhost-"))

    def handler(
        self,
        number: int,
        thread: Thread,
        datapath: ovs.Datapath,
        switch: vswitchd.SwitchCells,
        execute: Routine,
        softirq: Routine | None,
    ) -> Routine:
        """Make one upcall handler of ovs-vswitchd."""
        state, name = self.state, thread.name
        user = self.place("vswitchd", Domain.HOST_USER, "ovs-vswitchd")
        netlink = self.place("netlink", Domain.HOST_KERNEL, "netlink")
        memory = state.region(f"{name}.memory", vswitchd.UPCALL_MAX_BATCH * HOST_SLOT_BYTES)
        buffers = PacketPool(
            state, f"{name}.buffers", memory, 0, vswitchd.UPCALL_MAX_BATCH, HOST_SLOT_BYTES, headroom=0
        )
        operate_class = vswitchd.OperateWithSoftirqs if softirq else vswitchd.Operate
        mine = vswitchd.Handler(state, f"vswitchd.{name}", datapath, number, buffers)
        return vswitchd.HandlerLoop(
            f"{name}.loop",
            user,
            mine,
            switch,
            self.decide,
            poll_wait=vswitchd.PollWait(f"{name}.poll_wait", netlink, mine),
            poll_now=vswitchd.PollNow(f"{name}.poll_now", netlink),
            receive=vswitchd.NetlinkReceive(f"{name}.recvmsg", netlink, mine),
            ask=vswitchd.AskFlowCount(f"{name}.ask", netlink, "O-MISS.6"),
            answer=vswitchd.ReadFlowCount(f"{name}.answer", netlink, "O-MISS.6"),
            operate=operate_class(f"{name}.operate", self.ovs_place, mine, execute, softirq),
            drain=vswitchd.DrainErrors(f"{name}.drain", netlink, "O-MISS.10"),
        )

    def decide(self, frame: bytes, port: int) -> int:
        """Decide where a frame goes, as an ordinary learning switch that has learned every address; answers ports as bits.

        A virtual machine's address is behind its TAP, every other one behind the far port; group addresses go everywhere.
        """
        tap, far = 1 << 0, 1 << 1
        target = frame[:6]
        wanted = tap | far if target[0] & 1 else tap if target == vm_endpoint(0).mac else far
        return wanted & ~(1 << (port - 1))

    def learn_flows(self) -> None:
        """Install the flows of the scenario's frames, as if they had been seen before."""
        for index, item in enumerate(self.traffic.items):
            frame = self.traffic.frame(index + 1)
            port = 1 if item.outgoing else 2
            self.datapath.flows.insert(frame, port, self.decide(frame, port))

    # The end

    def finish(self) -> Machine:
        costs = load_costs(self.world.word("costs")).nanoseconds
        program = link(self.threads, costs, self.omit)
        if self.state.journal is None:
            machine: Machine = CountingMachine(program, self.state, self.threads, costs)
        else:
            recorder = RecordingMachine(program, self.state, self.threads, costs)
            recorder.make_scout = self.make_scout
            machine = recorder
        return machine

    def make_scout(self) -> CountingMachine:
        """Make a counting machine of the same settings."""
        made = _Builder(self.world, self.traffic, recording=False, observed=True, omit=self.omit).build().machine
        assert isinstance(made, CountingMachine)
        return made

    def boot(self, machine: Machine, vm: Vm) -> None:
        """Bring everything up to the point where the program is about to begin, and forget how it got there."""
        index = vm.vcpu.me.index
        # Nothing arrives meanwhile.
        self.wire.phase = lambda _: (-1, 0)
        while vm.vcpu.pc != vm.program.entry:
            machine.move(index)
        machine.run(held={index})
        self.wire.phase = lambda _: vm.program.phase()
        machine.begin_here()


def known_hosts(count: int) -> Mapping[bytes, str]:
    """Name the addresses that appear in frames, for people."""
    hosts = {vm_endpoint(i).mac: f"vm{i + 1}" for i in range(count)}
    return hosts | {peer_endpoint(i).mac: f"host {i}" for i in range(1, 10)}
