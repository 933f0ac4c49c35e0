"""QEMU's main loop: one thread that waits for every descriptor at once, and what it keeps.

It sleeps in ppoll(). When that returns it takes the Big QEMU Lock, runs its bottom halves, then the handlers of the
descriptors that were ready, and goes back to ppoll(), without waiting if a bottom half was scheduled meanwhile. The
lock is what makes QEMU's devices single-threaded: a vCPU thread that works on a device needs it too.

Source: QEMU 10.0 util/main-loop.c (os_host_main_loop_wait), util/async.c (aio_bh_poll, aio_notify), util/aio-posix.c.
"""

from __future__ import annotations

from enum import IntFlag
from typing import TYPE_CHECKING, Final

from virtviz.engine.cells import Cells, cells
from virtviz.engine.ops import Routine, call, call_any, goto, op
from virtviz.spec.citation import QEMU_ASYNC, QEMU_MAIN_LOOP

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.engine.threads import Thread
    from virtviz.paths.context import Context
    from virtviz.paths.kvm import EventfdCells
    from virtviz.paths.tap import Tap


REQUEST: Final = "request"
"""What serves a request of the monitor's; there is such only where somebody changes a link."""
PAIRS_MAX: Final = 4
"""Queue pairs that a device can have here."""
BITS: Final = 8
"""Bits of `Ready` for each queue pair; only the first pair's group has the ones that there are but once."""


class Ready(IntFlag):
    """What the main loop can find to do, as bits; what belongs to a queue pair, `BITS` further for each pair."""

    CONTROL_KICK = 128
    TIMER = 64
    REQUEST = 32
    BOTTOM_HALF = 16
    OWN_EVENTFD = 8
    TX_KICK = 4
    RX_KICK = 2
    TAP = 1
    KICKS = TX_KICK | RX_KICK


def of_pairs(which: int, pairs: int = PAIRS_MAX) -> int:
    """Give bits of `Ready` for every queue pair."""
    return sum(which << BITS * pair for pair in range(pairs))


def called(name: str, pair: int) -> str:
    """Name what serves something of a queue pair; the first pair's has no number."""
    return f"{name} {pair + 1}" if pair else name


def handlers(pairs: int) -> dict[int, str]:
    """Say what is served by whom, in the order in which it is served.

    The monitor's request and bottom halves come first, then the main loop's own eventfd, then the descriptors, the one
    that was registered last before the others. (Of several bottom halves QEMU runs the one first that was scheduled
    last; here the first pair's is the first.)
    """
    numbers = range(pairs)
    descriptors = [
        *((which, pair) for pair in reversed(numbers) for which in (Ready.TX_KICK, Ready.RX_KICK)),
        *((Ready.TAP, pair) for pair in reversed(numbers)),
    ]
    names = {Ready.TX_KICK: "transmit kick", Ready.RX_KICK: "receive kick", Ready.TAP: "tap"}
    return (
        {int(Ready.REQUEST): REQUEST}
        | {int(Ready.BOTTOM_HALF) << BITS * pair: called("bottom half", pair) for pair in numbers}
        | {int(Ready.OWN_EVENTFD): "own eventfd", int(Ready.CONTROL_KICK): "control kick"}
        | {int(which) << BITS * pair: called(names[which], pair) for which, pair in descriptors}
    )


def _for_all_pairs(texts: Mapping[str, str]) -> dict[str, str]:
    """Give every pair's handlers what the first pair's have."""
    per_pair = {"bottom half", "transmit kick", "receive kick", "tap"}
    more = {
        called(name, pair): text for name, text in texts.items() if name in per_pair for pair in range(1, PAIRS_MAX)
    }
    return {**texts, **more}


BOTTOM_HALVES: Final = of_pairs(Ready.BOTTOM_HALF)
KICKS: Final = of_pairs(Ready.KICKS) | Ready.CONTROL_KICK
TAPS: Final = of_pairs(Ready.TAP)


@cells
class MainLoopCells(Cells):
    """What the main loop keeps.

    Attributes:
        lock: the Big QEMU Lock: 0 when it is free, else the number of the thread that has it, plus one.
        scheduled: whose transmit queue's bottom half is scheduled, as bits by queue pair.
        notify_me: 1 while who schedules a bottom half has to wake the main loop (`notify_me` of its AioContext).
        polling: 1 while its thread is on the wait queues of its descriptors.
        read_poll: whose queue of the TAP is among them, as bits by queue pair.
        kick_poll: 1 while the kicks' eventfds are among them.
        watching: 1 while it waits for a TAP that vhost has as well.
        asked: what the monitor has asked to make of the link: 1 down, 2 up, 0 for no request.
        ready: what is left to do in this turn, as bits of `Ready`.
        turn: what there was to do in it.
    """

    lock: int = 0
    scheduled: int = 0
    notify_me: int = 0
    polling: int = 0
    read_poll: int = 1
    kick_poll: int = 1
    watching: int = 0
    asked: int = 0
    ready: int = 0
    turn: int = 0


