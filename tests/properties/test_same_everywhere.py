"""The same world, traffic and schedule give the same trace, whatever the hash seed and wherever Python is started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).resolve().parents[2]
TRACE = """
import hashlib
from random import Random
from virtviz.engine.schedule import Chosen
from virtviz.engine.trace import Trace
from virtviz.paths.describe import describe, initial_state
from virtviz.paths.knobs import make_world
from virtviz.paths.traffic import Item, Pause, make_traffic
from virtviz.paths.wiring import simulate

world = make_world({"queue.size": 16, "tx_stop_threshold": 3, "flows": "unknown", "queue.start": 65530})
events = [Item("a", fragments=3), Item("b", outgoing=False, answers=0), Pause(), Item(outgoing=False), Item(peer=2)]
simulation = simulate(world, make_traffic(events, rounds=3))
dice = Random(4002)
simulation.machine.run(scheduler=Chosen(lambda machine: dice.choice(machine.movable() or [-1])))
trace = Trace(simulation.machine)
sink = hashlib.blake2b(repr(describe(simulation)).encode())
for n in range(1, len(trace) + 1):
    sink.update(repr(trace.step(n)).encode())
print(len(trace), sink.hexdigest(), simulation.machine.digest())
simulation.machine.seek(0)
print(hashlib.blake2b(repr(initial_state(simulation.machine).cells).encode()).hexdigest())
"""


def traced(hash_seed: str, folder: Path) -> str:
    """Run the script in a process of its own."""
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", TRACE], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_traces_are_identical_under_another_hash_seed_and_working_directory(tmp_path: Path):
    here = traced("0", ROOT)
    assert int(here.split()[0]) > 300
    assert traced("1", tmp_path) == here
    assert traced("4002", Path("/")) == here


def test_a_second_run_in_the_same_process_is_identical_to_the_first(capsys: pytest.CaptureFixture[str]):
    exec(TRACE, {})
    first = capsys.readouterr().out
    exec(TRACE, {})
    assert capsys.readouterr().out == first
