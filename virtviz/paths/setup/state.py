"""What the parties to a set-up keep: the hypervisor's process, KVM's VM, the TAP, vhost's device, the PCI function.

Whatever one party tells another goes through these cells: the guest's stores into `AccessCells`, what KVM hands to QEMU
into `RunCells` (struct kvm_run), QEMU's registers, the arguments of an ioctl, and what the kernel makes of them. So
what arrives at vhost is what the guest wrote, or there is a mistake somewhere in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from virtviz.engine.cells import Cells, cells
from virtviz.engine.state import State
from virtviz.paths.setup.features import VHOST_FEATURES_6_1, VHOST_FEATURES_6_12
from virtviz.paths.setup.ovsdb import SwitchCells
from virtviz.paths.setup.pairs import (
    ORDINALS,
    ApicCells,
    CpuCells,
    OfPair,
    PairCells,
    SequenceCells,
    TunFile,
    TunFileCells,
    of_pair,
)
from virtviz.ring.packed import PackedLayout
from virtviz.spec.virtio import Feature

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from virtviz.engine.memory import Region
    from virtviz.paths.kvm import EventfdCells
    from virtviz.paths.tap import Tap
    from virtviz.paths.tap_queues import TapFlows
    from virtviz.paths.virtio_device.device import NetDevice
    from virtviz.ring.rings import DeviceRing, Layout

HVA_BASE: Final = 0x7F9EEBE00000
"""Where the guest's memory lies in QEMU's own, in the recording: what is added to a guest's address."""
NO_VECTOR: Final = 0xFFFF
PIO_NOTIFY: Final = 0xC050
"""The legacy notify register of the recorded machine, an I/O port (BAR 0 + 0x10)."""


@cells
class AccessCells(Cells):
    """The load or store that the guest's CPU is at, as far as it concerns a device.

    Attributes:
        address: guest-physical address, or number of the I/O port.
        value: what is stored, or what a load has brought.
        size: bytes.
        is_write: 1 for a store.
        is_port: 1 if `address` is an I/O port.
    """

    address: int = 0
    value: int = 0
    size: int = 0
    is_write: int = 0
    is_port: int = 0


@cells
class RunCells(Cells):
    """The page that KVM and QEMU's vCPU thread share (struct kvm_run): what the exit was about.

    Attributes:
        address, data, length, is_write, is_port: of the access.
        config_address: what the guest has stored to port 0xcf8; KVM only notes it (coalesced).
    """

    address: int = 0
    data: int = 0
    length: int = 0
    is_write: int = 0
    is_port: int = 0
    config_address: int = 0


@cells
class ProcessCells(Cells):
    """QEMU's process.

    Attributes:
        lock: the Big QEMU Lock: 0 when it is free, else the number of the thread that has it, plus one.
        launched: 1 once it has been started.
        next_fd: number that the next descriptor gets.
        vm_fd, tap_fd, vhost_fd, vcpu_fd: descriptors, 0 while there is none.
        hdr_bytes: length of the virtio-net header as QEMU has set it on the TAP.
        vcpu_thread: 1 once the vCPU's thread has been made.
        vcpu_made, running: 1 once the vCPU exists, and once the machine runs.
        offered: features of the device model within what the TAP and the back-end can do.
        acked: features that the guest has accepted, as vhost is told.
        started: 1 while vhost serves the queues.
        failed: 1 once vhost could not be started, and QEMU serves the queues itself.
        masked: by queue, the eventfd vhost signals while the guest cannot be interrupted.
        kick, call, error: by queue, eventfds' descriptors.
        gsi: by queue, the number its interrupt has with KVM.
        queue: the queue that a sequence is at.
        base: by queue, the index at which it was stopped; for a packed one the slots to take and to return next, each
            with its wrap counter in bit 15, the second from bit 16 on.
    """

    lock: int = 0
    launched: int = 0
    vcpu_thread: int = 0
    vcpu_made: int = 0
    running: int = 0
    next_fd: int = 11
    vm_fd: int = 0
    tap_fd: int = 0
    vhost_fd: int = 0
    vcpu_fd: int = 0
    hdr_bytes: int = 10
    offered: int = 0
    acked: int = 0
    started: int = 0
    failed: int = 0
    queue: int = 0
    base: list[int]
    masked: list[int]
    kick: list[int]
    call: list[int]
    error: list[int]
    gsi: list[int]


