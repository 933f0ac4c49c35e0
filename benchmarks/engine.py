"""The engine's rows.

The workload is one guest that sends UDP datagrams with 18 bytes of payload, as fast as it can: frames of 60 bytes,
which with the frame check sequence that the card adds are the 64-byte frames of every packet benchmark. World: the
default profile with known flows; vCPU, vhost worker, OVS, card and its interrupt all run. Each packet takes 36 steps.
Building the world and bringing the interface up are not measured; everything from the first step on is, warm-up and
making of blocks included.
"""

from __future__ import annotations

import gc
import random
import tracemalloc
from time import perf_counter
from typing import TYPE_CHECKING, Final

from benchmarks.baselines import simpy_store
from benchmarks.table import Row, in_turns
from virtviz.engine.recording import RecordingMachine
from virtviz.paths.knobs import make_world
from virtviz.paths.traffic import Item, make_traffic
from virtviz.paths.wiring import simulate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from virtviz.engine.machine import Machine

GROUP: Final = "engine"
PAYLOAD_BYTES: Final = 18
SENDING: Final = (Item(kind="udp", length=PAYLOAD_BYTES),)
RECEIVING: Final = tuple(Item(kind="udp", length=PAYLOAD_BYTES, outgoing=False) for _ in range(64))
ECHO: Final = (
    Item("echo", kind="udp", length=PAYLOAD_BYTES),
    Item("reply", kind="udp", length=PAYLOAD_BYTES, outgoing=False, answers=0),
)
PACKETS: Final = 28_000
"""A run of a million steps."""
STEPS: Final = 1_000_000
JUMP_STEPS: Final = 100_000
SIMPY_ITEMS: Final = 150_000

BYTES_A_STEP_MAX: Final = 150
RERUN_MAX: Final = 20_000
TENFOLD_MAX: Final = 10.5
FLAT_BYTES: Final = 65_536
"""What may be called flat: less than one generated block takes while it is compiled; a byte for every three packets
would be more."""


