"""The kernel makes a TAP a port of the switch, and brings it up. Rows CP.9.5 and CP.8.4.

For either switch a port is a network device whose received frames are given to the switch, by an rx_handler, before the
host's own protocols could see them.

Source: Linux 6.12 net/openvswitch/vport-netdev.c (ovs_netdev_link), net/openvswitch/datapath.c (ovs_vport_cmd_new),
net/bridge/br_if.c (br_add_if), net/core/dev.c (dev_change_flags).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import RETURN, op
from virtviz.paths.setup.kernel_calls import KernelCall
from virtviz.spec.citation import CORE_DEV, OVS_DATAPATH, OVS_VPORT_NETDEV
from virtviz.spec.setup_sources import BR_IF

if TYPE_CHECKING:
    from virtviz.paths.context import Context

TAP_PORT = 1
"""Number of the TAP's port, plus one so that 0 is none."""


class NewVport(KernelCall):
    """The netlink command OVS_VPORT_CMD_NEW."""

    @op(
        "CP.9.5",
        "make a port",
        "ovs_vport_cmd_new",
        OVS_DATAPATH,
        text="The kernel's part of the switch gets a new port, of kind “netdev”: some network device, here {tap}.",
    )
    def make_port(self, me: Context) -> None:
        self.setup.tun.port = TAP_PORT

    @op(
        "CP.9.5",
        "tie the port to the TAP",
        "ovs_netdev_link",
        OVS_VPORT_NETDEV,
        text=(
            "{tap} gets an rx_handler: what it receives goes to the switch. It is made promiscuous, to receive "
            "everything."
        ),
        to=RETURN,
        cause="return from sendmsg()",
    )
    def link_netdev(self, me: Context) -> None:
        self.setup.tun.handled = 1


class AddToBridge(KernelCall):
    """The ioctl SIOCBRADDIF."""

    @op(
        "CP.9.5",
        "make a port",
        "br_add_if",
        BR_IF,
        text="The bridge gets a new port, {tap}.",
    )
    def make_port(self, me: Context) -> None:
        self.setup.tun.port = TAP_PORT

    @op(
        "CP.9.5",
        "tie the port to the TAP",
        "br_add_if",
        BR_IF,
        text=(
            "{tap} gets an rx_handler: what it receives goes to the bridge. It is made promiscuous, to receive "
            "everything."
        ),
        to=RETURN,
        cause="return from ioctl()",
    )
    def link_netdev(self, me: Context) -> None:
        self.setup.tun.handled = 1


class SetOnline(KernelCall):
    """The ioctl SIOCSIFFLAGS with IFF_UP."""

    @op(
        "CP.8.4",
        "bring the interface up",
        "dev_change_flags",
        CORE_DEV,
        text="{tap} is up. Whatever is sent to it waits in its queue until somebody reads the other end.",
        to=RETURN,
        cause="return from ioctl()",
    )
    def dev_change_flags(self, me: Context) -> None:
        self.setup.tun.up = 1