class Qemu:
    """One QEMU process, as far as packets go.

    Args:
        kicks: the eventfd of each queue's kick, pair by pair, receive queue first; without ioeventfd nobody signals
            them. None for a card without kicks.
        taps: the queues of the TAP it holds, for each pair one; none where it holds no TAP.
        shares_tap: vhost has the TAP as well.

    Attributes:
        name: the main loop's thread.
        thread: the same, set when it is made.
        own: the eventfd by which other threads wake it.
        control: the eventfd of the control queue's kick, where that queue is in use.
    """

    thread: Thread
    control: EventfdCells | None = None

    def __init__(
        self,
        state: State,
        name: str,
        kicks: list[EventfdCells],
        own: EventfdCells,
        taps: Sequence[Tap],
        *,
        shares_tap: bool = False,
    ) -> None:
        self.name = name
        self.cells = state.add(MainLoopCells, name, read_poll=(1 << len(taps)) - 1)
        self.kicks = kicks
        self.own = own
        self.taps = taps
        self.shares_tap = shares_tap
        self.handlers = handlers(max(len(taps), len(kicks) // 2))
        self._kicks = list(zip(kicks[::2], kicks[1::2], strict=True))

    def watch_taps(self, watched: int) -> None:
        """Note which queues of the TAP ppoll() waits for, as bits by queue pair."""
        if self.shares_tap:
            self.cells.watching = watched
            return
        for pair, tap in enumerate(self.taps):
            is_watched = watched >> pair & 1
            if tap.cells.watched != is_watched:
                tap.cells.watched = is_watched

    def look(self) -> int:
        """Give which descriptors are ready, as bits of `Ready`."""
        found, polled = (int(Ready.OWN_EVENTFD) if self.own.counter else 0), self.cells.read_poll
        if self.control and self.control.counter:
            found |= Ready.CONTROL_KICK
        kicks = self.cells.kick_poll
        for pair, (rx, tx) in enumerate(self._kicks):
            if kicks and tx.counter:
                found |= Ready.TX_KICK << BITS * pair
            if kicks and rx.counter:
                found |= Ready.RX_KICK << BITS * pair
        for pair, tap in enumerate(self.taps):
            if polled >> pair & 1 and tap.queue:
                found |= Ready.TAP << BITS * pair
        return found

    def schedule(self, pair: int) -> None:
        """Schedule the bottom half of a pair's transmit queue."""
        self.cells.scheduled |= 1 << pair

    def poll_tap(self, pair: int, *, wanted: bool) -> None:
        """Put a pair's queue of the TAP among what ppoll() waits for, or take it off."""
        mine, bit = self.cells, 1 << pair
        mine.read_poll = mine.read_poll | bit if wanted else mine.read_poll & ~bit

    # The Big QEMU Lock

    def lock_is_free(self) -> bool:
        """Say whether nobody holds the lock."""
        return not self.cells.lock

    def take_lock(self, me: Context) -> None:
        """Take the lock, which is free."""
        self.cells.lock = me.index + 1

    def release_lock(self) -> None:
        """Give the lock up."""
        self.cells.lock = 0


class MainLoop(Routine):
    """The main loop's thread: main_loop_wait, over and over.

    Args:
        qemu: its process.
        poll_wait, poll_now: ppoll() with and without time to wait.
        work: what serves each thing that can be ready, by the names that `handlers` gives.
        next_out, next_in: give the number of the next packet of each direction; for people only.
    """

    first = "next_handler"

    def __init__(
        self,
        name: str,
        place: Place,
        qemu: Qemu,
        *,
        poll_wait: Routine,
        poll_now: Routine,
        work: Mapping[str, Routine],
        next_out: Callable[[], int],
        next_in: Callable[[], int],
    ) -> None:
        super().__init__(name, place)
        self.qemu = qemu
        self.poll_wait = poll_wait
        self.poll_now = poll_now
        self.work = work
        self.next_out = next_out
        self.next_in = next_in

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the process."""
        return {"qemu": self.qemu.name}

    def lock_is_free(self) -> bool:
        """Say whether the thread can have the Big QEMU Lock."""
        return self.qemu.lock_is_free()

    @op(
        {"frame": "Q-RX.1", "look": "Q-TX.4", "": "Q-TX.1"},
        "take the Big QEMU Lock",
        "os_host_main_loop_wait",
        QEMU_MAIN_LOOP,
        text={
            "kick": "ppoll() says that a queue was kicked. QEMU's devices run under one lock, which is taken first.",
            "frame": "ppoll() says that the TAP can be read. QEMU's devices run under one lock, which is taken first.",
            "woken": (
                "ppoll() says that the main loop's own eventfd was written: another thread has scheduled work. The "
                "devices' lock is taken first."
            ),
            "look": "ppoll() had no time to wait, for a bottom half is scheduled. The lock is taken again.",
        },
        to={name: goto("next_handler") for name in ("kick", "frame", "woken", "look")},
        guard="lock_is_free",
        milestone={"kick": "backend-awake", "frame": "backend-awake", "woken": "backend-awake"},
    )
    def take_lock(self, me: Context) -> str:
        qemu, mine = self.qemu, self.qemu.cells
        qemu.take_lock(me)
        mine.notify_me = 0
        if mine.scheduled:
            mine.ready |= sum(
                Ready.BOTTOM_HALF << BITS * pair for pair in range(PAIRS_MAX) if mine.scheduled >> pair & 1
            )
        if mine.asked:
            mine.ready |= Ready.REQUEST
        mine.turn = ready = mine.ready
        if not ready & ~BOTTOM_HALVES:
            return "look"
        found = "woken" if ready & Ready.OWN_EVENTFD else "kick" if ready & KICKS else "frame"
        if me.observed:
            me.packet = self.next_in() if found == "frame" else self.next_out()
        return found

    @op(
        _for_all_pairs(
            {
                REQUEST: "CONFIG.2",
                "bottom half": "Q-TX.4",
                "own eventfd": "Q-TX.12",
                "control kick": "CP.4.4",
                "transmit kick": "Q-TX.2",
                "receive kick": "Q-RX.3",
                "tap": "Q-RX.2",
                "sleep": "Q-TX.12",
                "sleep, TAP empty": "Q-RX.11",
                "no time to wait": "Q-TX.4",
            }
        ),
        {
            "sleep": "wait in ppoll()",
            "sleep, TAP empty": "wait in ppoll()",
            "no time to wait": "call ppoll() without waiting",
            "": "run the next handler",
        },
        "main_loop_wait",
        QEMU_MAIN_LOOP,
        text=_for_all_pairs(
            {
                REQUEST: "The monitor has a request: it is carried out by the main loop, under the lock.",
                "bottom half": "Bottom halves come first: the one that empties the transmit queue runs now.",
                "own eventfd": "The main loop's own eventfd has to be read, or the next ppoll() would return at once.",
                "control kick": "The control queue's eventfd was signalled: its handler runs.",
                "transmit kick": "The transmit queue's eventfd was signalled: its handler runs.",
                "receive kick": "The receive queue's eventfd was signalled: its handler runs.",
                "tap": "The TAP can be read: its handler runs.",
                "sleep": (
                    "Nothing is left to do: the lock is given up, and {qemu} waits for all its descriptors at once."
                ),
                "sleep, TAP empty": (
                    "Nothing is left to do: the lock is given up, and {qemu} waits for all its descriptors at once."
                ),
                "no time to wait": (
                    "A bottom half was scheduled, so the next turn must not wait. QEMU asks for its descriptors all "
                    "the same: ppoll() with no time to wait."
                ),
            }
        ),
        to={
            "handler": call_any("work", "next_handler"),
            "sleep": call("poll_wait", "take_lock"),
            "sleep, TAP empty": call("poll_wait", "take_lock"),
            "no time to wait": call("poll_now", "take_lock"),
        },
        # Giving up a lock makes all that was stored before it visible.
        fence=True,
    )
    def next_handler(self, me: Context) -> str:
        mine = self.qemu.cells
        for bit, name in self.qemu.handlers.items():
            if mine.ready & bit:
                mine.ready &= ~bit
                if bit & BOTTOM_HALVES:
                    mine.scheduled &= ~(1 << (bit.bit_length() - 1) // BITS)
                return name
        # aio_ctx_prepare: from here on who schedules a bottom half has to say so.
        mine.notify_me = 1
        self.qemu.release_lock()
        if mine.scheduled:
            return "no time to wait"
        if me.packet:
            me.packet = 0
        return "sleep, TAP empty" if mine.turn & TAPS else "sleep"


class ReadOwnEventfd(Routine):
    """The handler of the main loop's own eventfd: it was written to wake the loop, and has to be read.

    Args:
        read: read() of it.
    """

    def __init__(self, name: str, place: Place, read: Routine) -> None:
        super().__init__(name, place)
        self.read = read

    @op(
        "Q-TX.12",
        "read the main loop's eventfd",
        "aio_context_notifier_cb",
        QEMU_ASYNC,
        text="Whoever wrote it only wanted ppoll() to return. It is read after the bottom half has done the work.",
        to=call("read", None),
    )
    def read_own(self, me: Context) -> None: ...