def machine_for(items: Sequence[Item], packets: int, *, recording: bool) -> Machine:
    """Build a world that stands before its first step."""
    traffic = make_traffic(list(items), rounds=packets // len(items))
    return simulate(make_world({"flows": "known"}), traffic, recording=recording).machine


def steps_per_second(items: Sequence[Item], packets: int, *, recording: bool) -> float:
    """Run a world to its end; answers the rate."""
    machine = machine_for(items, packets, recording=recording)
    gc.collect()
    start = perf_counter()
    steps = machine.run()
    return steps / (perf_counter() - start)


def rows(repetitions: int) -> Iterator[Row]:
    """Measure all of them."""
    yield from _rates(repetitions)
    yield _bytes_a_step()
    yield from _tenfold(repetitions)
    yield _flat_memory()
    yield from _back_and_jump()


def _rates(repetitions: int) -> Iterator[Row]:
    def baseline() -> float:
        gc.collect()
        return simpy_store.events_per_second(SIMPY_ITEMS)

    def rate(what: str, items: Sequence[Item], packets: int, least: float, *, recording: bool) -> Row:
        measured, base, ratio = in_turns(
            lambda: steps_per_second(items, packets, recording=recording), baseline, repetitions
        )
        return Row(
            GROUP,
            what,
            f"{measured / 1e6:.2f} M steps/s",
            f"{base / 1e6:.2f} M SimPy events/s",
            f"{ratio:.2f}x",
            f">= {least}x" if least else "",
            ratio >= least,
        )

    yield rate("counters only", SENDING, PACKETS, 4.0, recording=False)
    yield rate("full timeline with undo", SENDING, PACKETS, 1.5, recording=True)
    yield rate("full timeline, a run of 100,000 steps", SENDING, PACKETS // 10, 0.0, recording=True)
    yield rate("counters only, receiving in batches of 64", RECEIVING, PACKETS // 2, 0.0, recording=False)
    yield rate("counters only, one echo at a time", ECHO, PACKETS // 4, 0.0, recording=False)


def _bytes_a_step() -> Row:
    """Everything that a run of a million steps leaves behind, by tracemalloc, with the machine sent ahead on it."""
    machine = machine_for(SENDING, PACKETS, recording=True)
    gc.collect()
    tracemalloc.start()
    steps = machine.run()
    gc.collect()
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return Row(
        GROUP,
        f"bytes a step, over {steps:,} steps",
        f"{held / steps:.0f} B held, {peak / steps:.0f} B at most",
        "-",
        "",
        f"<= {BYTES_A_STEP_MAX} B",
        peak / steps <= BYTES_A_STEP_MAX,
    )


def _tenfold(repetitions: int) -> Iterator[Row]:
    def seconds(packets: int, *, recording: bool) -> float:
        machine = machine_for(SENDING, packets, recording=recording)
        gc.collect()
        start = perf_counter()
        machine.run()
        return perf_counter() - start

    for what, packets, recording in (("counters only", PACKETS, False), ("full timeline", PACKETS // 3, True)):
        measured, base, ratio = in_turns(
            lambda n=packets, r=recording: seconds(10 * n, recording=r),  # type: ignore[misc]
            lambda n=packets, r=recording: seconds(n, recording=r),  # type: ignore[misc]
            min(repetitions, 3),
        )
        yield Row(
            GROUP,
            f"10x the packets, {what}",
            f"{measured:.2f} s",
            f"{base:.3f} s for {packets:,} packets",
            f"{ratio:.2f}x",
            f"<= {TENFOLD_MAX}x",
            ratio <= TENFOLD_MAX,
        )


def _flat_memory() -> Row:
    """Run a machine for a million steps, and for nine million more: how far does memory rise above where it was?"""
    machine = machine_for(SENDING, 10 * PACKETS, recording=False)
    gc.collect()
    tracemalloc.start()
    steps = machine.run(STEPS)
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    steps += machine.run(9 * STEPS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return Row(
        GROUP,
        f"memory after {steps:,} steps, counters only",
        f"{peak / 1024:.0f} KiB",
        f"{before / 1024:.0f} KiB after {STEPS:,}",
        f"{peak / before:.2f}x",
        f"flat (+ {FLAT_BYTES // 1024} KiB)",
        peak - before <= FLAT_BYTES,
    )


def _back_and_jump() -> Iterator[Row]:
    """Take 100,000 steps one by one, go back over all of them, and jump about in them."""
    machine = machine_for(SENDING, JUMP_STEPS // 30, recording=True)
    assert isinstance(machine, RecordingMachine)
    gc.collect()
    start = perf_counter()
    for _ in range(JUMP_STEPS):
        machine.step()
    forward = (perf_counter() - start) / JUMP_STEPS
    slowest, worst, stretch = 0.0, 0.0, 1000
    start = perf_counter()
    for _ in range(JUMP_STEPS // stretch):
        before = perf_counter()
        for _ in range(stretch):
            one = perf_counter()
            machine.back()
            slowest = max(slowest, perf_counter() - one)
        worst = max(worst, (perf_counter() - before) / stretch)
    back = (perf_counter() - start) / JUMP_STEPS
    yield Row(
        GROUP,
        f"step back, over all {JUMP_STEPS:,} steps",
        f"{back * 1e6:.2f} us, slowest one {slowest * 1e3:.1f} ms",
        f"{forward * 1e6:.2f} us a step forward",
        f"{back / forward:.2f}x",
        "<= 2x",
        back <= 2 * forward,
    )
    most, longest = _jumps(machine)
    yield Row(
        GROUP,
        f"jump to any of {JUMP_STEPS:,} steps",
        f"{most:,} steps run again, {longest * 1e3:.1f} ms",
        "-",
        "",
        f"<= {RERUN_MAX:,} steps",
        most <= RERUN_MAX,
    )


def _jumps(machine: RecordingMachine) -> tuple[int, float]:
    """Jump to where it is hardest, and to many places more; answers the most steps run again and the longest time."""
    chance = random.Random(1)  # noqa: S311 - any places will do
    edges = [c.position + more for c in machine.timeline.checkpoints for more in (-1, 0, 1)]
    targets = [n for n in edges if 0 <= n <= machine.length]
    targets += [chance.randrange(machine.length + 1) for _ in range(200)]
    chance.shuffle(targets)
    again, most, longest = 0, 0, 0.0
    record = machine._record  # noqa: SLF001 - to count what is run again

    def counted(index: int, limit: int) -> list[int]:
        nonlocal again
        taken = record(index, limit)
        again += len(taken)
        return taken

    machine._record = counted  # type: ignore[method-assign]  # noqa: SLF001
    for target in targets:
        again = 0
        start = perf_counter()
        machine.seek(target)
        longest = max(longest, perf_counter() - start)
        most = max(most, again)
    return most, longest
