"""QEMU sends what the guest has put into its transmit queue: block Q-TX, rows 3 and 5 to 12.

Every packet costs a system call of its own, writev() on the TAP; nothing is collected. A TAP that is full and makes
QEMU wait does not exist here: QEMU sets its send buffer to INT_MAX (TAP_DEFAULT_SNDBUF 0).

Source: QEMU 10.0 hw/net/virtio-net.c (virtio_net_handle_tx_bh, virtio_net_tx_bh, virtio_net_flush_tx), net/tap.c.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.qemu_nic import TX_BURST, NicRoutine
from virtviz.paths.qemu_used import TellingRoutine
from virtviz.paths.virtio_device.buffers import wrong_to_send
from virtviz.ring.rings import readable_bytes
from virtviz.ring.verdicts import NAMES, RESET, is_malformed
from virtviz.spec.citation import QEMU_ASYNC, QEMU_TAP, QEMU_VIRTIO, QEMU_VIRTIO_NET
from virtviz.spec.virtio import VIRTIO_NET_HDR_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.qemu_checks import VirtioError
    from virtviz.paths.qemu_nic import Nic
    from virtviz.ring.verdicts import Problem


class ReadKick(Routine):
    """The handler of a queue's kick eventfd: read it, then serve the kick. Row 2 of Q-TX.

    Args:
        read: read() of the eventfd.
        serve: what a kick of this queue leads to.
        row: which row it is.
    """

    def __init__(self, name: str, place: Place, queue: str, read: Routine, serve: Routine, row: str) -> None:
        super().__init__(name, place, queue)
        self.read = read
        self.serve = serve
        self.rows = {"read": row}

    @op(
        "read",
        "read the kick's eventfd",
        "virtio_queue_host_notifier_read",
        QEMU_VIRTIO,
        text=(
            "QEMU reads the eventfd, or it would stay ready. vhost never does: it needs the wake-up only. In user "
            "space that is a system call."
        ),
        to=call("read", "serve"),
    )
    def read_kick(self, me: Context) -> None: ...


class ServeTxKick(NicRoutine):
    """A kick of the transmit queue: nothing is sent yet, only a bottom half scheduled. Row 3 of Q-TX.

    Args:
        drop: drops what is in the queue, for want of a link.
    """

    links: Mapping[str, str] = {"notify": ""}

    def __init__(self, name: str, place: Place, nic: Nic, drop: Routine) -> None:
        super().__init__(name, place, nic, nic.tx_name, nic.tx)
        self.drop = drop

    @op(
        "Q-TX.3",
        "note that something is to be sent",
        "virtio_net_handle_tx_bh",
        QEMU_VIRTIO_NET,
        text={
            "noted": "The device notes that its transmit queue waits. It sends nothing yet.",
            "no link": "The link is down: what the guest has put into the queue is dropped.",
            "noted already": "The queue waits already: its packets will be found.",
            "broken": "The guest has misused a ring: the device is broken until it is reset.",
        },
        to={
            "noted": goto("disable_kicks"),
            "no link": call("drop", None),
            "noted already": RETURN,
            "broken": RETURN,
        },
    )
    def note_kick(self, me: Context) -> str:
        mine = self.nic.cells
        if mine.broken:
            return "broken"
        if not self.nic.status.cells.config_status:
            return "no link"
        if mine.tx_waiting:
            return "noted already"
        mine.tx_waiting = 1
        return "noted"

    @op(
        "Q-TX.3",
        "ask for no more kicks",
        "virtio_queue_set_notification",
        QEMU_VIRTIO,
        spec="2.7.10",
        text={
            "written": "used.flags says NO_NOTIFY: the guest need not kick until the queue has been emptied.",
            "nothing": (
                "With event indices nothing is written, for a stale avail_event is suppression enough; QEMU only looks "
                "where avail.idx is."
            ),
        },
        to={"written": goto("schedule"), "nothing": goto("schedule")},
    )
    def disable_kicks(self, me: Context) -> str:
        return "written" if self.ring.disable_kicks() else "nothing"

    @op(
        "Q-TX.3",
        "schedule the bottom half",
        "qemu_bh_schedule",
        QEMU_ASYNC,
        text="A bottom half will empty the queue: in the main loop, in its next turn.",
        to=goto("notify"),
    )
    def schedule(self, me: Context) -> None:
        self.nic.qemu.schedule(self.nic.pair)


OF_THE_NIC = frozenset(NAMES.index(problem) + 1 for problem in ("no header", "header incomplete", "nothing to send"))
"""States that virtio-net itself finds in a buffer, where the ring has nothing against it."""


class SendQueued(TellingRoutine):
    """The bottom half: send packet after packet, until the queue is empty twice. Rows 5 to 12 of Q-TX.

    Args:
        writev: writev() on the TAP.
        interrupt: what makes the queue's interrupt.
        error: what is done about a malformed ring.
    """

    first = "begin"
    rows = MappingProxyType({"tell": "Q-TX.10"})
    links = MappingProxyType({**TellingRoutine.links, "told": "count"})
    retold = MappingProxyType(
        {
            "signal": {
                "text": (
                    "QEMU asks KVM to deliver the queue's interrupt: ioctl(KVM_SIGNAL_MSI), where vhost needs no "
                    "system call."
                )
            }
        }
    )

    def __init__(
        self, name: str, place: Place, nic: Nic, writev: Routine, interrupt: Routine, error: VirtioError
    ) -> None:
        super().__init__(name, place, nic, nic.tx_name, nic.tx, error)
        self.writev = writev
        self.interrupt = interrupt

    @op(
        "Q-TX.4",
        "begin to empty the queue",
        "virtio_net_tx_bh",
        QEMU_VIRTIO_NET,
        text="The bottom half runs: from now on another kick would schedule it again.",
        to=goto("read_avail_idx"),
    )
    def begin(self, me: Context) -> None:
        mine = self.nic.cells
        mine.tx_waiting = 0
        if mine.sent:
            mine.sent = 0
        if mine.rearmed:
            mine.rearmed = 0

    @op(
        {"known": "Q-TX.5", "new": "Q-TX.5", "broken": "Q-TX.5", "": "Q-TX.12"},
        {
            "known": "go on with the next entry",
            "broken": "take nothing from a broken device",
            "still broken": "take nothing from a broken device",
            "": "read avail.idx",
        },
        "virtqueue_split_pop",
        QEMU_VIRTIO,
        spec="2.7.13",
        text={
            "known": "avail.idx was {avail} when last read, and is not read again: entry {next} is to be had.{passed}",
            "new": "avail.idx is {avail}: entry {next} is available, and the next to be taken.{passed}",
            "empty": "avail.idx is still {avail}: the ring is empty.",
            "broken": "The device is broken, so virtqueue_pop() gives nothing, whatever lies in the ring.",
            "still broken": "Still broken: the bottom half is done, and asking for a kick was in vain.",
            "still empty": "Nothing slipped in while QEMU was asking: the bottom half is done.",
            "more came": "The ring is empty again, but something had slipped in: QEMU takes the guest for active.",
        },
        to={
            "known": goto("read_head"),
            "new": goto("read_head"),
            "empty": goto("enable_kicks"),
            "still empty": RETURN,
            "more came": goto("disable_kicks"),
            "broken": goto("enable_kicks"),
            "still broken": RETURN,
        },
        cost="ring cold",
    )
    def read_avail_idx(self, me: Context) -> str:
        mine = self.nic.cells
        if mine.broken:
            return "still broken" if mine.rearmed else "broken"
        self.forget_overlooked()
        found = self.ring.find()
        if found == "empty":
            return "empty" if not mine.rearmed else "more came" if mine.sent else "still empty"
        return found

    @op(
        "Q-TX.5",
        "read the head",
        "virtqueue_get_head",
        QEMU_VIRTIO,
        spec="2.7.6",
        text={
            "head": "The available ring's slot says: head {head}.{moves}",
            RESET: "{wrong}",
        },
        to={"head": goto("read_desc"), RESET: call("error", "after_error")},
        cost="ring cold",
    )
    def read_head(self, me: Context) -> str:
        answer = self.ring.begin()
        if answer != "head":
            return self.refuse(answer)
        self.ring.move_kick_event()
        if me.observed:
            me.packet = self.nic.skbs.packet_at(self.ring.peek_address())
        return "head"

    @op(
        "Q-TX.6",
        "read the descriptor",
        "virtqueue_map_desc",
        QEMU_VIRTIO,
        spec="2.7.5",
        text={
            "last": (
                "The descriptor gives a guest-physical address and a length. QEMU turns it into a pointer: guest "
                "memory is memory of its own process.{passed}"
            ),
            "next": "The descriptor gives a piece of the buffer; the chain goes on.{passed}",
            "indirect": "The descriptor refers to a table: the buffer's pieces are described there.{passed}",
            RESET: "{wrong}",
        },
        to={
            "last": goto("send"),
            "next": goto("read_desc"),
            "indirect": goto("read_desc"),
            RESET: call("error", "after_error"),
        },
        cost="ring cold",
        milestone={"last": "fetched"},
    )
    def read_desc(self, me: Context) -> str:
        self.forget_overlooked()
        answer = self.ring.read_desc()
        if answer in ("next", "indirect"):
            return answer
        problem: Problem | None = answer if is_malformed(answer) else None
        if problem is None:
            problem = wrong_to_send(self.ring, "qemu", VIRTIO_NET_HDR_BYTES, vnet_hdr=True)
            if problem:
                # What was taken is let go, and never returned to the guest (virtqueue_detach_element).
                self.ring.let_go([self.mine.head])
        if problem:
            return self.refuse(problem)
        if self.mine.writable:
            self.let_pass("writable while sending")
        elif readable_bytes(self.ring) <= VIRTIO_NET_HDR_BYTES:
            self.let_pass("nothing to send")
        return "last"

    @op(
        "Q-TX.11",
        "leave the queue alone",
        "virtio_net_flush_tx",
        QEMU_VIRTIO_NET,
        text={
            "queue": "To virtio-net the broken queue looks empty, for virtqueue_pop() gave it nothing.",
            "buffer": "It was virtio-net itself that refused the buffer: the bottom half ends here.",
        },
        to={"queue": goto("enable_kicks"), "buffer": RETURN},
        private=True,
    )
    def after_error(self, me: Context) -> str:
        return "buffer" if self.nic.cells.problem in OF_THE_NIC else "queue"

    @op(
        "Q-TX.7",
        "write the packet to the TAP",
        "tap_write_packet",
        QEMU_TAP,
        spec="5.1.9.2",
        text=(
            "One writev() for this one packet. What QEMU names lies in guest memory, nothing is copied yet; all that "
            "follows is inside this call."
        ),
        to=call("writev", "write_used"),
    )
    def send(self, me: Context) -> None: ...

    @op(
        "Q-TX.9",
        "write the used element",
        "virtqueue_split_fill",
        QEMU_VIRTIO,
        spec="2.7.8",
        text="writev() has returned. The buffer's head goes into the used ring, with 0 bytes written; still invisible.",
    )
    def write_used(self, me: Context) -> None:
        self.ring.write_used([self.mine.head], [0])

    @op(
        "Q-TX.9",
        "publish used.idx",
        "virtqueue_split_flush",
        QEMU_VIRTIO,
        spec="2.7.8.2",
        text="used.idx = {used}: packet by packet, where vhost waits for a batch. The buffer is the guest's again.",
        to=goto("tell"),
        milestone="used",
    )
    def publish_used_idx(self, me: Context) -> None:
        self.ring.publish()

    @op(
        "Q-TX.11",
        "count the packet",
        "virtio_net_flush_tx",
        QEMU_VIRTIO_NET,
        text={
            "more": "{sent} sent, of at most {burst} in a row. On to the next entry.",
            "burst": "{burst} are sent: others have a turn, and the bottom half is scheduled again at once.",
            "burst, kicks on": "{burst} are sent while kicks were on: they are turned off again first.",
        },
        to={"more": goto("read_avail_idx"), "burst": goto("schedule"), "burst, kicks on": goto("disable_kicks")},
    )
    def count(self, me: Context) -> str:
        mine = self.nic.cells
        mine.sent = sent = mine.sent + 1
        if sent < TX_BURST:
            return "more"
        return "burst, kicks on" if mine.rearmed else "burst"

    @op(
        "Q-TX.12",
        "ask for the next kick",
        "virtio_queue_set_notification",
        QEMU_VIRTIO,
        spec="2.7.10",
        text="The queue is empty: QEMU asks {kicks}.",
    )
    def enable_kicks(self, me: Context) -> None:
        self.ring.enable_kicks()
        self.note_rearmed()

    def note_rearmed(self) -> None:
        """Kicks are on again, and the count of packets sent begins anew."""
        mine = self.nic.cells
        mine.rearmed = 1
        if mine.sent:
            mine.sent = 0

    @op(
        "Q-TX.12",
        "full barrier",
        "virtio_queue_set_notification",
        QEMU_VIRTIO,
        spec="2.7.10",
        text="The wish must be visible before QEMU looks once more. It is the twin of the driver's barrier.",
        to=goto("read_avail_idx"),
        fence=True,
        cost="barrier",
    )
    def mb_before_recheck(self, me: Context) -> None: ...

    @op(
        "Q-TX.12",
        "ask for no more kicks",
        "virtio_queue_set_notification",
        QEMU_VIRTIO,
        spec="2.7.10",
        text="The guest is active, so more may come: the wish for kicks is withdrawn.",
        to=goto("schedule"),
    )
    def disable_kicks(self, me: Context) -> None:
        self.ring.disable_kicks()

    @op(
        "Q-TX.12",
        "schedule the bottom half again",
        "qemu_bh_schedule",
        QEMU_ASYNC,
        text="The bottom half will run again in the main loop's next turn, which will not wait.",
        to=RETURN,
    )
    def schedule(self, me: Context) -> None:
        self.nic.cells.tx_waiting = 1
        self.nic.qemu.schedule(self.nic.pair)
