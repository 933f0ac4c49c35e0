"""The TUN/TAP driver's side of making and adjusting a TAP: rows CP.5.

There is one /dev/net/tun for all. What is read and written there belongs to no network device until TUNSETIFF ties the
open file to one, and makes that one if there is none of the name.

Source: Linux 6.12 drivers/net/tun.c (__tun_chr_ioctl, tun_set_iff, set_offload).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.ops import RETURN, op
from virtviz.paths.setup.kernel_calls import KernelCall
from virtviz.paths.setup.pairs import TunFileCells
from virtviz.spec.citation import TUN

if TYPE_CHECKING:
    from virtviz.paths.context import Context

IFF_TAP, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_ONE_QUEUE, IFF_VNET_HDR = 0x0002, 0x0100, 0x1000, 0x2000, 0x4000
IFF_ATTACH_QUEUE, IFF_DETACH_QUEUE = 0x0200, 0x0400
TUN_FEATURES: Final = 0x7373
"""What TUNGETFEATURES answers: TUN and TAP, NAPI, NAPI_FRAGS, NO_CARRIER, MULTI_QUEUE, NO_PI, ONE_QUEUE, VNET_HDR."""
TAP_FLAGS: Final = IFF_TAP | IFF_NO_PI | IFF_ONE_QUEUE | IFF_VNET_HDR


def for_pairs(flags: int, pairs: int) -> int:
    """Give the flags of TUNSETIFF for a TAP that is to have so many queues."""
    return flags | IFF_MULTI_QUEUE if pairs > 1 else flags


class OpenTun(KernelCall):
    """open("/dev/net/tun")."""

    @op(
        "CP.5.1",
        "open /dev/net/tun",
        "tun_chr_open",
        TUN,
        text=(
            "An open file of the TUN driver, tied to no network device yet. The same node serves every TAP of the host."
        ),
        to=RETURN,
        cause="return from open()",
    )
    def tun_chr_open(self, me: Context) -> None: ...


class GetTunFeatures(KernelCall):
    """TUNGETFEATURES."""

    @op(
        "CP.5.2",
        "say what the driver can do",
        "__tun_chr_ioctl",
        TUN,
        text="The TUN driver answers {result}: among it VNET_HDR, a virtio-net header in front of every frame.",
        to=RETURN,
        cause="return from ioctl()",
    )
    def tun_get_features(self, me: Context) -> None:
        self.setup.arguments.result = TUN_FEATURES


class SetIff(KernelCall):
    """TUNSETIFF."""

    @op(
        "CP.5.4",
        {"made": "make the network device", "": "tie the file to the network device"},
        "tun_set_iff",
        TUN,
        text={
            "made": "A network device {tap} comes to be. What is written to the file, {tap} receives; and the reverse.",
            "attached": (
                "{tap} exists already, made to stay: the file becomes its other end. Its owner was checked, or "
                "CAP_NET_ADMIN."
            ),
            "another": (
                "{tap} may have several queues (IFF_MULTI_QUEUE): one more file is tied to it, its {ordinal} queue."
            ),
        },
        to={"made": RETURN, "attached": RETURN, "another": RETURN},
        cause="return from ioctl()",
    )
    def tun_set_iff(self, me: Context) -> str:
        setup, tun = self.setup, self.setup.tun
        pair = setup.sequence.argument
        was_there = tun.exists
        if not pair:
            tun.exists = 1
        setup.tun_files[pair].attached = setup.of_pair[pair].tap_fd
        if pair:
            return "another"
        tun.flags = setup.arguments.value
        return "attached" if was_there else "made"


class GetHeaderLength(KernelCall):
    """TUNGETVNETHDRSZ."""

    @op(
        "CP.5.5",
        "say how long the header is",
        "__tun_chr_ioctl",
        TUN,
        text="The virtio-net header in front of each frame of {tap} has {result} bytes now.",
        to=RETURN,
        cause="return from ioctl()",
    )
    def tun_get_hdr_size(self, me: Context) -> None:
        self.setup.arguments.result = self.setup.tun.hdr_bytes


class SetHeaderLength(KernelCall):
    """TUNSETVNETHDRSZ."""

    @op(
        {"refused": "CP.5.3", "": "CP.5.7"},
        {"refused": "refuse: no device yet", "": "set the header's length"},
        "__tun_chr_ioctl",
        TUN,
        text={
            "refused": (
                "The file is tied to no network device yet: EBADFD. QEMU does not mind; it only wanted the default."
            ),
            "set": "From now on each frame of {tap} has a virtio-net header of {value} bytes in front.",
        },
        to={"refused": RETURN, "set": RETURN},
        cause="return from ioctl()",
    )
    def tun_set_hdr_size(self, me: Context) -> str:
        setup, tun, length = self.setup, self.setup.tun, self.setup.arguments.value
        if not setup.tun_files[setup.sequence.argument].attached:
            return "refused"
        tun.hdr_bytes = length
        return "set"


class SetOffload(KernelCall):
    """TUNSETOFFLOAD."""

    @op(
        "CP.5.8",
        "note what the reader takes",
        "set_offload",
        TUN,
        text="Bits {hex}: what the host's stack may hand to {tap} uncut and without checksum. 0 is plain frames only.",
        to=RETURN,
        cause="return from ioctl()",
    )
    def tun_set_offload(self, me: Context) -> None:
        self.setup.tun.offload = self.setup.arguments.value


class SetSndbuf(KernelCall):
    """TUNSETSNDBUF."""

    @op(
        "CP.5.6",
        "set the send buffer",
        "tun_set_sndbuf",
        TUN,
        text="{value} bytes written to {tap} may be under way at a time: in effect, no limit.",
        to=RETURN,
        cause="return from ioctl()",
    )
    def tun_set_sndbuf(self, me: Context) -> None:
        self.setup.tun.sndbuf = self.setup.arguments.value


class GetIff(KernelCall):
    """TUNGETIFF."""

    @op(
        "CP.5.5",
        "say which device it is",
        "tun_get_iff",
        TUN,
        text="The file that was handed over is {tap}'s other end, and frames there carry a virtio-net header.",
        to=RETURN,
        cause="return from ioctl()",
    )
    def tun_get_iff(self, me: Context) -> None:
        self.setup.arguments.result = self.setup.tun.flags


class SetQueue(KernelCall):
    """TUNSETQUEUE."""

    @op(
        "CP.5.10",
        {"off": "switch the queue off", "on": "switch the queue on"},
        "tun_set_queue",
        TUN,
        text={
            "off": "IFF_DETACH_QUEUE: {tap} gives its {ordinal} queue no frames any more, and forgets the flows there.",
            "on": "IFF_ATTACH_QUEUE: {tap} may put frames into its {ordinal} queue from now on.",
        },
        to={"off": RETURN, "on": RETURN},
        cause="return from ioctl()",
    )
    def tun_set_queue(self, me: Context) -> str:
        file = self.setup.tun_files[self.setup.sequence.argument]
        assert isinstance(file, TunFileCells)
        setup = self.setup
        is_off = setup.arguments.value == IFF_DETACH_QUEUE
        file.detached = int(is_off)
        if is_off and setup.flows is not None:
            setup.flows.forget(setup.sequence.argument)
        return "off" if is_off else "on"


class SetSteering(KernelCall):
    """TUNSETSTEERINGEBPF."""

    @op(
        "CP.5.9",
        "take a steering program away",
        "tun_set_ebpf",
        TUN,
        text="-1: no program chooses the queue. {tap} does so itself: by the queue that a flow was last sent on.",
        to=RETURN,
        cause="return from ioctl()",
    )
    def tun_set_ebpf(self, me: Context) -> None: ...
