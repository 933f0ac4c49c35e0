"""Runs that the tests of this room write down and read back."""

import io
from dataclasses import dataclass

import pytest

from virtviz.engine.counters import count
from virtviz.engine.trace import Trace
from virtviz.export.headless import Totals
from virtviz.export.jsonl import header_json, timed_steps, write_jsonl
from virtviz.paths.describe import describe, initial_state
from virtviz.paths.knobs import make_world
from virtviz.paths.traffic import Item, Pause, make_traffic
from virtviz.paths.wiring import simulate

PING = (Item("echo"), Item("reply", outgoing=False, answers=0))
WORLDS = {
    "known flow": ({"flows": "known"}, PING),
    "unknown flow": ({"flows": "unknown"}, PING),
    "recorded profile": ({"profile": "recorded"}, PING),
    "burst": ({"flows": "known"}, [Item(f"udp{i}", kind="udp", length=18) for i in range(12)]),
    "receive burst": (
        {"flows": "known"},
        [Item(f"udp{i}", kind="udp", length=18, outgoing=False) for i in range(8)],
    ),
    "small mergeable buffers": (
        {"flows": "known", "rx_buffer": 256},
        [Item("big", length=1400), Item("back", length=1400, outgoing=False, answers=0)],
    ),
    "indirect tables": ({"flows": "known"}, [Item("pieces", kind="udp", length=1200, fragments=5), *PING[:1]]),
    "chains": ({"features": "event_idx,mergeable"}, [Item("pieces", kind="udp", length=1200, fragments=5)]),
    "no event indices": ({"features": "none", "flows": "known"}, [*PING, Pause(), Item("again")]),
    "wrapping indices": ({"queue.start": 65535, "flows": "known"}, [*PING, Pause(), Item("again"), Item("third")]),
    "halted vCPU": ({"vcpu": "halted", "flows": "known"}, PING),
    "store buffers": ({"store_buffer": "on", "flows": "known"}, PING),
    "full queue drops": (
        {"flows": "known", "txqueuelen": 2},
        [Item(f"in{i}", kind="udp", length=18, outgoing=False) for i in range(8)],
    ),
}
"""Every world whose trace is compared with the live machine, cell by cell."""


@dataclass
class Recorded:
    """A finished run, what is left of the machine, and its trace file."""

    simulation: object
    trace: Trace
    text: str


@pytest.fixture(scope="session")
def record():
    """Give a function that runs a world of `WORLDS` and writes its trace."""
    made = {}

    def recorded(name):
        if name not in made:
            settings, events = WORLDS[name]
            made[name] = run_and_write(settings, events)
        return made[name]

    return recorded


def run_and_write(settings, events):
    simulation = simulate(make_world(settings), make_traffic(list(events)))
    machine = simulation.machine
    header = header_json(describe(simulation, lesson="test", title="A test", seed=7), initial_state(machine))
    machine.run()
    trace = Trace(machine)

    def footer():
        machine.seek(len(trace))
        counters = count(machine.program.arcs, machine.hits)
        return Totals(len(trace), simulation.traffic.packets, counters, simulation.dropped()).json()

    out = io.StringIO()
    write_jsonl(out, header, timed_steps(trace), footer)
    return Recorded(simulation, trace, out.getvalue())


@pytest.fixture(params=WORLDS)
def recorded(request, record):
    """Each world of `WORLDS`, run and written."""
    return record(request.param)


@pytest.fixture
def ping(record):
    """One echo request and its answer."""
    return record("known flow")