@cells
class ArgumentCells(Cells):
    """The arguments of the ioctl that a thread is at, as they lie in its memory.

    Attributes:
        index: of the ring.
        value: a number: features, a size, a descriptor.
        desc, avail, used: addresses in QEMU's memory.
        result: what came back.
    """

    index: int = 0
    value: int = 0
    desc: int = 0
    avail: int = 0
    used: int = 0
    result: int = 0


@cells
class VmCells(Cells):
    """What KVM keeps for the virtual machine.

    Attributes:
        irqchip: 1 once the interrupt controllers exist in the kernel.
        vcpus, memory_slots: how many.
        gsis: interrupt numbers that QEMU has given away, as bits; 2 and those from 24 on are free at first.
        routed: by queue, vector of the MSI message that its number stands for; 0 while there is no route.
        irqfds: by queue, the eventfd that raises it; 0 for none.
        ioeventfds, ports: by queue, the eventfd a store to its notify address, or port, signals; 0 for none.
    """

    irqchip: int = 0
    vcpus: int = 0
    memory_slots: int = 0
    gsis: int = 0xFFFFFB
    routed: list[int]
    irqfds: list[int]
    ioeventfds: list[int]
    ports: list[int]


@cells
class TapSetupCells(Cells):
    """What a TAP has been told.

    Attributes:
        exists: 1 once the network device exists.
        attached: the descriptor that is the other end of it; 0 for none.
        flags: of TUNSETIFF.
        hdr_bytes: length of the virtio-net header in front of each frame.
        offload: what the reader takes: bits TUN_F_*.
        sndbuf: bytes that may be under way.
        port: number of the switch's port that it is, plus one; 0 while it is none.
        handled: 1 while what it receives goes to the switch.
        up: 1 while the interface is up.
    """

    exists: int = 0
    attached: int = 0
    flags: int = 0
    hdr_bytes: int = 10
    offload: int = 0
    sndbuf: int = 0
    port: int = 0
    handled: int = 0
    up: int = 0


@cells
class VhostDeviceCells(Cells):
    """What vhost-net keeps for an open /dev/vhost-net.

    Attributes:
        owner: 1 once a process has said that the device is its own.
        worker: 1 once the worker exists.
        features: what the guest has accepted, within what vhost offers.
        backend_features: of the conversation with QEMU, not of the ring.
        regions: memory regions it knows.
        num, base, desc, avail, used: by ring, what it was told.
        kick, call, error, backend: by ring, descriptors; 0 for none.
    """

    owner: int = 0
    worker: int = 0
    features: int = 0
    backend_features: int = 0
    regions: int = 0
    num: list[int]
    base: list[int]
    desc: list[int]
    avail: list[int]
    used: list[int]
    kick: list[int]
    call: list[int]
    error: list[int]
    backend: list[int]


@cells
class PciCells(Cells):
    """The registers of the virtio device, as QEMU keeps them.

    Attributes:
        device_feature_select, driver_feature_select, device_status, config_msix_vector, queue_select: as in 4.1.4.3.
        driver_feature: by window of 32 bits.
        isr, generation: interrupt status; number of the configuration's version.
        size, enabled, vector: by queue.
        desc, avail, used: by queue, guest-physical addresses.
        table: the MSI-X table, four words an entry: address low and high, data, control (bit 0: masked).
        command: of the PCI function.
        msix: 1 once MSI-X is switched on.
    """

    device_feature_select: int = 0
    driver_feature_select: int = 0
    device_status: int = 0
    config_msix_vector: int = NO_VECTOR
    queue_select: int = 0
    isr: int = 0
    generation: int = 0
    command: int = 0
    msix: int = 0
    driver_feature: list[int]
    size: list[int]
    enabled: list[int]
    vector: list[int]
    desc: list[int]
    avail: list[int]
    used: list[int]
    table: list[int]


