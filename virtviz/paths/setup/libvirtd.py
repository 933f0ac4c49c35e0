"""libvirtd prepares what needs privileges, and starts QEMU with open descriptors instead. Rows CP.8.1 to 5.

From `<interface type='bridge'>` with `<virtualport type='openvswitch'/>` and `<model type='virtio'/>` follow a TAP, a
port of the switch, an open /dev/vhost-net, and the arguments
`-netdev {"type":"tap","fd":"31","vhost":true,"vhostfd":"32",...}` and `-device {"driver":"virtio-net-pci",...}`. A
guest that broke out of QEMU would find itself in a process without the right to do any of this.

Source: libvirt 11.3 src/qemu/qemu_interface.c (qemuInterfaceBridgeConnect, qemuInterfaceOpenVhostNet),
src/util/virnetdevtap.c (virNetDevTapCreate, virNetDevTapCreateInBridgePort), src/util/virnetdevopenvswitch.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import RETURN, Routine, block, call, goto, op
from virtviz.paths.setup.pairs import ORDINALS
from virtviz.paths.setup.tun_calls import IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, for_pairs
from virtviz.spec.setup_sources import (
    LIBVIRT_BRIDGE,
    LIBVIRT_COMMAND,
    LIBVIRT_INTERFACE,
    LIBVIRT_NETDEV,
    LIBVIRT_OVS,
    LIBVIRT_PROCESS,
    LIBVIRT_TAP,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.setup.calls import Calls
    from virtviz.paths.setup.state import SetUp

TAP_FD = 31
"""First of the descriptors of libvirtd that QEMU inherits, under the same numbers: of the TAP, then of vhost."""


class Libvirtd(Routine):
    """libvirtd, asked to start a domain whose network card is a port of a bridge.

    Args:
        calls: the system calls.
        attach: makes the TAP a port of the switch.
        set_online: brings the TAP's interface up.
    """

    first = "read_xml"

    def __init__(
        self, name: str, place: Place, setup: SetUp, calls: Calls, attach: Routine, set_online: Routine
    ) -> None:
        super().__init__(name, place)
        self.attach = attach
        self.setup = setup
        self.process = setup.process
        self.open_tun, self.set_iff = calls.open_tun, calls.set_iff
        self.set_online = set_online

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the TAP and the descriptors."""
        setup, several = self.setup, "s" if self.setup.pairs > 1 else ""
        taps, vhosts = (":".join(str(getattr(mine, fd)) for mine in setup.of_pair) for fd in ("tap_fd", "vhost_fd"))
        vhost = f", vhost=on, vhostfd{several}={vhosts}" if self.process.vhost_fd else ""
        return {
            "tap": setup.port_name,
            "qemu": setup.process_name,
            "fds": f"fd{several}={taps}",
            "vhost": vhost,
            "ordinal": ORDINALS[setup.sequence.pair],
        }

    @op(
        "CP.8.1",
        "read the interface's XML",
        "qemuInterfaceBridgeConnect",
        LIBVIRT_INTERFACE,
        text=(
            "The domain's XML wants a network card on a bridge. libvirtd may do what that takes; QEMU will not have to."
        ),
        to=goto("open_tap"),
    )
    def read_xml(self, me: Context) -> None:
        self.process.tap_fd = TAP_FD

    @op(
        "CP.8.1",
        "open /dev/net/tun",
        "virNetDevTapCreate",
        LIBVIRT_TAP,
        text="A TAP is reached by way of one file, the same for all.",
        to=call("open_tun", "make_tap"),
        cause="open(/dev/net/tun)",
    )
    def open_tap(self, me: Context) -> None: ...

    @op(
        "CP.8.2",
        "make the TAP",
        "virNetDevTapCreate",
        LIBVIRT_TAP,
        text="TUNSETIFF: {tap}, Ethernet frames with a virtio-net header. This is what needs CAP_NET_ADMIN.",
        to={"done": call("set_iff", "attach_tap"), "next": call("set_iff", "open_next")},
        cause="ioctl(TUNSETIFF)",
    )
    def make_tap(self, me: Context) -> str:
        setup = self.setup
        setup.aim_at(setup.sequence.pair)
        setup.arguments.value = for_pairs(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, setup.pairs)
        if not setup.next_pair(setup.pairs):
            return "done"
        setup.of_pair[setup.sequence.pair].tap_fd = TAP_FD + setup.sequence.pair
        return "next"

    @op(
        "CP.8.1",
        "open /dev/net/tun once more",
        "virNetDevTapCreate",
        LIBVIRT_TAP,
        text="{tap} is to have a queue for each pair, and each queue is an open file: the {ordinal} one.",
        to=call("open_tun", "make_tap"),
        cause="open(/dev/net/tun)",
    )
    def open_next(self, me: Context) -> None: ...

    @op(
        "CP.8.3",
        "attach the TAP to the switch",
        "virNetDevTapCreateInBridgePort",
        LIBVIRT_TAP,
        text="{tap} exists, and leads nowhere yet: it has to become a port of the switch.",
        to=call("attach", "bring_up"),
        private=True,
    )
    def attach_tap(self, me: Context) -> None: ...

    @op(
        "CP.8.4",
        "bring the TAP up",
        "virNetDevSetOnline",
        LIBVIRT_NETDEV,
        text="{tap} is a port now. It is brought up, as any network interface has to be.",
        to=call("set_online", "after_tap"),
        cause="ioctl(SIOCSIFFLAGS)",
    )
    def bring_up(self, me: Context) -> None: ...

    @op(
        "CP.8.4",
        "see who is to serve the queues",
        "qemuInterfaceOpenVhostNet",
        LIBVIRT_INTERFACE,
        text="<driver name='qemu'/>: QEMU is to serve the queues itself. Nothing more has to be opened.",
        to=goto("start_qemu"),
        private=True,
    )
    def after_tap(self, me: Context) -> str | None: ...

    @op(
        "CP.8.5",
        "start QEMU",
        "qemuProcessLaunch",
        LIBVIRT_PROCESS,
        text=(
            "{qemu} is started as an ordinary user: -netdev tap,{fds}{vhost}. The open descriptors are its inheritance."
        ),
        to=goto("wait"),
    )
    def start_qemu(self, me: Context) -> None:
        self.process.launched = 1

    @op(
        "CP.8.5",
        "wait for requests",
        "qemuBuildCommandLine",
        LIBVIRT_COMMAND,
        text={"sleep": "libvirtd is done. No frame will ever come by it."},
        to={"sleep": block("wait")},
    )
    def wait(self, me: Context) -> str:
        return "sleep"


