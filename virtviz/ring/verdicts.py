"""What can be wrong with a ring, and what each kind of back-end does about it.

A ring is written by one side and read by the other, and neither need be honest. Which of the impossible states are
noticed is the reader's own affair: Linux's vhost stops until the next kick, QEMU declares the device broken until the
driver resets it, and both let some things pass. This module is the table of that: one row a state, with what each
back-end does, what QEMU says, and what a learner needs to know. The rings answer with the name of a row; `judge` turns
the name into a verdict.

The third column, `strict`, notices whatever QEMU, vhost or the specification objects to, and wants a reset for all of
it.

Source: virtio 1.4, 2.7 and 2.8; QEMU hw/virtio/virtio.c and hw/net/virtio-net.c; Linux drivers/vhost/vhost.c and net.c,
drivers/virtio/virtio_ring.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeGuard

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping

BackEnd = Literal["qemu", "vhost", "strict", "dpdk"]
"""Who reads the ring: the knob `device_checks`, or the vhost library of DPDK under vhost-user."""

Malformed = Literal[
    "avail.idx jumped",
    "head out of range",
    "next out of range",
    "descriptor loop",
    "longer than the queue",
    "readable after writable",
    "zero length",
    "indirect not negotiated",
    "indirect and next",
    "indirect later in a chain",
    "indirect inside indirect",
    "indirect length",
    "table outside memory",
    "address outside memory",
    "too many pieces",
    "too many in flight",
    "chain not available",
]
"""What can be wrong with a ring, as seen by the device."""

NetMalformed = Literal[
    "no header",
    "header incomplete",
    "nothing to send",
    "writable while sending",
    "readable while receiving",
    "nothing writable",
    "no room for the header",
    "ring ran dry",
    "too many buffers",
    "command incomplete",
    "not ready",
    "queue not allowed",
]
"""What can be wrong with a buffer of virtio-net, as seen by the device."""

DriverMalformed = Literal["used id out of range", "used id not outstanding"]
"""What can be wrong with a ring, as seen by the driver."""

Problem = Malformed | NetMalformed | DriverMalformed

What = Literal["ignored", "stops until the next kick", "needs reset", "tries again at every poll", "given back unsent"]
"""What the reader does: goes on as if nothing were wrong, leaves the queue alone until it is kicked again, is of no
more use until it is reset, comes back to the same entry whenever it polls, or returns the buffer and sends nothing."""

IGNORED: Final[What] = "ignored"
STOPS: Final[What] = "stops until the next kick"
RESET: Final[What] = "needs reset"
RETRIES: Final[What] = "tries again at every poll"
UNSENT: Final[What] = "given back unsent"


class Row(Struct, frozen=True):
    """One malformed state.

    Attributes:
        qemu, vhost: what that back-end does.
        message: what QEMU prints, with `{seen}` and `{expected}` for the numbers; empty if it says nothing.
        why: what is wrong, and what it would do, for a learner.
        spec: where the specification forbids it; empty if it does not.
    """

    qemu: What
    vhost: What
    message: str
    why: str
    spec: str


class Verdict(Struct, frozen=True):
    """What became of a malformed ring.

    Attributes:
        problem: the state, a key of `ROWS`.
        what: what the back-end does.
        message: what it says, empty if nothing. Who stops until the next kick is vhost, whose messages are for
            debugging (`vq_err` is `pr_debug`): unless they are switched on it says nothing.
        why: explanation for a learner.
        spec: section of the specification, empty if it has nothing to say about this.
    """

    problem: Problem
    what: What
    message: str
    why: str
    spec: str


ROWS: Final[Mapping[Problem, Row]] = {
    "avail.idx jumped": Row(
        IGNORED,
        STOPS,
        "Guest moved used index from {expected} to {seen}",
        "avail.idx says that more buffers wait than the ring has slots, so some slots must have been written over "
        "before they were read; an index that went backwards looks the same. QEMU compares only where it counts what "
        "waits (receiving into mergeable buffers), and otherwise goes round the ring.",
        "2.7.6.1",
    ),
    "head out of range": Row(
        RESET,
        STOPS,
        "Guest says index {seen} is available",
        "The available ring names a descriptor that the table does not have; following it would read whatever lies "
        "behind the table.",
        "2.7.6",
    ),
    "next out of range": Row(
        RESET,
        STOPS,
        "Desc next is {seen}",
        "A descriptor goes on with one that its table does not have; whatever lies there would be taken for one.",
        "2.7.5",
    ),
    "descriptor loop": Row(
        RESET,
        STOPS,
        "Looped descriptor",
        "The chain has more links than its table has descriptors, so it must come back to itself; who follows it "
        "blindly never ends.",
        "2.7.5.2",
    ),
    "longer than the queue": Row(
        IGNORED,
        IGNORED,
        "",
        "An indirect table may hold no more descriptors than the queue. Both QEMU (up to 1024 pieces) and vhost (up to "
        "65536 entries) take longer ones all the same.",
        "2.7.5.3.1",
    ),
    "readable after writable": Row(
        RESET,
        STOPS,
        "Incorrect order for descriptors",
        "A buffer's readable pieces come before its writable ones; otherwise the device cannot know where the request "
        "ends and the answer begins.",
        "2.7.4.2",
    ),
    "zero length": Row(
        RESET,
        IGNORED,
        "virtio: zero sized buffers are not allowed",
        "A descriptor describes no bytes. The specification does not forbid it; QEMU refuses it, vhost passes over it.",
        "",
    ),
    "indirect not negotiated": Row(
        IGNORED,
        IGNORED,
        "",
        "A descriptor refers to an indirect table although the feature was not negotiated. Nobody checks: the flag is "
        "simply obeyed.",
        "2.7.5.3.1",
    ),
    "indirect and next": Row(
        IGNORED,
        IGNORED,
        "",
        "INDIRECT and NEXT together say that the chain goes on both in the table and after it. QEMU ignores NEXT; "
        "vhost goes on after the table.",
        "2.7.5.3.1",
    ),
    "indirect later in a chain": Row(
        IGNORED,
        IGNORED,
        "",
        "A chain of plain descriptors that ends in an indirect one is allowed, and vhost reads it so. QEMU looks for "
        "INDIRECT at the head only, and takes the table itself for a piece of the buffer.",
        "2.7.5.3.2",
    ),
    "indirect inside indirect": Row(
        IGNORED,
        STOPS,
        "",
        "An entry of an indirect table refers to another table; that could go on without end. QEMU does not look at "
        "the flag there and takes the inner table for a piece of the buffer.",
        "2.7.5.3.1",
    ),
    "indirect length": Row(
        RESET,
        STOPS,
        "Invalid size for indirect buffer table",
        "The length of an indirect table is not a whole number of 16-byte descriptors, or is nothing at all.",
        "2.7.5.3",
    ),
    "table outside memory": Row(
        RESET,
        STOPS,
        "Cannot map indirect buffer",
        "The indirect table lies, at least in part, where the guest has no memory.",
        "",
    ),
    "address outside memory": Row(
        RESET,
        STOPS,
        "virtio: bogus descriptor or out of resources",
        "A piece lies where the guest has no memory. QEMU lends it a page of its own, once a buffer: what is read from "
        "there is zeros, what is written is lost.",
        "",
    ),
    "too many pieces": Row(
        RESET,
        STOPS,
        "virtio: too many write descriptors in indirect table",
        "The buffer has more pieces than the back-end has room to note, 1024 (IOV_MAX); it cannot serve a part of it.",
        "",
    ),
    "too many in flight": Row(
        RESET,
        IGNORED,
        "Virtqueue size exceeded",
        "More buffers are in the device's hands than the queue has descriptors; some must have been offered twice.",
        "",
    ),
    "chain not available": Row(
        IGNORED,
        IGNORED,
        "",
        "In a packed ring, a chain goes on in a descriptor whose flags do not say that it is available. Who reads the "
        "head's flags only takes whatever stands there.",
        "2.8.14",
    ),
    "no header": Row(
        RESET,
        STOPS,
        "virtio-net header not in first element",
        "The buffer to send has nothing that the device may read, so there is no virtio-net header in it.",
        "5.1.9.2",
    ),
    "header incomplete": Row(
        RESET,
        STOPS,
        "virtio-net header is invalid",
        "The buffer to send is shorter than the virtio-net header with which it must begin.",
        "5.1.9.2",
    ),
    "nothing to send": Row(
        RESET,
        STOPS,
        "virtio-net nothing to send",
        "The buffer to send ends with the virtio-net header; there is no frame behind it that could go out.",
        "5.1.9.2",
    ),
    "writable while sending": Row(
        IGNORED,
        STOPS,
        "",
        "A buffer to send has pieces for the device to write. vhost refuses it; QEMU leaves them alone.",
        "5.1.9.2",
    ),
    "readable while receiving": Row(
        IGNORED,
        STOPS,
        "",
        "A buffer to receive into has pieces for the device to read. vhost refuses it; QEMU passes over them.",
        "5.1.9.3",
    ),
    "nothing writable": Row(
        RESET,
        STOPS,
        "virtio-net receive queue contains no in buffers",
        "A buffer to receive into has no piece that the device may write.",
        "5.1.9.3",
    ),
    "no room for the header": Row(
        IGNORED,
        IGNORED,
        "",
        "The first buffer that a frame is received into must have room for the whole virtio-net header. vhost lets the "
        "header go on in the next buffer; QEMU does not, and says that more was written than there is room for. Up to "
        "QEMU 9 such a buffer ended QEMU itself: an assertion in iov_from_buf failed.",
        "5.1.9.3.1",
    ),
    "ring ran dry": Row(
        RESET,
        STOPS,
        "virtio-net unexpected empty queue",
        "The buffers that seemed to be there when they were counted are not there any more.",
        "5.1.9.3",
    ),
    "too many buffers": Row(
        RESET,
        IGNORED,
        "virtio-net unexpected long buffer chain",
        "A frame would need more buffers than the back-end can note for it, 1024. vhost puts them back, throws the "
        "frame away, and goes on.",
        "5.1.9.3",
    ),
    "command incomplete": Row(
        RESET,
        RESET,
        "virtio-net ctrl missing headers",
        "A command needs class and command, two readable bytes, and one writable byte for the answer. QEMU serves the "
        "control queue even where vhost serves the data queues.",
        "5.1.9.5",
    ),
    "not ready": Row(
        IGNORED,
        IGNORED,
        "",
        "The driver used a queue before it set DRIVER_OK. The device leaves it alone until then.",
        "2.1.2",
    ),
    "queue not allowed": Row(
        STOPS,
        STOPS,
        "",
        "The driver gave a queue a size that no such queue can have, or an area that is not aligned or lies outside "
        "memory. vhost refuses to start it (EINVAL, EFAULT), and here nobody else starts it either, though QEMU does "
        "not look whether a split queue's size is a power of two.",
        "2.7",
    ),
    "used id out of range": Row(
        RESET,
        RESET,
        "id {seen} out of range",
        "The device returned a buffer with a number that the queue does not have. Linux marks the queue broken and "
        "never uses it again.",
        "",
    ),
    "used id not outstanding": Row(
        RESET,
        RESET,
        "id {seen} is not a head!",
        "The device returned a buffer that it did not have. Linux marks the queue broken: taking it back would free "
        "memory twice.",
        "",
    ),
}
"""Every malformed state, by name."""

NAMES: Final[tuple[Problem, ...]] = tuple(ROWS)
"""The states in a fixed order; a cell that holds one holds its place here, from 1."""


def what_of(problem: Problem, back_end: BackEnd) -> What:
    """Say what a back-end does about a malformed state."""
    row = ROWS[problem]
    if back_end == "dpdk":
        return _DPDK.get(problem, IGNORED)
    if back_end == "strict":
        return RESET if problem not in _ALLOWED else IGNORED
    return row.qemu if back_end == "qemu" else row.vhost


_DPDK: Final[Mapping[Problem, What]] = {
    "head out of range": RETRIES,
    "next out of range": RETRIES,
    "descriptor loop": RETRIES,
    "longer than the queue": RETRIES,
    "indirect length": RETRIES,
    "table outside memory": RETRIES,
    "address outside memory": RETRIES,
    "too many pieces": RETRIES,
    "too many buffers": RETRIES,
    "no room for the header": RETRIES,
    "no header": UNSENT,
    "header incomplete": UNSENT,
    "nothing to send": UNSENT,
    "command incomplete": RESET,
    "queue not allowed": RESET,
    "used id out of range": RESET,
    "used id not outstanding": RESET,
}
"""What DPDK's vhost library (lib/vhost/virtio_net.c) notices: where a chain leads, and whether it holds a frame. It
never looks at WRITE, nor how far avail.idx has gone, and says nothing. A chain it cannot follow stays where it is."""

_ALLOWED: Final = frozenset({"indirect later in a chain", "not ready"})
"""What the specification allows or has no answer to, so that even a strict device has nothing to object to."""


def is_malformed(answer: str) -> TypeGuard[Malformed]:
    """Say whether what a ring answered is the name of something wrong with it."""
    return answer in ROWS


def refused_by(back_end: BackEnd) -> frozenset[Problem]:
    """Give the states that a back-end does not let pass."""
    return frozenset(problem for problem in ROWS if what_of(problem, back_end) != IGNORED)


def judge(problem: Problem, back_end: BackEnd, *, seen: int = 0, expected: int = 0, refused: bool = True) -> Verdict:
    """Make the verdict on a malformed state.

    Args:
        problem: its name.
        back_end: who reads the ring.
        seen: the number that was found, for the message.
        expected: the number that was expected, for the message.
        refused: the back-end did refuse it. QEMU notices some states in some places only; where it did notice, it wants
        a reset.
    """
    row = ROWS[problem]
    what: What = what_of(problem, back_end) if refused else IGNORED
    if refused and what == IGNORED:
        what = RESET if back_end != "dpdk" else RETRIES
    message = row.message.format(seen=seen, expected=expected) if what == RESET else ""
    return Verdict(problem, what, message, row.why, row.spec)


def tell(verdict: Verdict) -> str:
    """Say a verdict to a learner: what is wrong, what becomes of it, what is printed, and why it matters."""
    printed = f", and prints “{verdict.message}”" if verdict.message else ", and prints nothing"
    after = printed if verdict.what != IGNORED else ""
    return f"{verdict.problem}. {_SAID[verdict.what]}{after}. {verdict.why}"


_SAID: Final[Mapping[What, str]] = {
    IGNORED: "Verdict, ignored: the device goes on",
    STOPS: "Verdict, stops until the next kick: the device leaves the queue alone",
    RESET: "Verdict, needs reset: the device serves no queue until it is reset",
    RETRIES: "Verdict, tries again at every poll: the device comes no further than this entry",
    UNSENT: "Verdict, given back unsent: the buffer is returned, and nothing goes out",
}