@cells
class ProbeCells(Cells):
    """What the guest's drivers have found out while they set the device up.

    Attributes:
        offset: of the word of the configuration space to be read.
        capability: offset of the capability that the walk comes to next.
        here, kind: offset and cfg_type of the one that it is at.
        common, notify, isr, device: addresses of the four structures; 0 while they have not been found.
        multiplier: bytes between two queues' notify addresses.
        offered: features that the device offers.
        wanted: those that the driver accepts.
        queue, entry, byte: queue, MSI-X entry and byte of the address that it is at.
        vector: the CPU's vector that goes into a table entry.
        mac: the address, as read.
        notify_off: by queue, its place among the notify addresses.
        up: 1 once the interface is up.
        failed: 1 once the driver has given up.
        sent: commands sent over the control queue.
    """

    offset: int = 0
    capability: int = 0
    here: int = 0
    kind: int = 0
    common: int = 0
    notify: int = 0
    isr: int = 0
    device: int = 0
    multiplier: int = 0
    offered: int = 0
    wanted: int = 0
    queue: int = 0
    entry: int = 0
    byte: int = 0
    vector: int = 0
    mac: int = 0
    up: int = 0
    failed: int = 0
    sent: int = 0
    notify_off: list[int]


class SetUp:
    """All that a set-up is about: one virtual machine's device, its back-end and its TAP.

    Where something is there once for each queue pair, it is a list by pair. Of one pair alone nothing has to be kept
    about which pair it is: `sequence` and `cpus` never change then, and are no part of the state.

    Attributes:
        pairs: how many queue pairs the device has.
        queues: how many queues: two for each pair, and the control queue.
        of_pair: by pair, what QEMU keeps: the process's own cells first.
        tun_files: by pair, the open file of the TUN driver: the cells of the network device first.
        vhosts: by pair, the open /dev/vhost-net.
        apics: by vCPU from the second on, what KVM keeps.
        config: the PCI function's configuration space, 256 bytes, or what tells of the device otherwise.
        kicks: the eventfds of the kicks themselves, by queue.
        port_name: the name that the TAP has, or the vhost-user port.
        taps: the queues of the TAP; none under vhost-user.
        flows: what the TAP remembers of flows; None if it has one queue.
        layouts: where the guest puts its queues.
        first_base: what stands for the beginning of a ring, where a back-end is told where to begin.
        device_rings: the device's side of the data queues, two for each pair.
        device: the device model, as far as commands and the configuration go.
        vhost_features: what this host's vhost-net offers.
        vhost_missing: there is no /dev/vhost-net.
        vhost_fails: vhost cannot take the map of the guest's memory.
        worker_names: by pair, the worker that vhost would make.
        registers_name: what the device's registers are called in the state.
    """

    def __init__(
        self,
        state: State,
        vm: str,
        process: str,
        *,
        config: Region,
        port_name: str,
        taps: Sequence[Tap],
        flows: TapFlows | None,
        kicks: Sequence[EventfdCells],
        layouts: Sequence[Layout],
        device_rings: Sequence[DeviceRing],
        device: NetDevice,
        worker_names: Sequence[str],
        host_kernel: str,
        vhost_missing: bool = False,
        vhost_fails: bool = False,
        registers_name: str = "virtio_pci",
    ) -> None:
        self.pairs = pairs = len(device_rings) // 2
        self.queues = queues = 2 * pairs + 1

        def empty(count: int = queues) -> list[int]:
            return [0] * count

        self.vm, self.process_name = vm, process
        self.config = config
        self.port_name = port_name
        self.taps = taps
        self.flows = flows
        if flows is not None:
            flows.count_off = lambda: sum(file.detached for file in self.tun_files if isinstance(file, TunFileCells))
        self.kicks = kicks
        self.layouts = layouts
        # Of a packed ring both places are told, each with its wrap counter, which is 1 at first.
        self.first_base = 0x8000_8000 if isinstance(layouts[0], PackedLayout) else 0
        self.device_rings = device_rings
        self.device = device
        self.worker_names = worker_names
        self.vhost_missing = vhost_missing
        self.vhost_fails = vhost_fails
        self.vhost_features = VHOST_FEATURES_6_1 if host_kernel == "6.1" else VHOST_FEATURES_6_12
        self.access = state.add(AccessCells, f"{vm}.access")
        self.run = state.add(RunCells, f"{vm}.kvm_run")
        self.process = state.add(
            ProcessCells,
            f"{process}.process",
            base=[self.first_base] * queues,
            masked=empty(),
            kick=empty(),
            call=empty(),
            error=empty(),
            gsi=empty(),
        )
        self.arguments = state.add(ArgumentCells, "host.ioctl")
        self.switch = state.add(SwitchCells, "ovs.control")
        self.kvm = state.add(VmCells, f"{vm}.kvm_vm", routed=empty(), irqfds=empty(), ioeventfds=empty(), ports=empty())
        self.tun = state.add(TapSetupCells, f"{port_name}.netdev")
        self.vhosts = [
            state.add(
                VhostDeviceCells,
                of_pair(f"{process}.vhost_net", pair),
                **{
                    name: empty(2)
                    for name in ("num", "base", "desc", "avail", "used", "kick", "call", "error", "backend")
                },
            )
            for pair in range(pairs)
        ]
        self.pci = state.add(
            PciCells,
            f"{vm}.{registers_name}",
            driver_feature=empty(2),
            size=[layout.size for layout in layouts],
            enabled=empty(),
            vector=[NO_VECTOR] * queues,
            desc=empty(),
            avail=empty(),
            used=empty(),
            table=[0, 0, 0, 1] * self.msix_entries,
        )
        self.probe = state.add(ProbeCells, f"{vm}.probe", notify_off=empty())
        further = range(1, pairs)
        # What never changes is not kept: with one pair these are no part of the state.
        keep: Callable[..., Any] = state.add if further else State(recording=False).add
        self.sequence: SequenceCells = keep(SequenceCells, f"{process}.sequence")
        self.cpus: CpuCells = keep(CpuCells, f"{vm}.cpus")
        self.of_pair: list[OfPair] = [self.process]
        self.of_pair += [state.add(PairCells, of_pair(f"{process}.process", pair)) for pair in further]
        self.tun_files: list[TunFile] = [self.tun]
        self.tun_files += [state.add(TunFileCells, of_pair(f"{port_name}.file", pair)) for pair in further]
        self.apics = [state.add(ApicCells, f"{vm}.vcpu{pair}.apic") for pair in further]

    def new_fd(self) -> int:
        """Give the process a new descriptor; answers its number."""
        mine = self.process
        mine.next_fd = number = mine.next_fd + 1
        return number - 1

    @property
    def control(self) -> int:
        """The control queue's number: behind those of all pairs."""
        return 2 * self.pairs

    @property
    def msix_entries(self) -> int:
        """Entries of the MSI-X table, 2 x pairs + 2: one for the configuration, and one that nobody uses."""
        return 2 * self.pairs + 2

    def queue_name(self, queue: int) -> str:
        """Name a queue, for people: `receive`; where there are several of the kind, `second receive`."""
        queue %= self.queues
        if queue == self.control:
            return "control"
        which = ("receive", "transmit")[queue % 2]
        return which if self.pairs == 1 else f"{ORDINALS[queue // 2]} {which}"

    def next_pair(self, pairs: int) -> bool:
        """Go on to the next of so many pairs; answers whether there is one, and begins with the first again if not."""
        sequence = self.sequence
        following = (sequence.pair + 1) % pairs
        if following != sequence.pair:
            sequence.pair = following
        return bool(following)

    def count_pairs(self) -> int:
        """Settle how many pairs are to be served: all of them, if the driver has accepted MQ."""
        pairs = self.pairs if self.driver_features >> Feature.NET_F_MQ & 1 else 1
        if self.pairs > 1:
            self.sequence.started = pairs
        return pairs

    @property
    def pairs_in_use(self) -> int:
        """How many pairs are in use: one, unless the driver has accepted MQ and said more."""
        return self.device.cells.pairs if self.driver_features >> Feature.NET_F_MQ & 1 else 1

    @property
    def served_pairs(self) -> int:
        """How many pairs are served, or were when that was last settled."""
        return self.sequence.started or 1

    def aim_at(self, pair: int) -> None:
        """Lay out which pair's descriptor the next ioctl is about."""
        if self.sequence.argument != pair:
            self.sequence.argument = pair

    @property
    def vhost(self) -> VhostDeviceCells:
        """The open /dev/vhost-net that the present ioctl is about."""
        return self.vhosts[self.sequence.argument]

    @property
    def driver_features(self) -> int:
        """What the guest has written to driver_feature, both windows together."""
        low, high = self.pci.driver_feature[:2]
        return low | high << 32

    @property
    def stopped_at(self) -> list[int]:
        """By queue, the index at which a back-end has to begin."""
        return self.process.base

    def net_config(self) -> bytes:
        """Give the device's own configuration: mac, status, max_virtqueue_pairs (5.1.4)."""
        return self.device.config()
