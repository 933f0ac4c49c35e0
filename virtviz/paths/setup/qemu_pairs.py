"""What QEMU does besides, where the device has several queue pairs: it switches the TAP's queues on and off.

A device begins with one pair, and goes back to it with a reset; the driver's command may change that. The TAP is told
of it queue by queue. vhost is not: it serves all pairs from DRIVER_OK on, and is left alone.

Source: QEMU 10.0 and 7.2 hw/net/virtio-net.c (virtio_net_set_multiqueue, virtio_net_set_queue_pairs, peer_attach,
peer_detach, virtio_net_handle_mq, virtio_net_disable_rss), net/tap.c (tap_enable, tap_disable); the order is that of
setup-vhost-mq.txt, the recording of a start.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.setup.pairs import ORDINALS, PairCells
from virtviz.paths.setup.qemu_control import ServeControl
from virtviz.paths.setup.qemu_start import QemuStart, QemuStartWithVhost
from virtviz.paths.setup.qemu_tap import FollowGuest
from virtviz.paths.setup.tun_calls import IFF_ATTACH_QUEUE, IFF_DETACH_QUEUE
from virtviz.spec.citation import QEMU_VIRTIO_NET
from virtviz.spec.virtio import VIRTIO_NET_CTRL_MQ

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.setup.calls import Calls
    from virtviz.paths.setup.state import SetUp
    from virtviz.paths.virtio_device.device import NetDevice
    from virtviz.ring.rings import DeviceRing


class QemuStartInPairs(QemuStart):
    """The start of a machine whose device has several queue pairs: one is in use at first, by the reset.

    Attributes:
        set_pairs: switches the TAP's queues on and off; set by the wiring.
    """

    links: Mapping[str, str] = MappingProxyType({"begin_reset": "settle_pairs"})
    set_pairs: Routine

    @op(
        "CP.8.10",
        "go back to one queue pair",
        "virtio_net_set_multiqueue",
        QEMU_VIRTIO_NET,
        spec="5.1.9.5.6",
        text="The machine is reset before it begins, and a network device that was reset uses one queue pair.",
        to=call("set_pairs", "reset_header_length"),
        private=True,
    )
    def settle_pairs(self, me: Context) -> None: ...


class QemuStartWithVhostInPairs(QemuStartInPairs, QemuStartWithVhost):
    """The same with vhost=on."""


class FollowGuestInPairs(FollowGuest):
    """The same where there are several queue pairs: first of all it is settled how many are in use.

    Args:
        set_pairs: switches the TAP's queues on and off.
    """

    first = "settle_pairs"

    def __init__(
        self, name: str, place: Place, setup: SetUp, header: Routine, offload: Routine, set_pairs: Routine
    ) -> None:
        super().__init__(name, place, setup, header, offload)
        self.set_pairs = set_pairs

    @op(
        "CP.5.10",
        "settle how many queue pairs are in use",
        "virtio_net_set_multiqueue",
        QEMU_VIRTIO_NET,
        spec="5.1.9.5.6",
        text="With the features it is settled anew how many queue pairs are in use: one, until the driver says more.",
        to=call("set_pairs", "adjust_header"),
        private=True,
    )
    def settle_pairs(self, me: Context) -> None: ...


class SetQueuePairs(Routine):
    """Switch on the TAP's queue of each pair in use, and switch off all others."""

    def __init__(self, name: str, place: Place, setup: SetUp, calls: Calls) -> None:
        super().__init__(name, place)
        self.setup = setup
        self.set_queue = calls.set_queue

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the TAP and its queue."""
        return {
            "tap": self.setup.port_name,
            "ordinal": ORDINALS[self.setup.sequence.argument],
            "pairs": self.setup.pairs_in_use,
        }

    @op(
        "CP.5.10",
        {
            "off": "switch a queue of the TAP off",
            "on": "switch a queue of the TAP on",
            "done": "see that the TAP's queues are right",
        },
        "virtio_net_set_queue_pairs",
        QEMU_VIRTIO_NET,
        spec="5.1.9.5.6",
        text={
            "off": "Pairs in use: {pairs}. {tap}'s {ordinal} queue is none of them: it is switched off (tap_disable).",
            "on": "Pairs in use: {pairs}. {tap}'s {ordinal} queue is one of them: it is switched on (tap_enable).",
            "done": "Pairs in use: {pairs}. Every queue of {tap} is switched on or off accordingly.",
        },
        to={"off": call("set_queue", "settle"), "on": call("set_queue", "settle"), "done": RETURN},
        cause="ioctl(TUNSETQUEUE)",
    )
    def settle(self, me: Context) -> str:
        setup, in_use = self.setup, self.setup.pairs_in_use
        for pair in range(1, setup.pairs):
            mine, is_off = setup.of_pair[pair], int(pair >= in_use)
            assert isinstance(mine, PairCells)
            if mine.tap_off != is_off:
                mine.tap_off = is_off
                setup.aim_at(pair)
                setup.arguments.value = IFF_DETACH_QUEUE if is_off else IFF_ATTACH_QUEUE
                return "off" if is_off else "on"
        return "done"


class ChangePairs(Routine):
    """What the driver's command to use several pairs leads to, besides its answer.

    Args:
        set_pairs: switches the TAP's queues on and off.
    """

    def __init__(self, name: str, place: Place, setup: SetUp, calls: Calls, set_pairs: Routine) -> None:
        super().__init__(name, place)
        self.setup = setup
        self.set_steering, self.set_pairs = calls.set_steering, set_pairs

    @op(
        "CP.5.9",
        "take a steering program away",
        "virtio_net_disable_rss",
        QEMU_VIRTIO_NET,
        spec="5.1.9.5.6",
        text="The driver leaves to the device which pair a frame comes by. A program for that (eBPF) would have to go.",
        to=call("set_steering", "leave_backend"),
        cause="ioctl(TUNSETSTEERINGEBPF)",
    )
    def disable_rss(self, me: Context) -> None:
        self.setup.aim_at(0)

    @op(
        "CP.5.10",
        "let the back-end go on",
        "virtio_net_set_status",
        QEMU_VIRTIO_NET,
        text="Whoever serves the queues was started for all pairs at DRIVER_OK, and goes on. Only the TAP is told.",
        to=goto("set_pairs"),
        private=True,
    )
    def leave_backend(self, me: Context) -> None: ...


class ServeControlInPairs(ServeControl):
    """The same where one of the commands is how many queue pairs are to be used.

    Args:
        change_pairs: what that leads to.
    """

    def __init__(
        self,
        state: State,
        name: str,
        place: Place,
        device: NetDevice,
        ring: DeviceRing,
        change_pairs: Routine,
        who: str = "the vCPU's thread",
    ) -> None:
        super().__init__(state, name, place, device, ring, who)
        self.change_pairs = change_pairs

    @op(
        "CP.4.4",
        "carry the command out",
        "virtio_net_handle_ctrl_iov",
        QEMU_VIRTIO_NET,
        spec="5.1.9.5",
        text={
            "done": "The command is about {class}. QEMU's device model does what it asks for, and vhost is not told.",
            "pairs": "The command is about {class}: so many are to be used. QEMU notes it, and passes it on.",
        },
        to={"done": goto("write_answer"), "pairs": call("change_pairs", "write_answer")},
    )
    def carry_out(self, me: Context) -> str:
        super().carry_out(me)
        return "pairs" if self.mine.command == VIRTIO_NET_CTRL_MQ else "done"
