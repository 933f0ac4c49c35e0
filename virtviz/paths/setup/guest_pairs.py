"""What the guest's driver does besides, where the device may have several queue pairs.

It reads how many there are, and once the device is live it says over the control queue that all of them are to be used,
as far as there are CPUs. Whoever brings the interface up fills the receive queues of all pairs.

Source: virtio 1.4, 5.1.5, 5.1.9.5.6; Linux 6.12 drivers/net/virtio_net.c (virtnet_probe, virtnet_set_queues,
virtnet_open).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from virtviz.engine.ops import RETURN, Routine, call, call_any, goto, op
from virtviz.paths.setup import registers as reg
from virtviz.paths.setup.guest_control import Command, SendCommands
from virtviz.paths.setup.guest_open import OpenDevice
from virtviz.paths.setup.guest_probe import Probe
from virtviz.paths.setup.guest_remove import OpenAgain
from virtviz.spec.citation import VIRTIO_NET
from virtviz.spec.setup_sources import VIRTIO_CORE
from virtviz.spec.virtio import (
    VIRTIO_CONFIG_S_FEATURES_OK,
    VIRTIO_NET_CTRL_MQ,
    VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
    Feature,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.setup.state import SetUp


class ProbeInPairs(Probe):
    """The same where the device may have several queue pairs, and the guest several CPUs.

    Args:
        set_pairs: sends the command that says how many pairs are to be used.
    """

    retold: ClassVar = {
        "say_driver_ok": {"to": call("access", "how_many_pairs")},
    }

    def __init__(
        self,
        name: str,
        place: Place,
        setup: SetUp,
        access: Routine,
        *,
        knows: int,
        queues: Routine,
        onward: Routine,
        set_pairs: Routine,
    ) -> None:
        super().__init__(name, place, setup, access, knows=knows, queues=queues, onward=onward)
        self.set_pairs = set_pairs

    def has_pairs(self) -> bool:
        """Say whether there is a number of pairs to be read: MQ was accepted, which needs a control queue."""
        return bool(self.mine.wanted >> Feature.NET_F_MQ & 1)

    @op(
        "CP.1.5",
        {"refused": "see that the device refuses", "": "see that the device agrees"},
        "virtio_features_ok",
        VIRTIO_CORE,
        spec="3.1.1",
        text={
            "refused": (
                "FEATURES_OK is clear again: the device refuses what the driver chose. Linux: “device refuses "
                "features”."
            ),
            "": "FEATURES_OK is still set: driver and device agree on {wanted}, whatever they will be used for.",
        },
        to={"agreed": goto("read_generation"), "agreed, with MQ": goto("read_pairs"), "refused": goto("say_failed")},
    )
    def look_at_answer(self, me: Context) -> str:
        if not self.loaded & VIRTIO_CONFIG_S_FEATURES_OK:
            return "refused"
        return "agreed, with MQ" if self.has_pairs() else "agreed"

    @op(
        "CP.1.6",
        "read how many queue pairs there are",
        "virtio_cread16",
        VIRTIO_NET,
        spec="5.1.4",
        text="MQ was accepted: the device's configuration says how many queue pairs it has (max_virtqueue_pairs).",
        to=call("access", "note_pairs"),
        cause="load of the device's configuration",
    )
    def read_pairs(self, me: Context) -> None:
        reg.load(self.setup, self.mine.device + 8, 2)

    @op(
        "CP.1.6",
        "note how many queue pairs there are",
        "virtnet_probe",
        VIRTIO_NET,
        spec="5.1.2",
        text="{loaded} pairs: so the control queue is number {control}, behind all of them, used or not.",
        to=goto("read_generation"),
    )
    def note_pairs(self, me: Context) -> None:
        self.cpus.pairs = self.loaded

    def words(self, me: Context) -> Mapping[str, object]:
        """Give also how many pairs there are."""
        return {**super().words(me), "loaded": self.loaded, "control": self.control, "online": self.cpus.online}

    @op(
        "CP.1.8",
        "see how many queue pairs to use",
        "virtnet_probe",
        VIRTIO_NET,
        spec="5.1.5",
        text={
            "one": "One queue pair is what a device uses that was told nothing else.",
            "several": (
                "A device uses one pair until it is told otherwise. Linux wants as many as there are CPUs online: "
                "{online}."
            ),
        },
        to={"one": goto("read_link"), "several": call("set_pairs", "read_link")},
        private=True,
    )
    def how_many_pairs(self, me: Context) -> str:
        return "several" if self.has_pairs() else "one"


class SetPairs(SendCommands):
    """Say how many queue pairs are to be used: as many as there are CPUs, if the device has so many."""

    @property
    def commands(self) -> Sequence[Command]:
        """The one command."""
        pairs = min(self.cpus.online, self.cpus.pairs)
        head = bytes((VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET))
        return (Command(head + pairs.to_bytes(2, "little"), f"to use {pairs} queue pairs"),)


class FillAll(Routine):
    """Fill the receive queues of all pairs, one after the other: whoever opens the interface does it for all.

    Args:
        refills: name of each receive queue, such as `first receive` -> fills it.
    """

    def __init__(self, name: str, place: Place, setup: SetUp, refills: Mapping[str, Routine]) -> None:
        super().__init__(name, place)
        self.setup = setup
        self.mine = setup.probe
        self.refills = refills
        self._names = list(refills)

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the queue."""
        return {"queue": self._names[self.mine.queue % len(self._names)]}

    @op(
        "G-RX.6",
        "fill a receive queue",
        "try_fill_recv",
        VIRTIO_NET,
        text="The {queue} queue gets its buffers, from the CPU that opens the interface: this one.",
        to=call_any("refills", "go_on"),
        private=True,
    )
    def fill(self, me: Context) -> str:
        return self._names[self.mine.queue]

    @op(
        "G-RX.6",
        "go on to the next receive queue",
        "virtnet_open",
        VIRTIO_NET,
        text={"next": "The next pair's.", "all": "Every receive queue is full of empty buffers."},
        to={"next": goto("fill"), "all": RETURN},
        private=True,
    )
    def go_on(self, me: Context) -> str:
        mine = self.mine
        mine.queue = following = (mine.queue + 1) % len(self._names)
        return "next" if following else "all"


class OpenDeviceInPairs(OpenDevice):
    """The same where programs run on several CPUs: all of them begin together."""

    retold: ClassVar = {"start_program": {"private": False}}

    def __init__(self, name: str, place: Place, setup: SetUp, refill: Routine, program: Routine) -> None:
        super().__init__(name, place, setup, refill, program)
        self.cpus = setup.cpus

    def start_program(self, me: Context) -> None:
        """Let the program begin, and those of the other CPUs."""
        self.cpus.programs = 1


class OpenAgainInPairs(OpenAgain):
    """The same where programs on other vCPUs wait for it."""

    retold: ClassVar = {"return_to_program": {"private": False}}

    def __init__(self, name: str, place: Place, setup: SetUp, refill: Routine) -> None:
        super().__init__(name, place, setup, refill)
        self.cpus = setup.cpus

    def return_to_program(self, me: Context) -> None:
        """Let those programs go on."""
        self.cpus.resets += 1