class LibvirtdWithVhost(Libvirtd):
    """The same where vhost is to serve the queues.

    Args:
        open_vhost: open() of /dev/vhost-net.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        setup: SetUp,
        calls: Calls,
        attach: Routine,
        set_online: Routine,
        open_vhost: Routine,
    ) -> None:
        super().__init__(name, place, setup, calls, attach, set_online)
        self.open_vhost = open_vhost

    @op(
        "CP.8.4",
        "open /dev/vhost-net",
        "qemuInterfaceOpenVhostNet",
        LIBVIRT_INTERFACE,
        text="QEMU will not be allowed to open /dev/vhost-net: libvirtd opens it, for the same reason.",
        to=call("open_vhost", "see_vhost"),
        cause="open(/dev/vhost-net)",
    )
    def after_tap(self, me: Context) -> str | None: ...

    @op(
        "CP.8.4",
        "see whether it is open",
        "qemuInterfaceOpenVhostNet",
        LIBVIRT_INTERFACE,
        text={
            "open": "It is open, and QEMU will find it under the same number.",
            "next": "It is open. Each queue pair gets a vhost device of its own: once more.",
            "missing": "It is not there, and the XML did not insist: the guest will be served by QEMU itself.",
        },
        to={"open": goto("start_qemu"), "next": goto("after_tap"), "missing": goto("start_qemu")},
    )
    def see_vhost(self, me: Context) -> str:
        if self.setup.arguments.result:
            return "missing"
        setup, pair = self.setup, self.setup.sequence.pair
        setup.of_pair[pair].vhost_fd = TAP_FD + setup.pairs + pair
        return "next" if setup.next_pair(setup.pairs) else "open"


class AttachByVsctl(Routine):
    """libvirtd attaches a TAP to Open vSwitch, which a program of its own talks to."""

    def __init__(self, name: str, place: Place, setup: SetUp) -> None:
        super().__init__(name, place)
        self.setup = setup

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the TAP."""
        return {"tap": self.setup.port_name}

    @op(
        "CP.8.3",
        "run ovs-vsctl",
        "virNetDevOpenvswitchAddPort",
        LIBVIRT_OVS,
        text="{tap} is to be a port of Open vSwitch. libvirtd runs ovs-vsctl add-port, and waits until that has ended.",
        to=goto("wait_for_vsctl"),
    )
    def run_vsctl(self, me: Context) -> None:
        self.setup.switch.vsctl_started = 1

    def vsctl_is_done(self) -> bool:
        """Say whether ovs-vsctl has ended."""
        return bool(self.setup.switch.vsctl_done)

    @op(
        "CP.8.3",
        "go on after ovs-vsctl",
        "virNetDevOpenvswitchAddPort",
        LIBVIRT_OVS,
        text="ovs-vsctl has ended: {tap} is a port of the switch.",
        to=RETURN,
        guard="vsctl_is_done",
    )
    def wait_for_vsctl(self, me: Context) -> None: ...


class AttachToBridge(Routine):
    """libvirtd attaches a TAP to a bridge of Linux's own, by one ioctl.

    Args:
        add_port: what the kernel does then.
    """

    def __init__(self, name: str, place: Place, setup: SetUp, add_port: Routine) -> None:
        super().__init__(name, place)
        self.setup = setup
        self.add_port = add_port

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the TAP."""
        return {"tap": self.setup.port_name}

    @op(
        "CP.8.3",
        "attach the TAP to the bridge",
        "virNetDevBridgeAddPort",
        LIBVIRT_BRIDGE,
        text="{tap} is to be a port of the bridge, and the bridge is in the kernel: one call.",
        to=call("add_port", None),
        cause="ioctl(SIOCBRADDIF)",
    )
    def add_to_bridge(self, me: Context) -> None: ...
