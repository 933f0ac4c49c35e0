"""QEMU's main loop where the network card is an e1000: it waits for the TAP, for itself, and for a timer.

Source: QEMU 10.0 util/main-loop.c (main_loop_wait, qemu_clock_run_all_timers).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.ops import RETURN, block, call, call_any, goto, op
from virtviz.paths.qemu import MainLoop, Ready
from virtviz.paths.qemu_e1000 import TIMER_DUE, E1000Qemu
from virtviz.paths.qemu_fds import PpollNow, PpollWait
from virtviz.spec.citation import POLL, QEMU_MAIN_LOOP

if TYPE_CHECKING:
    from virtviz.paths.context import Context

HANDLERS: Final = {
    Ready.BOTTOM_HALF: "bottom half",
    Ready.OWN_EVENTFD: "own eventfd",
    Ready.TAP: "tap",
}
"""What is served by whom, in the order in which it is served. Timers come last, whatever ppoll() returned for."""
SOME_FDS: Final = Ready.OWN_EVENTFD | Ready.TAP


class E1000MainLoop(MainLoop):
    """The main loop's thread: main_loop_wait, over and over."""

    qemu: E1000Qemu

    @op(
        {"frame": "E1000-RX.1", "look": "E1000-RX.8", "": "E1000-TX.12"},
        "take the Big QEMU Lock",
        "os_host_main_loop_wait",
        QEMU_MAIN_LOOP,
        text={
            "frame": "ppoll() says that the TAP can be read. QEMU's devices run under one lock, which is taken first.",
            "woken": "ppoll() says that the main loop's own eventfd was written. The devices' lock is taken first.",
            "timeout": "ppoll() has waited as long as it should: a timer is over. The devices' lock is taken first.",
            "look": "ppoll() had no time to wait, for a bottom half is scheduled. The lock is taken again.",
        },
        to={name: goto("next_handler") for name in ("frame", "woken", "timeout", "look")},
        guard="lock_is_free",
        milestone={"frame": "backend-awake"},
    )
    def take_lock(self, me: Context) -> str:
        qemu, mine = self.qemu, self.qemu.cells
        qemu.take_lock(me)
        mine.notify_me = 0
        if mine.scheduled:
            mine.ready |= Ready.BOTTOM_HALF
        mine.turn = ready = mine.ready
        if ready & Ready.TAP:
            if me.observed:
                me.packet = self.next_in()
            return "frame"
        if ready & Ready.OWN_EVENTFD:
            return "woken"
        return "timeout" if ready & Ready.TIMER else "look"

    @op(
        {
            "bottom half": "E1000-TX.12",
            "own eventfd": "E1000-TX.12",
            "timer": "E1000-TX.12",
            "tap": "E1000-RX.2",
            "sleep": "E1000-TX.12",
            "sleep, TAP empty": "E1000-RX.8",
            "no time to wait": "E1000-RX.8",
        },
        {
            "sleep": "wait in ppoll()",
            "sleep, TAP empty": "wait in ppoll()",
            "no time to wait": "call ppoll() without waiting",
            "": "run the next handler",
        },
        "main_loop_wait",
        QEMU_MAIN_LOOP,
        text={
            "bottom half": "Bottom halves come first: one was scheduled.",
            "own eventfd": "The main loop's own eventfd has to be read, or the next ppoll() would return at once.",
            "tap": "The TAP can be read: its handler runs.",
            "timer": "Timers come last in every turn: the mitigation timer's time is over.",
            "sleep": "Nothing is left to do: the lock is given up, and {qemu} waits for its descriptors and its timer.",
            "sleep, TAP empty": (
                "Nothing is left to do: the lock is given up, and {qemu} waits for its descriptors and its timer."
            ),
            "no time to wait": (
                "A bottom half was scheduled, so the next turn must not wait. QEMU asks for its descriptors all the "
                "same: ppoll() with no time to wait."
            ),
        },
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
        for bit, name in HANDLERS.items():
            if mine.ready & bit:
                mine.ready &= ~bit
                if bit == Ready.BOTTOM_HALF:
                    mine.scheduled = 0
                return name
        if self.qemu.device.timer == TIMER_DUE:
            return "timer"
        # aio_ctx_prepare: from here on who schedules a bottom half has to say so.
        mine.notify_me = 1
        self.qemu.release_lock()
        if mine.scheduled:
            return "no time to wait"
        if me.packet:
            me.packet = 0
        return "sleep, TAP empty" if mine.turn & Ready.TAP else "sleep"


class PpollUntil(PpollWait):
    """ppoll() in the kernel, with a timer: sleeps until a descriptor is ready or the time is over."""

    @op(
        {"sleep": "E1000-TX.12", "ready": "E1000-TX.12", "timeout": "E1000-TX.12", "": "E1000-RX.1"},
        "look at every descriptor",
        "do_sys_poll",
        POLL,
        text={
            "ready": "The main loop's own eventfd was written: ppoll() returns.",
            "frame": "The TAP's queue holds a frame, so the TAP can be read: ppoll() returns.",
            "both": "The TAP can be read, and the main loop's own eventfd was written: ppoll() returns 2.",
            "timeout": "The time is over, and no descriptor is ready: ppoll() returns 0.",
            "sleep": (
                "No descriptor is ready: the thread puts itself on the wait queue of each, and sleeps in the kernel."
            ),
        },
        to={"ready": RETURN, "frame": RETURN, "both": RETURN, "timeout": RETURN, "sleep": block("wait")},
        cause="return from the system call",
        fence=True,
    )
    def wait(self, me: Context) -> str:
        if super().wait(me) == "sleep":
            return "sleep"
        found = self.qemu.cells.ready
        fds = found & SOME_FDS
        if fds == SOME_FDS:
            return "both"
        return "frame" if fds == Ready.TAP else "ready" if fds else "timeout"


class PpollAtOnce(PpollNow):
    """ppoll() with a timeout of zero; a timer that is over is none of what it returns for."""

    @op(
        "E1000-RX.8",
        "look at every descriptor",
        "do_sys_poll",
        POLL,
        text={
            "nothing": "No descriptor is ready, and there is no time to wait: ppoll() returns 0 at once.",
            "ready": "One is ready: ppoll() returns 1.",
            "both": "The TAP can be read, and the main loop's own eventfd was written: ppoll() returns 2.",
        },
        to={"nothing": RETURN, "ready": RETURN, "both": RETURN},
        cause="return from the system call",
    )
    def look(self, me: Context) -> str:
        self.qemu.cells.ready = found = self.qemu.look()
        fds = found & SOME_FDS
        return "both" if fds == SOME_FDS else "ready" if fds else "nothing"
