"""The back-end's end of the vhost-user socket: a thread of OVS-DPDK that does what the messages say. Rows CP.7.

It is not the thread that polls. Only when a message has made the device complete does it tell Open vSwitch, and only
then does the polling thread look at the rings.

Source: DPDK lib/vhost/vhost_user.c (vhost_user_msg_handler, virtio_is_ready), Open vSwitch lib/netdev-dpdk.c
(new_device, set_irq_status).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.ops import Routine, call, goto, op
from virtviz.paths.setup.pairs import ORDINALS
from virtviz.paths.setup.vhost_user_socket import ASKS, MQ, NEED_REPLY, REPLY_ACK, WITH_FD, Request
from virtviz.ring.packed import PackedLayout
from virtviz.spec.citation import DPDK_VHOST_USER, OVS_NETDEV_DPDK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.engine.memory import Port
    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.pmd import RxQueue
    from virtviz.paths.setup.vhost_user_socket import Socket
    from virtviz.ring.rings import DpdkRing

FIRST_FD = 40
NEEDED = 2
"""Rings that have to be complete before the switch gets the device (VIRTIO_BUILTIN_NUM_VQS_TO_BE_READY)."""


@cells
class BackendCells(Cells):
    """What the back-end knows of the device (struct virtio_net of DPDK).

    Attributes:
        features, protocol: what was agreed on, with the guest and with QEMU.
        owner: 1 once there is a front-end.
        next_fd: number that the next descriptor gets.
        memory: descriptor of the guest's memory, which is mapped then; 0 for none.
        hva: where that memory lies in QEMU's: what is taken off QEMU's addresses.
        ring: the ring that a sequence is at.
        running: 1 once the switch has been told, and so the rings are polled.
        num, base, desc, avail, used: by ring, what it was told; addresses are the guest's.
        kick, call, error: by ring, descriptors.
        enabled: by ring, whether it may be served.
        silenced: by ring, 1 once it was said that no kick is wanted.
    """

    features: int = 0
    protocol: int = 0
    owner: int = 0
    next_fd: int = FIRST_FD
    memory: int = 0
    hva: int = 0
    ring: int = 0
    running: int = 0
    num: list[int]
    base: list[int]
    desc: list[int]
    avail: list[int]
    used: list[int]
    kick: list[int]
    call: list[int]
    error: list[int]
    enabled: list[int]
    silenced: list[int]


_BY_RING = {
    Request.SET_VRING_NUM: "num",
    Request.SET_VRING_BASE: "base",
    Request.SET_VRING_KICK: "kick",
    Request.SET_VRING_CALL: "call",
    Request.SET_VRING_ERR: "error",
    Request.SET_VRING_ENABLE: "enabled",
}
"""Request -> the cells that it sets, by ring."""


class VhostUserDevice:
    """The device as the back-end has it.

    Attributes:
        cells: what it was told.
        pairs: queue pairs that it can serve.
        offer: features that the library offers, with the bit that says that there are protocol features.
        protocol: protocol features that it offers. The recorded one says that it knows of queue pairs if there are
            several; DPDK's always says so.
    """

    def __init__(self, state: State, name: str, offer: int, pairs: int) -> None:
        self.rings = rings = 2 * pairs
        names = ("num", "base", "desc", "avail", "used", "kick", "call", "error", "enabled", "silenced")
        self.cells = state.add(BackendCells, f"{name}.device", **{word: [0] * rings for word in names})
        self.pairs = pairs
        self.offer = offer
        self.protocol = REPLY_ACK | (MQ if pairs > 1 else 0)

    def is_served(self, ring: int) -> bool:
        """Say whether a ring has all that it takes to serve it (vq_is_ready), and may be."""
        mine = self.cells
        told = mine.num[ring] and mine.desc[ring] and mine.kick[ring] and mine.call[ring]
        return bool(mine.memory and told and mine.enabled[ring])

    def is_ready(self) -> bool:
        """Say whether the rings without which there is no device can be served (virtio_is_ready)."""
        return all(map(self.is_served, range(NEEDED)))

    def unsilenced(self) -> int:
        """Give the first ring that is served and in which it was not said yet that no kick is wanted; -1 for none."""
        silenced = self.cells.silenced
        return next((ring for ring in range(self.rings) if self.is_served(ring) and not silenced[ring]), -1)


class BackendLoop(Routine):
    """The thread of DPDK's vhost library that serves the socket.

    Args:
        socket: the socket.
        device: what the messages are about.
        rings: the device's side of the rings; none where it will never be told of them.
        memory: the guest's memory, by way of this thread.
        receive, answer: system calls on the socket.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        socket: Socket,
        device: VhostUserDevice,
        rings: Sequence[DpdkRing],
        memory: Port,
        receive: Routine,
        answer: Routine,
    ) -> None:
        super().__init__(name, place)
        self.socket = socket
        self.device = device
        self.mine = device.cells
        self.rings = rings
        self.packed = any(isinstance(ring.layout, PackedLayout) for ring in rings)
        self.memory = memory
        self.receive = receive
        self.answer = answer

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the message and the ring."""
        message, mine = self.socket.received, self.mine
        number = message.request
        return {
            "message": Request(number).name if number else "a message",
            "queue": self._ring_name(message.index),
            "which": self._ring_name(mine.ring),
            "value": f"{message.value:#x}",
            "fd": message.fd,
            "flags": "device_event.flags" if self.packed else "used.flags",
            "desc": f"{mine.desc[message.index]:#x}",
        }

    def _ring_name(self, ring: int) -> str:
        which = ("receive", "transmit")[ring % 2]
        return which if self.device.pairs == 1 else f"{ORDINALS[ring // 2]} {which}"

    def has_message(self) -> bool:
        """Say whether a message waits."""
        return self.socket.cells.put > self.socket.cells.taken

    @op(
        "CP.7.3",
        "find a message on the socket",
        "vhost_user_msg_handler",
        DPDK_VHOST_USER,
        text=(
            "The thread has slept until there was something on a socket. It has nothing to do with packets: those are "
            "the polling thread's."
        ),
        to=call("receive", "act"),
        guard="has_message",
        cause="recvmsg()",
    )
    def wait(self, me: Context) -> None: ...

    @op(
        "CP.7.4",
        {"addresses": "translate the ring's addresses", "": "do what the message says"},
        "vhost_user_msg_handler",
        DPDK_VHOST_USER,
        text={
            "ask": "{message}: the answer is {value}.",
            "acknowledge": "{message}: descriptor {fd} is mapped: the guest's memory is in this process from now on.",
            "addresses": (
                "{message}: QEMU's addresses mean nothing here. Less where QEMU has the guest's memory, it is {desc}: "
                "what the guest stored."
            ),
            "tell": "{message} is noted.",
        },
        to={
            "ask": call("answer", "is_complete"),
            "acknowledge": call("answer", "is_complete"),
            "addresses": goto("is_complete"),
            "tell": goto("is_complete"),
        },
        cause="sendmsg()",
    )
    def act(self, me: Context) -> str:
        message, mine = self.socket.received, self.mine
        request, index = Request(message.request), message.index
        if request in WITH_FD:
            # A descriptor's number is the process's own: the same file has another one here.
            message.fd = mine.next_fd
            mine.next_fd += 1
        if request in ASKS:
            message.value = self._asked(request, index)
            return "ask"
        if request in _BY_RING:
            getattr(mine, _BY_RING[request])[index] = message.fd if request in WITH_FD else message.value
        elif request == Request.SET_VRING_ADDR:
            for part in ("desc", "avail", "used"):
                getattr(mine, part)[index] = getattr(message, part) - mine.hva
            return "addresses"
        elif request == Request.SET_MEM_TABLE:
            mine.memory, mine.hva = message.fd, message.value
        else:
            self._note(request, message.value)
        if message.flags & NEED_REPLY:
            message.value = 0
            return "acknowledge"
        return "tell"

    def _asked(self, request: Request, index: int) -> int:
        """Give the answer to a request that asks."""
        if request == Request.GET_FEATURES:
            return self.device.offer
        if request == Request.GET_PROTOCOL_FEATURES:
            return self.device.protocol
        if request == Request.GET_QUEUE_NUM:
            return self.device.pairs
        # Asking how far it came also stops the ring, and with it the device.
        self.mine.kick[index] = self.mine.silenced[index] = self.mine.running = 0
        return self.rings[index].base()

    def _note(self, request: Request, value: int) -> None:
        """Note what is about the device as a whole."""
        if request == Request.SET_FEATURES:
            self.mine.features = value
        elif request == Request.SET_PROTOCOL_FEATURES:
            self.mine.protocol = value
        else:
            self.mine.owner = 1

    @op(
        "CP.7.7",
        "see whether the device is complete",
        "virtio_is_ready",
        DPDK_VHOST_USER,
        text={
            "not yet": "Something is still missing, or everything has been told before: on to the next message.",
            "complete": "Memory, addresses, kick, call, and both rings enabled: nothing is missing any more.",
            "further": "The device is served already. Now nothing is missing for a further ring, the {which} one.",
        },
        to={"not yet": goto("wait"), "complete": goto("stop_kicks"), "further": goto("stop_kicks")},
    )
    def is_complete(self, me: Context) -> str:
        ring = self.device.unsilenced()
        if ring < 0 or not (self.mine.running or self.device.is_ready()):
            return "not yet"
        if self.mine.ring != ring:
            self.mine.ring = ring
        return "further" if self.mine.running else "complete"

    @op(
        "CP.7.7",
        {"flag": "say that no kick is wanted", "": "want no kick"},
        "set_irq_status",
        OVS_NETDEV_DPDK,
        spec="2.7.10",
        text={
            "flag": "Who polls wants no kicks: {flags} of the {which} ring says so, once and for all.",
            "index": "Who polls wants no kicks. With event indices it suffices to leave avail_event where it is.",
        },
        to={"flag": goto("next_ring"), "index": goto("next_ring")},
    )
    def stop_kicks(self, me: Context) -> str:
        ring = self.mine.ring
        self.mine.silenced[ring] = 1
        return "flag" if self.rings[ring].stop_asking(self.memory) else "index"

    @op(
        "CP.7.7",
        "look whether both rings are done",
        "set_irq_status",
        OVS_NETDEV_DPDK,
        text={
            "another": "The same for the other ring.",
            "done": "That was said for both rings.",
            "served": "The polling thread may look at this ring as well.",
        },
        to={"another": goto("stop_kicks"), "done": goto("new_device"), "served": goto("wait")},
        private=True,
    )
    def next_ring(self, me: Context) -> str:
        ring = self.device.unsilenced()
        self.mine.ring = max(ring, 0)
        if ring >= 0:
            return "another"
        return "served" if self.mine.running else "done"

    @op(
        "CP.7.7",
        "give the device to the switch",
        "new_device",
        OVS_NETDEV_DPDK,
        text="Open vSwitch hears that its port has a device. From here on the polling thread looks at the rings.",
        to=goto("wait"),
    )
    def new_device(self, me: Context) -> None:
        self.mine.running = 1


class AnnouncedQueue:
    """A receive queue of a port that is polled only while the port has a device (is_vhost_running), and it is enabled.

    Args:
        queue: the queue itself.
        device: the device, as the back-end has it.
        ring: the number that its ring has on the device.
    """

    def __init__(self, queue: RxQueue, device: VhostUserDevice, ring: int) -> None:
        self.queue = queue
        self.device = device
        self.ring = ring
        self.name = queue.name

    def has_something(self) -> bool:
        """Say whether a poll would find a packet."""
        mine = self.device.cells
        return bool(mine.running and mine.enabled[self.ring]) and self.queue.has_something()

    def next_packet(self) -> int:
        """Give the number of the packet that a poll would find first, 0 if unknown. For people only."""
        return self.queue.next_packet()
