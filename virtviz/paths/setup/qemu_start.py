"""QEMU from its start to the moment at which the guest may run: KVM's VM, the TAP, vhost. Rows CP.8, CP.5 and CP.6.

Started by hand, QEMU opens /dev/net/tun and /dev/vhost-net itself, and needs the right to. Started by libvirt it finds
both open among its descriptors, and needs none.

Source: QEMU 10.0 and 7.2 net/tap.c (net_init_tap, net_tap_fd_init, net_init_tap_one), net/tap-linux.c (tap_open),
hw/net/vhost_net.c (vhost_net_init), hw/virtio/vhost.c (vhost_dev_init, vhost_virtqueue_init), accel/kvm/kvm-all.c
(kvm_init), system/vl.c; the order is that of setup-vhost.txt, the recording of a start.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from virtviz.engine.ops import Routine, block, call, goto, op
from virtviz.paths.setup import features
from virtviz.paths.setup.qemu_tap import HeaderLength, Offload
from virtviz.paths.setup.tun_calls import TAP_FLAGS, for_pairs
from virtviz.spec.citation import QEMU_KVM, QEMU_MAIN_LOOP, QEMU_TAP, QEMU_VIRTIO_NET
from virtviz.spec.setup_sources import (
    QEMU_KVM_ACCEL_OPS,
    QEMU_RUNSTATE,
    QEMU_TAP_LINUX,
    QEMU_VHOST,
    QEMU_VHOST_NET,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.setup.calls import Calls, VhostCalls
    from virtviz.paths.setup.pairs import OfPair
    from virtviz.paths.setup.state import SetUp

INT_MAX = 2147483647


class QemuStart(Routine):
    """QEMU's main thread, from main() on.

    Args:
        setup: what it is about.
        calls: the system calls.
        opens_tap: QEMU opens /dev/net/tun itself.
        is_7_2: the order and the probes of QEMU 7.2.
        offer: features of the device model within what the TAP can do.
    """

    first = "wait_for_start"
    links: Mapping[str, str] = MappingProxyType({"begin_reset": "reset_header_length"})
    main_loop: Routine
    """What the main thread goes on with; set by the wiring."""

    def __init__(
        self,
        name: str,
        place: Place,
        setup: SetUp,
        calls: Calls,
        *,
        opens_tap: bool,
        is_7_2: bool,
        offer: int,
    ) -> None:
        super().__init__(name, place)
        self.setup = setup
        self.process = setup.process
        self.arguments = setup.arguments
        self.opens_tap = opens_tap
        self.is_7_2 = is_7_2
        self.mine = offer
        self.create_vm, self.create_irqchip = calls.create_vm, calls.create_irqchip
        self.open_tun, self.tun_features, self.set_iff = calls.open_tun, calls.tun_features, calls.set_iff
        self.get_iff, self.set_header, self.set_offload = calls.get_iff, calls.set_header, calls.set_offload
        self.set_sndbuf, self.set_memory, self.set_routing = calls.set_sndbuf, calls.set_memory, calls.set_routing

        def length(what: str, count: int, *, keeps: bool = True, pairs: int = 0) -> Routine:
            return HeaderLength(
                f"{name}.{what}", place, setup, calls, lambda: count, tries=is_7_2, keeps=keeps, pairs=pairs
            )

        self.first_header, self.model_header = length("first_header", 10), length("model_header", 10, pairs=setup.pairs)
        self.reset_header = length("reset_header", 10, pairs=setup.pairs)
        self.long_header = length("long_header", 12, keeps=False)
        self.no_offload = Offload(f"{name}.no_offload", place, setup, calls, lambda: 0)
        self.reset_offload = Offload(f"{name}.reset_offload", place, setup, calls, lambda: 0)

    def words(self, me: Context) -> Mapping[str, object]:
        """Give what the texts speak of."""
        process = self.process
        return {
            "tap": self.setup.port_name,
            "fd": self.of_pair.tap_fd,
            "offered": f"{process.offered:#x}",
            "bits": features.names_of(process.offered),
        }

    @property
    def of_pair(self) -> OfPair:
        """What the process keeps for the pair at hand."""
        return self.setup.of_pair[self.setup.sequence.pair]

    def aim_at_pair(self, value: int) -> None:
        """Lay out the argument of an ioctl on the TAP's file of the pair at hand."""
        self.setup.aim_at(self.setup.sequence.pair)
        self.arguments.value = value

    # KVM

    def is_launched(self) -> bool:
        """Say whether the process has been started."""
        return bool(self.process.launched)

    @op(
        "CP.8.6",
        "ask KVM for a virtual machine",
        "kvm_init",
        QEMU_KVM,
        text=(
            "QEMU starts as an ordinary program. It asks KVM for a virtual machine: an empty one, without memory or "
            "CPU."
        ),
        to=call("create_vm", "ask_for_irqchip"),
        guard="is_launched",
        cause="ioctl(KVM_CREATE_VM)",
    )
    def wait_for_start(self, me: Context) -> None: ...

    @op(
        "CP.8.7",
        "ask for interrupt controllers",
        "kvm_irqchip_create",
        QEMU_KVM,
        text="The interrupt controllers are to be in the kernel, for otherwise every interrupt would need QEMU.",
        to=call("create_irqchip", "which_tap"),
        cause="ioctl(KVM_CREATE_IRQCHIP)",
    )
    def ask_for_irqchip(self, me: Context) -> None: ...

    # The TAP

    @op(
        "CP.5.1",
        "see where the TAP comes from",
        "net_init_tap",
        QEMU_TAP,
        text={
            "open": (
                "-netdev tap,ifname={tap}: QEMU has to open the TAP itself, and needs CAP_NET_ADMIN, or to own {tap}."
            ),
            "inherited": "-netdev tap,fd={fd}: the TAP is open already. QEMU needs no right of its own to use it.",
        },
        to={"open": goto("open_tap"), "inherited": goto("ask_which_tap")},
        private=True,
    )
    def which_tap(self, me: Context) -> str:
        return "open" if self.opens_tap else "inherited"

    @op(
        "CP.5.1",
        "open /dev/net/tun",
        "tap_open",
        QEMU_TAP_LINUX,
        text="A TAP is reached by way of one file, the same for all.",
        to=call("open_tun", "ask_tun_features"),
        cause="open(/dev/net/tun)",
    )
    def open_tap(self, me: Context) -> None:
        self.of_pair.tap_fd = self.setup.new_fd()

    @op(
        "CP.5.2",
        "ask what the TUN driver can do",
        "tap_open",
        QEMU_TAP_LINUX,
        text="Without a virtio-net header in front of each frame there could be no offloads. Does this kernel have it?",
        to=call("tun_features", "set_first_length"),
        cause="ioctl(TUNGETFEATURES)",
    )
    def ask_tun_features(self, me: Context) -> None: ...

    @op(
        "CP.5.3",
        "set the header's usual length",
        "tap_open",
        QEMU_TAP_LINUX,
        text="Somebody may have changed the header of a TAP that was made to stay: QEMU sets the usual 10 bytes.",
        to=call("set_header", "ask_for_tap"),
        cause="ioctl(TUNSETVNETHDRSZ)",
    )
    def set_first_length(self, me: Context) -> None:
        self.aim_at_pair(10)

    @op(
        "CP.5.4",
        "ask for the TAP by name",
        "tap_open",
        QEMU_TAP_LINUX,
        text="TUNSETIFF: {tap}, Ethernet frames, no packet information in front, but a virtio-net header.",
        to=call("set_iff", "probe_ufo"),
        cause="ioctl(TUNSETIFF)",
    )
    def ask_for_tap(self, me: Context) -> None:
        self.aim_at_pair(for_pairs(TAP_FLAGS, self.setup.pairs))

    @op(
        "CP.5.5",
        "ask what was handed over",
        "tap_probe_vnet_hdr",
        QEMU_TAP_LINUX,
        text="Descriptor {fd} was handed over. QEMU asks the kernel whether frames there carry a virtio-net header.",
        to=call("get_iff", "probe_ufo"),
        cause="ioctl(TUNGETIFF)",
    )
    def ask_which_tap(self, me: Context) -> None: ...

    @op(
        "CP.5.5",
        "see whether UFO is known",
        "tap_probe_has_ufo",
        QEMU_TAP_LINUX,
        text="QEMU tries out one offload after the other. Is the TAP one that takes UDP fragments (UFO)?",
        to={"7.2": call("set_offload", "no_offload_yet"), "10.0": call("set_offload", "probe_uso")},
        cause="ioctl(TUNSETOFFLOAD)",
    )
    def probe_ufo(self, me: Context) -> str:
        self.aim_at_pair(features.TUN_F_CSUM | features.TUN_F_UFO)
        return "7.2" if self.is_7_2 else "10.0"

    @op(
        "CP.5.5",
        "see whether USO is known",
        "tap_probe_has_uso",
        QEMU_TAP_LINUX,
        text="And is it one that takes UDP segments (USO)? Linux knows these since 6.2.",
        to=call("set_offload", "no_offload_yet"),
        cause="ioctl(TUNSETOFFLOAD)",
    )
    def probe_uso(self, me: Context) -> None:
        self.aim_at_pair(features.TUN_F_CSUM | features.TUN_F_USO4 | features.TUN_F_USO6)

    @op(
        "CP.5.5",
        "begin without offloads",
        "net_tap_fd_init",
        QEMU_TAP,
        text="No guest has accepted anything yet, so the TAP begins without any offload.",
        to=call("no_offload", "set_header_length"),
        private=True,
    )
    def no_offload_yet(self, me: Context) -> None: ...

    @op(
        "CP.5.5",
        "begin with the short header",
        "net_tap_fd_init",
        QEMU_TAP,
        text="And with the short header of 10 bytes, until a guest has accepted something else.",
        to=call("first_header", "ask_for_sndbuf"),
        private=True,
    )
    def set_header_length(self, me: Context) -> None: ...

    @op(
        "CP.5.6",
        "ask for a large send buffer",
        "tap_set_sndbuf",
        QEMU_TAP_LINUX,
        text=(
            "With a small one, a slow receiver on the same host could hold this guest up for ever: no limit is the "
            "default."
        ),
        to=call("set_sndbuf", "after_tap"),
        cause="ioctl(TUNSETSNDBUF)",
    )
    def ask_for_sndbuf(self, me: Context) -> None:
        self.aim_at_pair(INT_MAX)

    @op(
        "CP.5.6",
        "see who is to serve the queues",
        "net_init_tap_one",
        QEMU_TAP,
        text={
            "": "The TAP is ready. QEMU serves the queues itself (vhost=off): nothing more has to be opened.",
            "next": "That file of {tap} is ready. Each queue pair has one of its own: the next.",
        },
        to={"done": goto("realize"), "next": goto("which_tap")},
        private=True,
    )
    def after_tap(self, me: Context) -> str:
        return "next" if self.next_pair() else "done"

    def next_pair(self) -> bool:
        """Go on to the next pair; answers whether there is one."""
        return self.setup.next_pair(self.setup.pairs)

    # The machine

    @op(
        "CP.3.1",
        "put the offer together",
        "virtio_net_get_features",
        QEMU_VIRTIO_NET,
        spec="2.2",
        text=(
            "The device model's features, without what the TAP or the back-end cannot do: {offered} is what is offered."
        ),
        to=goto("make_vcpu_thread"),
    )
    def realize(self, me: Context) -> None:
        self.process.offered = self.offered()

    def offered(self) -> int:
        """Put together what the guest will be offered."""
        return self.mine

    @op(
        "CP.8.9",
        "make the vCPU's thread",
        "kvm_start_vcpu_thread",
        QEMU_KVM_ACCEL_OPS,
        text="Each vCPU is a thread of QEMU. This one makes it, and waits until it says that its vCPU exists.",
        to={"done": goto("map_memory"), "next": goto("make_vcpu_thread")},
        guard="threads_are_ready",
    )
    def make_vcpu_thread(self, me: Context) -> str:
        self.of_pair.vcpu_thread = 1
        return "next" if self.next_pair() else "done"

    def threads_are_ready(self) -> bool:
        """Say whether the threads made so far have made their vCPUs."""
        return all(mine.vcpu_made for mine in self.setup.of_pair[: self.setup.sequence.pair])

    def vcpu_is_made(self) -> bool:
        """Say whether every vCPU's thread has made its vCPU."""
        return all(mine.vcpu_made for mine in self.setup.of_pair)

    @op(
        "CP.8.8",
        "map the guest's memory",
        "kvm_set_phys_mem",
        QEMU_KVM,
        text="The guest's memory is memory of QEMU's. KVM is told which of it lies where for the guest.",
        to=call("set_memory", "set_first_routes"),
        guard="vcpu_is_made",
        cause="ioctl(KVM_SET_USER_MEMORY_REGION)",
    )
    def map_memory(self, me: Context) -> None: ...

    @op(
        "CP.8.10",
        "set the first interrupt routes",
        "kvm_irqchip_commit_routes",
        QEMU_KVM,
        text=(
            "So far only the old interrupt pins have routes. Those of the device come later, when the guest has chosen."
        ),
        to=call("set_routing", "set_model_header"),
        cause="ioctl(KVM_SET_GSI_ROUTING)",
    )
    def set_first_routes(self, me: Context) -> None:
        self.arguments.index = 0

    @op(
        "CP.8.10",
        "make the virtio-net device",
        "virtio_net_device_realize",
        QEMU_VIRTIO_NET,
        text=(
            "The device model comes to be, and makes sure that the TAP's header is the one of a device without "
            "features."
        ),
        to=call("model_header", "begin_reset"),
        private=True,
    )
    def set_model_header(self, me: Context) -> None: ...

    @op(
        "CP.8.10",
        "reset the machine",
        "virtio_net_reset",
        QEMU_VIRTIO_NET,
        text="Like any machine it begins with a reset, which every device goes through: the short header again ...",
        to=call("reset_header", "reset_offloads"),
        private=True,
    )
    def reset_header_length(self, me: Context) -> None: ...

    @op(
        "CP.8.10",
        "take the offloads back",
        "virtio_net_reset",
        QEMU_VIRTIO_NET,
        text="... and no offload.",
        to=call("reset_offload", "let_it_run"),
        private=True,
    )
    def reset_offloads(self, me: Context) -> None: ...

    @op(
        "CP.8.11",
        "let the machine run",
        "vm_start",
        QEMU_RUNSTATE,
        text="Everything is there: the vCPU's thread may call KVM_RUN. QEMU's main thread goes to its main loop.",
        to=goto("main_loop"),
    )
    def let_it_run(self, me: Context) -> None:
        self.process.running = 1


