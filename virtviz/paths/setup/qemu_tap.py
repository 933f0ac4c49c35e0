"""QEMU adjusts its TAP to what the guest accepts: how long the header is, and what the guest takes uncut. Rows CP.5.

QEMU 7.2 tries a length out before it sets it, as it says, to be sure that the kernel knows it; QEMU 10.0 only sets it.
With several queue pairs the TAP has a file for each, and QEMU sets the length by way of all of them, although there is
only one length.

Source: QEMU 10.0 and 7.2 net/tap.c, net/tap-linux.c (tap_probe_vnet_hdr_len, tap_fd_set_vnet_hdr_len,
tap_fd_set_offload), hw/net/virtio-net.c (virtio_net_set_mrg_rx_bufs, virtio_net_apply_guest_offloads).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.setup.features import tap_offload
from virtviz.spec.citation import QEMU_TAP, QEMU_VIRTIO_NET
from virtviz.spec.setup_sources import QEMU_TAP_LINUX
from virtviz.spec.virtio import VIRTIO_NET_HDR_BYTES, VIRTIO_NET_HDR_LEGACY_BYTES, Feature

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.setup.calls import Calls
    from virtviz.paths.setup.state import SetUp


def header_bytes(features: int) -> int:
    """Give the length of the virtio-net header for the features that a guest has accepted."""
    is_long = features & (1 << Feature.NET_F_MRG_RXBUF | 1 << Feature.F_VERSION_1)
    return VIRTIO_NET_HDR_BYTES if is_long else VIRTIO_NET_HDR_LEGACY_BYTES


class HeaderLength(Routine):
    """Try a length of the header out, set it, or both: for the pair at hand, or for each pair in turn.

    Args:
        length: gives the length.
        tries: try it out first, as QEMU 7.2 does.
        keeps: set it; otherwise it was only tried.
        pairs: for how many pairs, from the first on; 0 for the pair at hand.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        setup: SetUp,
        calls: Calls,
        length: Callable[[], int],
        *,
        tries: bool,
        keeps: bool = True,
        pairs: int = 0,
    ) -> None:
        super().__init__(name, place)
        self.setup = setup
        self.pairs = pairs
        self.length = length
        self.tries = tries
        self.keeps = keeps
        self.get_header, self.set_header = calls.get_header, calls.set_header

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the lengths."""
        return {"length": self.length(), "old": self.setup.arguments.result, "tap": self.setup.port_name}

    @op(
        "CP.5.7",
        "begin with the header's length",
        "tap_set_vnet_hdr_len",
        QEMU_TAP,
        text={
            "try": (
                "QEMU 7.2 tries whether {tap} can have a header of {length} bytes: it asks for the present length "
                "first."
            ),
            "set": "QEMU sets the length of the virtio-net header on {tap}: {length} bytes.",
            "nothing": "QEMU 10.0 knows that {tap} can have a header of {length} bytes, and asks nobody.",
        },
        to={"try": call("get_header", "try_length"), "set": goto("set_length"), "nothing": RETURN},
        cause="ioctl(TUNGETVNETHDRSZ)",
    )
    def ask_length(self, me: Context) -> str:
        self.setup.aim_at(self.setup.sequence.pair)
        if self.tries:
            return "try"
        return "set" if self.keeps else "nothing"

    @op(
        "CP.5.7",
        "try the new length",
        "tap_probe_vnet_hdr_len",
        QEMU_TAP_LINUX,
        text="It was {old}. QEMU sets {length} to see whether that works.",
        to=call("set_header", "restore_length"),
        cause="ioctl(TUNSETVNETHDRSZ)",
    )
    def try_length(self, me: Context) -> None:
        self.setup.arguments.value = self.length()

    @op(
        "CP.5.7",
        "set the old length again",
        "tap_probe_vnet_hdr_len",
        QEMU_TAP_LINUX,
        text="It works. The length that was there before, {old}, is set again: it was only a try.",
        to=call("set_header", "is_it_all"),
        cause="ioctl(TUNSETVNETHDRSZ)",
    )
    def restore_length(self, me: Context) -> None:
        self.setup.arguments.value = self.setup.arguments.result

    @op(
        "CP.5.7",
        "go on from the try",
        "tap_probe_vnet_hdr_len",
        QEMU_TAP_LINUX,
        text={"set": "Now the length is set for good.", "enough": "To know it is enough for now."},
        to={"set": goto("set_length"), "enough": RETURN},
        private=True,
    )
    def is_it_all(self, me: Context) -> str:
        return "set" if self.keeps else "enough"

    @op(
        "CP.5.7",
        "set the header's length",
        "tap_fd_set_vnet_hdr_len",
        QEMU_TAP_LINUX,
        text={
            "": "QEMU sets {length} bytes: what a guest of these features puts in front of each frame.",
            "another": "QEMU sets {length} bytes, and does the same by way of the next pair's file, of the same {tap}.",
        },
        to={"done": call("set_header", None), "another": call("set_header", "ask_length")},
        cause="ioctl(TUNSETVNETHDRSZ)",
    )
    def set_length(self, me: Context) -> str:
        setup = self.setup
        setup.arguments.value = setup.process.hdr_bytes = self.length()
        return "another" if self.pairs and setup.next_pair(self.pairs) else "done"


class Offload(Routine):
    """Tell the TAP what its reader takes: the guest's offloads."""

    def __init__(self, name: str, place: Place, setup: SetUp, calls: Calls, features: Callable[[], int]) -> None:
        super().__init__(name, place)
        self.setup = setup
        self.features = features
        self.call_offload = calls.set_offload

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the bits."""
        return {"offload": f"{tap_offload(self.features()):#x}"}

    @op(
        "CP.5.8",
        "ask for no offload",
        "tap_fd_set_offload",
        QEMU_TAP_LINUX,
        text="QEMU asks for no offload first, to see whether this kernel knows the request at all.",
        to=call("call_offload", "set_offload"),
        cause="ioctl(TUNSETOFFLOAD)",
    )
    def probe_offload(self, me: Context) -> None:
        self.setup.aim_at(self.setup.sequence.pair)
        self.setup.arguments.value = 0

    @op(
        "CP.5.8",
        "ask for what the guest takes",
        "tap_fd_set_offload",
        QEMU_TAP_LINUX,
        text="Then what the guest has accepted so far: {offload}. Long segments need not be cut for such a guest.",
        to=call("call_offload", None),
        cause="ioctl(TUNSETOFFLOAD)",
    )
    def set_offload(self, me: Context) -> None:
        self.setup.arguments.value = tap_offload(self.features())


class FollowGuest(Routine):
    """Adjust the TAP after the guest has said what it accepts, or after a reset.

    Args:
        header, offload: the two things to set.
    """

    def __init__(self, name: str, place: Place, setup: SetUp, header: Routine, offload: Routine) -> None:
        super().__init__(name, place)
        self.setup = setup
        self.header = header
        self.offload = offload

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the TAP."""
        return {"tap": self.setup.port_name}

    @op(
        "CP.5.7",
        "adjust the TAP",
        "virtio_net_set_features",
        QEMU_VIRTIO_NET,
        text="What the guest accepts, {tap} has to know: first how long the header in front of each frame is.",
        to=call("header", "adjust_offload"),
        private=True,
    )
    def adjust_header(self, me: Context) -> None: ...

    @op(
        "CP.5.8",
        "adjust the offloads",
        "virtio_net_apply_guest_offloads",
        QEMU_VIRTIO_NET,
        text="Then what the guest takes without the host cutting or summing it.",
        to=call("offload", None),
        private=True,
    )
    def adjust_offload(self, me: Context) -> None: ...
