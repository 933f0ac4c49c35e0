"""QEMU changes a link, and what that means for its back-end. Rows 2, 3, 6 and 12 of CONFIG.

The order is QEMU's: first the bit in the configuration and its interrupt, then the back-end. So the driver may look
before the back-end has stopped or started. While the link is down QEMU itself takes what the guest sends, and what the
TAP brings, and drops both: vhost-net, if it served the queues, is stopped with the link (`vhost_link.py`).

Source: QEMU 10.0 net/net.c (qmp_set_link, qemu_deliver_packet_iov), hw/net/virtio-net.c (virtio_net_set_link_status,
virtio_net_set_status, virtio_net_drop_tx_queue_data), hw/virtio/virtio.c (virtqueue_drop_all).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from virtviz.engine.effects import DROPPED
from virtviz.engine.ops import RETURN, Routine, call, call_any, goto, op
from virtviz.paths.outside import DOWN
from virtviz.paths.qemu_checks import CheckingRoutine, NotifyConfig, VirtioError
from virtviz.paths.qemu_used import TellingRoutine
from virtviz.ring.verdicts import RESET
from virtviz.spec.citation import QEMU_ASYNC, QEMU_MONITOR, QEMU_NET, QEMU_TAP, QEMU_VIRTIO, QEMU_VIRTIO_NET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.qemu_nic import Nic


class DropQueued(TellingRoutine):
    """Take everything out of the transmit queue and give it back unsent: row 12 of CONFIG.

    Args:
        interrupt: what makes the queue's interrupt.
        error: what is done about a malformed ring.
    """

    first = "look"
    rows = MappingProxyType({"tell": "CONFIG.12"})
    retold = MappingProxyType({"signal": {"text": "One interrupt for all that was dropped: ioctl(KVM_SIGNAL_MSI)."}})

    def __init__(self, name: str, place: Place, nic: Nic, interrupt: Routine, error: VirtioError) -> None:
        super().__init__(name, place, nic, nic.tx_name, nic.tx, error)
        self.interrupt = interrupt

    @op(
        "CONFIG.12",
        "look what the guest has sent meanwhile",
        "virtqueue_split_drop_all",
        QEMU_VIRTIO,
        spec="2.7.13",
        text={
            "more": "avail.idx is {avail}, and entry {next} is still to be taken.",
            "empty": "Nothing is left in the ring, and nothing was dropped: nobody has to be told.",
            "dropped some": "Nothing is left in the ring. What was dropped the driver has to get back.",
        },
        to={"more": goto("drop"), "empty": RETURN, "dropped some": goto("tell")},
        cost="ring cold",
    )
    def look(self, me: Context) -> str:
        self.forget_overlooked()
        if self.ring.find() != "empty" and not self.nic.cells.broken:
            return "more"
        mine = self.nic.cells
        dropped = mine.sent
        if dropped:
            mine.sent = 0
        return "dropped some" if dropped else "empty"

    @op(
        "CONFIG.12",
        "drop the packet",
        "virtqueue_split_drop_all",
        QEMU_VIRTIO,
        spec="2.7.6",
        text={
            DROPPED: "Without a link the packet of head {head} cannot go anywhere. Its buffer is not even looked at.",
            RESET: "{wrong}",
        },
        to={DROPPED: goto("write_used"), RESET: call("error", "look")},
        cost="ring cold",
    )
    def drop(self, me: Context) -> str:
        answer = self.ring.begin()
        if answer != "head":
            return self.refuse(answer)
        self.ring.take_unread()
        if me.observed:
            me.packet = self.nic.skbs.packet_at(self.ring.peek_address())
        mine = self.nic.cells
        mine.unlinked += 1
        mine.sent += 1
        return DROPPED

    @op(
        "CONFIG.12",
        "write the used element",
        "virtqueue_split_fill",
        QEMU_VIRTIO,
        spec="2.7.8",
        text="To the driver a dropped packet looks like one that was sent: its buffer comes back, 0 bytes written.",
    )
    def write_used(self, me: Context) -> None:
        self.ring.write_used([self.mine.head], [0])

    @op(
        "CONFIG.12",
        "publish used.idx",
        "virtqueue_split_flush",
        QEMU_VIRTIO,
        spec="2.7.8.2",
        text="used.idx = {used}: the buffer is the guest's again.",
        to=goto("look"),
        milestone="used",
    )
    def publish_used_idx(self, me: Context) -> None:
        self.ring.publish()


class SetLink(CheckingRoutine):
    """The monitor's request to change a link: qmp_set_link. Rows 2, 3 and 6 of CONFIG.

    Args:
        notify: tells the driver of the changed configuration.
        drop: drops what is in the transmit queue.
        deliver: delivers the frame that waits for buffers.
        error: what is done about a malformed ring.
        backends: what stops and starts another back-end with the link, by `stop` and `start`; none if there is none.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        nic: Nic,
        *,
        notify: NotifyConfig,
        drop: Routine,
        deliver: Routine,
        error: VirtioError,
        backends: Mapping[str, Routine],
    ) -> None:
        super().__init__(name, place, nic, "", nic.tx, error)
        self.notify = notify
        self.drop = drop
        self.deliver = deliver
        self.backends = backends

    def words(self, me: Context) -> Mapping[str, object]:
        """Say what the link is to be."""
        return {**super().words(me), "state": "down" if self.nic.qemu.cells.asked == DOWN else "up"}

    @op(
        "CONFIG.2",
        "carry out the request",
        "qmp_set_link",
        QEMU_NET,
        text="The network card's link in QEMU is now {state}; its device is told.",
        private=True,
    )
    def begin(self, me: Context) -> None:
        if me.packet:
            me.packet = 0

    @op(
        "CONFIG.3",
        "set the link's bit",
        "virtio_net_set_link_status",
        QEMU_VIRTIO_NET,
        spec="5.1.4",
        text={
            "changed": "VIRTIO_NET_S_LINK_UP in the device's configuration says {state}. That is a change.",
            "unchanged": "The link is {state} already: nothing changes, and the driver hears nothing.",
        },
        to={"changed": call("notify", "look_at_backend"), "unchanged": goto("look_at_backend")},
    )
    def set_bit(self, me: Context) -> str:
        up = self.nic.qemu.cells.asked != DOWN
        return "changed" if self.nic.status.set_link(up=up) else "unchanged"

    @op(
        "CONFIG.6",
        "see who serves the queues",
        "virtio_net_vhost_status",
        QEMU_VIRTIO_NET,
        text={
            "stop": "vhost-net serves the queues. Without a link it has to stop.",
            "start": "With the link back, vhost-net is to serve the queues again.",
            "none": "Nobody but QEMU has to be stopped or started.",
        },
        to={"none": goto("restart"), "backend": call_any("backends", "restart")},
        private=True,
    )
    def look_at_backend(self, me: Context) -> str:
        if not self.backends:
            return "none"
        up = self.nic.status.link_is_up
        runs = not self.nic.qemu.cells.kick_poll
        return "none" if up == runs else "start" if up else "stop"

    @op(
        "CONFIG.6",
        "stop or restart the queues",
        "virtio_net_set_status",
        QEMU_VIRTIO_NET,
        text={
            "flush": "The link is up: a frame that has waited in QEMU for buffers is offered to the device again.",
            "cancel": "The bottom half was about to send, and is cancelled: there is nowhere to send to.",
            "restart": "Packets wait to be sent: the bottom half is scheduled.",
            "nothing": "Nothing waits, so there is nothing to do.",
        },
        to={
            "flush": call("deliver", "restart_again"),
            "cancel": goto("ask_for_kicks"),
            "restart": goto("schedule"),
            "nothing": goto("answer"),
        },
    )
    def restart(self, me: Context) -> str:
        mine, up = self.nic.cells, self.nic.status.link_is_up
        if up and mine.frame:
            return "flush"
        if not mine.tx_waiting:
            return "nothing"
        if up:
            return "restart"
        mine.tx_waiting = 0
        self.nic.qemu.cells.scheduled = 0
        return "cancel"

    @op(
        "CONFIG.6",
        "read the TAP again",
        "tap_send_completed",
        QEMU_TAP,
        text={
            "delivered": "The frame is done with: the TAP is among what ppoll() waits for again.",
            "kept": "There is no room for it even now: it waits on.",
        },
        to={"delivered": goto("answer"), "kept": goto("answer")},
    )
    def restart_again(self, me: Context) -> str:
        if self.nic.cells.frame:
            return "kept"
        self.nic.qemu.poll_tap(self.nic.pair, wanted=True)
        return "delivered"

    @op(
        "CONFIG.6",
        "schedule the bottom half",
        "qemu_bh_schedule",
        QEMU_ASYNC,
        text="The bottom half will send what waits, in the main loop's next turn.",
        to=goto("answer"),
    )
    def schedule(self, me: Context) -> None:
        self.nic.qemu.schedule(self.nic.pair)

    @op(
        "CONFIG.6",
        "ask for the next kick",
        "virtio_queue_set_notification",
        QEMU_VIRTIO,
        spec="2.7.10",
        text="Kicks had been turned off until the bottom half was done. It will not run: QEMU asks {kicks}.",
        to=call("drop", "answer"),
    )
    def ask_for_kicks(self, me: Context) -> None:
        self.ring.enable_kicks()

    @op(
        "CONFIG.2",
        "answer the request",
        "monitor_qmp_respond",
        QEMU_MONITOR,
        text="The request is carried out, and whoever asked gets an answer.",
        to=RETURN,
    )
    def answer(self, me: Context) -> None:
        self.nic.qemu.cells.asked = 0