class IdleMainLoop(Routine):
    """QEMU's main loop where vhost serves the queues: no packet ever wakes it."""

    @op(
        "CP.8.11",
        "wait in ppoll()",
        "os_host_main_loop_wait",
        QEMU_MAIN_LOOP,
        text="The main loop waits for its descriptors. Neither kicks nor frames will be among what it is woken for.",
        to={"sleep": block("wait")},
    )
    def wait(self, me: Context) -> str:
        return "sleep"


class QemuStartWithVhost(QemuStart):
    """The same with vhost=on."""

    def __init__(
        self,
        name: str,
        place: Place,
        setup: SetUp,
        calls: Calls,
        vhost: VhostCalls,
        *,
        opens_tap: bool,
        is_7_2: bool,
        offer: int,
    ) -> None:
        super().__init__(
            name,
            place,
            setup,
            calls,
            opens_tap=opens_tap,
            is_7_2=is_7_2,
            offer=offer,
        )
        self.open_vhost, self.set_owner, self.get_features = vhost.open, vhost.set_owner, vhost.get_features
        self.set_call, self.set_err = vhost.set_call, vhost.set_err

    def offered(self) -> int:
        """Ask vhost about those features that are its affair."""
        if self.process.failed:
            return self.mine
        return self.mine & (~features.VHOST_ASKED | self.setup.vhost_features)

    @op(
        "CP.6.1",
        "see where vhost comes from",
        "net_init_tap_one",
        QEMU_TAP,
        text={
            "open": "vhost=on: the kernel is to serve the queues. QEMU opens /dev/vhost-net for it.",
            "inherited": "vhostfd=: /dev/vhost-net is open already, as the TAP was.",
            "": "libvirtd found no /dev/vhost-net, and asked for no vhost: QEMU will serve the queues itself.",
        },
        to={
            "open": call("open_vhost", "note_vhost_fd"),
            "inherited": goto("become_owner"),
            "none": goto("realize"),
            "none, next": goto("which_tap"),
        },
        cause="open(/dev/vhost-net)",
    )
    def after_tap(self, me: Context) -> str:
        if self.opens_tap:
            return "open"
        if self.of_pair.vhost_fd:
            return "inherited"
        if self.next_pair():
            return "none, next"
        self.process.failed = 1
        return "none"

    @op(
        "CP.6.1",
        "note the descriptor",
        "net_init_tap_one",
        QEMU_TAP,
        text="It is open, and a device of two rings is behind it. Without it QEMU, told vhost=on, would not start.",
        to=goto("become_owner"),
    )
    def note_vhost_fd(self, me: Context) -> None:
        self.of_pair.vhost_fd = self.setup.new_fd()

    @op(
        "CP.6.2",
        "become vhost's owner",
        "vhost_set_backend_type",
        QEMU_VHOST,
        text="vhost will work in this process's memory, so it has to know whose that is.",
        to=call("set_owner", "ask_vhost_features"),
        cause="ioctl(VHOST_SET_OWNER)",
    )
    def become_owner(self, me: Context) -> None:
        self.setup.aim_at(self.setup.sequence.pair)

    @op(
        "CP.6.3",
        "ask what vhost can do",
        "vhost_dev_init",
        QEMU_VHOST,
        text="The guest will be offered nothing that the one who serves the ring cannot do.",
        to=call("get_features", "give_first_call"),
        cause="ioctl(VHOST_GET_FEATURES)",
    )
    def ask_vhost_features(self, me: Context) -> None:
        self.process.queue = 2 * self.setup.sequence.pair

    @op(
        "CP.6.4",
        "give vhost an eventfd to call",
        "vhost_virtqueue_init",
        QEMU_VHOST,
        text="No guest can be interrupted yet. For now vhost gets an eventfd that only notes that there was something.",
        to=call("set_call", "give_error"),
        cause="ioctl(VHOST_SET_VRING_CALL)",
    )
    def give_first_call(self, me: Context) -> None:
        process, arguments = self.process, self.arguments
        arguments.index, arguments.value = process.queue % 2, self.setup.new_fd()
        process.masked[process.queue] = arguments.value

    @op(
        "CP.6.5",
        "give vhost an eventfd for errors",
        "vhost_virtqueue_init",
        QEMU_VHOST,
        text="And one by which vhost can say that it found a ring broken.",
        to=call("set_err", "next_ring"),
        cause="ioctl(VHOST_SET_VRING_ERR)",
    )
    def give_error(self, me: Context) -> None:
        process, arguments = self.process, self.arguments
        arguments.index, arguments.value = process.queue % 2, self.setup.new_fd()
        process.error[process.queue] = arguments.value

    @op(
        "CP.6.5",
        "look whether both rings are done",
        "vhost_dev_init",
        QEMU_VHOST,
        text={
            "another": "The same for the transmit ring.",
            "done": "Both rings have them. Can the TAP have the long header, which merged buffers need?",
        },
        to={"another": goto("give_first_call"), "done": call("long_header", "vhost_is_ready")},
        private=True,
    )
    def next_ring(self, me: Context) -> str:
        process, first = self.process, 2 * self.setup.sequence.pair
        process.queue = first + 1 - process.queue % 2
        return "another" if process.queue > first else "done"

    @op(
        "CP.6.5",
        "have vhost ready",
        "vhost_net_init",
        QEMU_VHOST_NET,
        text={
            "": (
                "vhost is open and has a worker, but no ring, no memory and no TAP. All that waits for the guest's "
                "driver."
            ),
            "next": "This vhost device has a worker. The next queue pair gets a TAP file and a vhost device, too.",
        },
        to={"done": goto("realize"), "next": goto("which_tap")},
        private=True,
    )
    def vhost_is_ready(self, me: Context) -> str:
        if self.next_pair():
            return "next"
        if self.process.queue:
            self.process.queue = 0
        return "done"
