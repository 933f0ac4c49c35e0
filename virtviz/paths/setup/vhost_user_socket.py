"""The UNIX socket between QEMU (front-end) and OVS-DPDK (back-end), and the messages that go over it. Rows CP.7.

A message is a request's number, flags, a size, a payload, and perhaps a descriptor that travels beside the bytes
(SCM_RIGHTS). The receiver gets a descriptor of its own for the same open file: an eventfd, or the guest's memory.

Source: QEMU 10.0 docs/interop/vhost-user.rst, hw/virtio/vhost-user.c (vhost_user_write, vhost_user_read); Linux 6.12
net/unix/af_unix.c. The order is that of setup-vhost-user.txt, the recording of a start.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from virtviz.engine.cells import Cells, cells
from virtviz.engine.ops import RETURN, Routine, op
from virtviz.spec.setup_sources import AF_UNIX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context


class Request(IntEnum):
    """Numbers of the requests that are used here (vhost-user.rst, "Front-end message types")."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    SET_MEM_TABLE = 5
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18


ASKS: Final = frozenset(
    (Request.GET_FEATURES, Request.GET_PROTOCOL_FEATURES, Request.GET_QUEUE_NUM, Request.GET_VRING_BASE)
)
"""Requests that are always answered."""
WITH_FD: Final = frozenset(
    (Request.SET_MEM_TABLE, Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR)
)
"""Requests beside which a descriptor travels."""
_SIZES: Final = {
    Request.GET_FEATURES: 0,
    Request.GET_PROTOCOL_FEATURES: 0,
    Request.GET_QUEUE_NUM: 0,
    Request.SET_OWNER: 0,
    Request.SET_MEM_TABLE: 40,
    Request.SET_VRING_ADDR: 40,
}
VERSION, REPLY, NEED_REPLY = 0x1, 0x4, 0x8
"""Bits of a message's flags."""
PROTOCOL_FEATURES: Final = 30
"""Feature bit VHOST_USER_F_PROTOCOL_FEATURES: the guest never sees it."""
MQ: Final = 1 << 0
"""Protocol feature: the back-end can say how many queue pairs it can serve."""
REPLY_ACK: Final = 1 << 3
"""Protocol feature: a request may ask to be answered, although it has no answer of its own."""
ROOM: Final = 32
"""Messages that fit into the socket before a sender has to wait."""
_WORDS: Final = ("request", "flags", "index", "value", "desc", "avail", "used", "fd")


def payload_bytes(request: int) -> int:
    """Give the size that a request's header says."""
    return _SIZES.get(Request(request), 8)


@cells
class MessageCells(Cells):
    """A message in its sender's, or in its receiver's, memory.

    Attributes:
        request, flags: of the header.
        index: of the ring it is about.
        value: features, a size, an index, 1 or 0, or for SET_MEM_TABLE where guest memory lies in QEMU's.
        desc, avail, used: of SET_VRING_ADDR, addresses in QEMU's memory.
        fd: the descriptor that travels beside it, as its holder knows it; 0 for none.
    """

    request: int = 0
    flags: int = 0
    index: int = 0
    value: int = 0
    desc: int = 0
    avail: int = 0
    used: int = 0
    fd: int = 0


@cells
class SocketCells(Cells):
    """The two queues of the socket.

    Attributes:
        put, taken: messages QEMU has put into it, and messages the back-end has read.
        waiting: the messages' words, 8 for each place.
        answered: answers the back-end has put into it.
        read: answers QEMU has read.
        answer: what the last answer says.
    """

    put: int = 0
    taken: int = 0
    answered: int = 0
    read: int = 0
    answer: int = 0
    waiting: list[int]


class Socket:
    """The connected socket, and the message that QEMU is at.

    Attributes:
        cells: what is in the kernel.
        draft: the message in QEMU's memory.
        received: the message in the back-end's memory.
    """

    def __init__(self, state: State, name: str) -> None:
        self.name = name
        self.cells = state.add(SocketCells, f"{name}.socket", waiting=[0] * (ROOM * len(_WORDS)))
        self.draft = state.add(MessageCells, f"{name}.draft")
        self.received = state.add(MessageCells, f"{name}.received")

    def put(self) -> None:
        """Copy the draft into the queue."""
        mine = self.cells
        first = mine.put % ROOM * len(_WORDS)
        for at, word in enumerate(_WORDS, first):
            mine.waiting[at] = getattr(self.draft, word)
        mine.put += 1

    def take(self) -> None:
        """Copy the oldest message out of the queue."""
        mine = self.cells
        first = mine.taken % ROOM * len(_WORDS)
        for at, word in enumerate(_WORDS, first):
            setattr(self.received, word, mine.waiting[at])
        mine.taken += 1


class _SocketCall(Routine):
    """A system call on the socket, seen from the kernel."""

    def __init__(self, name: str, place: Place, socket: Socket) -> None:
        super().__init__(name, place)
        self.socket = socket

    def words(self, me: Context) -> Mapping[str, object]:
        """Count what waits."""
        mine = self.socket.cells
        return {"waiting": mine.put - mine.taken}


class SendMessage(_SocketCall):
    """sendmsg() by QEMU."""

    def has_room(self) -> bool:
        """Say whether another message fits."""
        mine = self.socket.cells
        return mine.put - mine.taken < ROOM

    @op(
        "CP.7.2",
        "put the message into the socket's queue",
        "unix_stream_sendmsg",
        AF_UNIX,
        text=(
            "The bytes wait in the socket until the back-end reads them; messages there now: {waiting}. A descriptor "
            "beside them is kept as the open file that it means."
        ),
        to=RETURN,
        guard="has_room",
        cause="return from sendmsg()",
    )
    def put(self, me: Context) -> None:
        self.socket.put()


class ReceiveMessage(_SocketCall):
    """recvmsg() by the back-end."""

    @op(
        "CP.7.3",
        "take the message out of the queue",
        "unix_stream_read_generic",
        AF_UNIX,
        text="The message is copied to the back-end. If an open file came along, it gets a descriptor of this process.",
        to=RETURN,
        cause="return from recvmsg()",
    )
    def take(self, me: Context) -> None:
        self.socket.take()


class SendAnswer(_SocketCall):
    """sendmsg() by the back-end."""

    @op(
        "CP.7.5",
        "put the answer into the socket's queue",
        "unix_stream_sendmsg",
        AF_UNIX,
        text="The answer waits in the other direction's queue, and who sleeps there is woken.",
        to=RETURN,
        cause="return from sendmsg()",
    )
    def put_answer(self, me: Context) -> None:
        mine, received = self.socket.cells, self.socket.received
        mine.answer = received.value
        mine.answered += 1


class ReceiveAnswer(_SocketCall):
    """recvmsg() by QEMU."""

    @op(
        "CP.7.6",
        "take the answer out of the queue",
        "unix_stream_read_generic",
        AF_UNIX,
        text="The answer is copied to QEMU.",
        to=RETURN,
        cause="return from recvmsg()",
    )
    def take_answer(self, me: Context) -> None:
        self.socket.cells.read += 1
