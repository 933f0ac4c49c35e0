"""vhost-net's side of its start and stop: what each ioctl on /dev/vhost-net does. Rows CP.6.

Source: Linux 6.12 drivers/vhost/vhost.c (vhost_dev_ioctl, vhost_vring_ioctl, vhost_vring_set_num_addr),
drivers/vhost/net.c (vhost_net_open, vhost_net_ioctl, vhost_net_set_backend).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import RETURN, call_any, goto, op
from virtviz.paths.setup.kernel_calls import KernelCall
from virtviz.ring.split_device import SplitDevice
from virtviz.spec.citation import VHOST, VHOST_NET

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.engine.ops import Routine
    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.setup.state import SetUp

ENOMEM = 12


class VhostCall(KernelCall):
    """A system call on /dev/vhost-net, which has one pair of rings, whichever pair of the guest's queues that is."""

    @property
    def number(self) -> int:
        """The number on the guest's device of the queue that is meant."""
        return 2 * self.setup.sequence.argument + self.setup.arguments.index % 2

    @property
    def ring(self) -> SplitDevice:
        """The device's side of that queue: vhost has split rings only."""
        ring = self.setup.device_rings[self.number]
        assert isinstance(ring, SplitDevice)
        return ring

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the worker and the queue."""
        setup = self.setup
        worker = setup.worker_names[setup.sequence.argument]
        return {**super().words(me), "worker": worker, "queue": setup.queue_name(self.number)}


class OpenVhost(VhostCall):
    """open("/dev/vhost-net")."""

    @op(
        "CP.6.1",
        {"missing": "find no such device", "": "open /dev/vhost-net"},
        "vhost_net_open",
        VHOST_NET,
        text={
            "opened": (
                "A device of two rings, receive and transmit, comes to be. It serves nobody yet, and has no thread."
            ),
            "missing": "There is no /dev/vhost-net: the module vhost_net is not there. open() fails.",
        },
        to={"opened": RETURN, "missing": RETURN},
        cause="return from open()",
    )
    def vhost_net_open(self, me: Context) -> str:
        if self.setup.vhost_missing:
            self.setup.arguments.result = 1
            return "missing"
        self.setup.arguments.result = 0
        return "opened"


class SetOwner(VhostCall):
    """VHOST_SET_OWNER."""

    @op(
        "CP.6.2",
        "give the device an owner and a worker",
        "vhost_dev_set_owner",
        VHOST,
        text="vhost takes the caller's memory as its own to read, and makes a thread for the work: {worker}.",
        to=RETURN,
        cause="return from ioctl()",
    )
    def vhost_set_owner(self, me: Context) -> None:
        self.setup.vhost.owner = 1
        self.setup.vhost.worker = 1


class GetFeatures(VhostCall):
    """VHOST_GET_FEATURES."""

    @op(
        "CP.6.3",
        "say what vhost can do",
        "vhost_net_ioctl",
        VHOST_NET,
        text="vhost-net answers {result}: few bits, for it knows rings only. All the rest is QEMU's and the TAP's.",
        to=RETURN,
        cause="return from ioctl()",
    )
    def vhost_get_features(self, me: Context) -> None:
        self.setup.arguments.result = self.setup.vhost_features


class SetCall(VhostCall):
    """VHOST_SET_VRING_CALL."""

    @op(
        "CP.6.9",
        "take the eventfd to signal",
        "vhost_vring_ioctl",
        VHOST,
        text="Ring {index} ({queue}): eventfd {fd} is what vhost signals from now on when it has used buffers.",
        to=RETURN,
        cause="return from ioctl()",
    )
    def vhost_set_vring_call(self, me: Context) -> None:
        arguments = self.setup.arguments
        self.setup.vhost.call[arguments.index] = arguments.value


class SetErr(VhostCall):
    """VHOST_SET_VRING_ERR."""

    @op(
        "CP.6.5",
        "take the eventfd for errors",
        "vhost_vring_ioctl",
        VHOST,
        text="Ring {index} ({queue}): eventfd {fd} is signalled when vhost finds the ring broken.",
        to=RETURN,
        cause="return from ioctl()",
    )
    def vhost_set_vring_err(self, me: Context) -> None:
        arguments = self.setup.arguments
        self.setup.vhost.error[arguments.index] = arguments.value


class SetFeatures(VhostCall):
    """VHOST_SET_FEATURES."""

    @op(
        "CP.6.10",
        "take the accepted features",
        "vhost_net_set_features",
        VHOST_NET,
        text="vhost is told what the guest accepted: {hex}. So it knows the header's length and how to notify.",
        to=RETURN,
        cause="return from ioctl()",
    )
    def vhost_set_features(self, me: Context) -> None:
        self.setup.vhost.features = self.setup.arguments.value


class GetBackendFeatures(VhostCall):
    """VHOST_GET_BACKEND_FEATURES."""

    @op(
        "CP.6.10",
        "say what vhost can talk about",
        "vhost_net_ioctl",
        VHOST_NET,
        text="Another set of bits: not what the ring can do, but how QEMU and vhost may talk to each other.",
        to=RETURN,
        cause="return from ioctl()",
    )
    def vhost_get_backend_features(self, me: Context) -> None:
        self.setup.arguments.result = 2


class SetBackendFeatures(VhostCall):
    """VHOST_SET_BACKEND_FEATURES."""

    @op(
        "CP.6.10",
        "take how to talk",
        "vhost_set_backend_features",
        VHOST,
        text="Bit 1: messages about address translation in their second version. The guest never hears of these bits.",
        to=RETURN,
        cause="return from ioctl()",
    )
    def vhost_set_backend_features(self, me: Context) -> None:
        self.setup.vhost.backend_features = self.setup.arguments.value


class SetMemTable(VhostCall):
    """VHOST_SET_MEM_TABLE."""

    @op(
        "CP.6.11",
        {"refused": "find no room for the map", "": "take the map of the guest's memory"},
        "vhost_set_memory",
        VHOST,
        text={
            "taken": "vhost learns where in QEMU's memory the guest's lies. It can now follow a descriptor's address.",
            "refused": "The kernel has no memory left for vhost's map of the guest's: the call fails with ENOMEM (12).",
        },
        to={"taken": RETURN, "refused": RETURN},
        cause="return from ioctl()",
    )
    def vhost_set_mem_table(self, me: Context) -> str:
        setup = self.setup
        setup.arguments.result = ENOMEM if setup.vhost_fails else 0
        if setup.vhost_fails:
            return "refused"
        setup.vhost.regions = setup.arguments.value
        return "taken"


class SetNum(VhostCall):
    """VHOST_SET_VRING_NUM."""

    @op(
        "CP.6.12",
        "take the ring's size",
        "vhost_vring_set_num",
        VHOST,
        text="Ring {index} ({queue}) has {value} descriptors.",
        to=RETURN,
        cause="return from ioctl()",
    )
    def vhost_set_vring_num(self, me: Context) -> None:
        arguments = self.setup.arguments
        self.setup.vhost.num[arguments.index] = arguments.value


class SetBase(VhostCall):
    """VHOST_SET_VRING_BASE."""

    @op(
        "CP.6.13",
        "take where to begin",
        "vhost_vring_ioctl",
        VHOST,
        text=(
            "vhost begins ring {index} ({queue}) at index {value}: last_avail_idx. After a stop it goes on where it "
            "was."
        ),
        to=RETURN,
        cause="return from ioctl()",
    )
    def vhost_set_vring_base(self, me: Context) -> None:
        arguments = self.setup.arguments
        self.setup.vhost.base[arguments.index] = arguments.value
        mine = self.ring.cells
        mine.last_avail_idx = mine.avail_idx = arguments.value


class SetAddr(VhostCall):
    """VHOST_SET_VRING_ADDR."""

    @op(
        "CP.6.14",
        "take the ring's addresses",
        "vhost_vring_set_addr",
        VHOST,
        text=(
            "Ring {index} ({queue}): descriptors at {desc}. Addresses in QEMU's memory, not the guest's: vhost works "
            "in it."
        ),
        to=RETURN,
        cause="return from ioctl()",
    )
    def vhost_set_vring_addr(self, me: Context) -> None:
        arguments, vhost = self.setup.arguments, self.setup.vhost
        index = arguments.index
        vhost.desc[index], vhost.avail[index] = arguments.desc, arguments.avail
        vhost.used[index] = arguments.used


class SetKick(VhostCall):
    """VHOST_SET_VRING_KICK.

    Args:
        wakeups: name of each data queue, as its number on the device has it -> the callback on the eventfd.
    """

    def __init__(self, name: str, place: Place, setup: SetUp, wakeups: Sequence[Routine]) -> None:
        super().__init__(name, place, setup)
        self.wakeups = {setup.queue_name(queue): wakeup for queue, wakeup in enumerate(wakeups)}

    @op(
        "CP.6.15",
        "wait on the kick's eventfd",
        "vhost_vring_ioctl",
        VHOST,
        text={
            "quiet": "Ring {index} ({queue}): vhost puts its callback on eventfd {fd}. It is not signalled.",
            "": "Ring {index}: vhost hooks eventfd {fd}, which QEMU made signalled: the hook runs at once.",
        },
        to={"signalled": call_any("wakeups", "done_with"), "quiet": goto("done_with")},
    )
    def vhost_set_vring_kick(self, me: Context) -> str:
        arguments = self.setup.arguments
        self.setup.vhost.kick[arguments.index] = arguments.value
        if not self.setup.kicks[self.number].counter:
            return "quiet"
        return self.setup.queue_name(self.number)

    @op(
        "CP.6.15",
        "return to QEMU",
        "vhost_net_ioctl",
        VHOST_NET,
        text="Whatever was in the ring before would be found now, so no kick of the guest can be missed.",
        to=RETURN,
        cause="return from ioctl()",
        private=True,
    )
    def done_with(self, me: Context) -> None: ...


class SetBackend(VhostCall):
    """VHOST_NET_SET_BACKEND."""

    @op(
        "CP.6.17",
        {"live": "tie the ring to the TAP", "stopped": "untie the ring from the TAP"},
        "vhost_net_set_backend",
        VHOST_NET,
        text={
            "live": "Ring {index} ({queue}) is live: its frames go to, or come from, {tap}. vhost hooks {tap} as well.",
            "stopped": (
                "Ring {index} ({queue}) has no back-end any more; the worker is waited for. vhost leaves {tap} alone."
            ),
        },
        to={"live": RETURN, "stopped": RETURN},
        cause="return from ioctl()",
        fence=True,
    )
    def vhost_net_set_backend(self, me: Context) -> str:
        setup, arguments = self.setup, self.setup.arguments
        setup.vhost.backend[arguments.index] = arguments.value
        if arguments.value:
            # vhost_vq_init_access: what else it keeps of a ring it takes from the ring itself.
            ring = self.ring
            ring.cells.last_used_idx = int.from_bytes(ring.memory.read(ring.layout.used_idx, 2), "little")
            ring.cells.signalled_used_valid = ring.cells.used_flags = 0
        if not arguments.index % 2:
            setup.taps[setup.sequence.argument].cells.watched = int(bool(arguments.value))
        return "live" if arguments.value else "stopped"


class GetBase(VhostCall):
    """VHOST_GET_VRING_BASE."""

    @op(
        "CP.6.18",
        "say where the ring stands",
        "vhost_vring_ioctl",
        VHOST,
        text=(
            "vhost says how far it came in ring {index} ({queue}): last_avail_idx {result}. A new start would begin "
            "there."
        ),
        to=RETURN,
        cause="return from ioctl()",
    )
    def vhost_get_vring_base(self, me: Context) -> None:
        self.setup.arguments.result = self.ring.cells.last_avail_idx
