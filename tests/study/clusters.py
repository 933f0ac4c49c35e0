"""A Dask cluster of real processes on this machine, for tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PR_SET_PDEATHSIG = 1
START_S = 120
"""Seconds to wait for a process that has to import much on a busy machine."""


class Cluster:
    """A scheduler and its workers.

    Attributes:
        address: of the scheduler.
        workers: the workers' processes.
    """

    def __init__(self, address, workers):
        self.address = address
        self.workers = workers


DASK = f"""
import ctypes, runpy, sys
if sys.platform == "linux":
    # The system ends it when the process that runs the tests is ended, however that happens.
    ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, {signal.SIGKILL.value})
runpy.run_module("dask", run_name="__main__", alter_sys=True)
"""


def _dask(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", DASK, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )


@contextlib.contextmanager
def cluster(folder, size):
    """Start a cluster on the loopback interface; at the end its processes are ended."""
    from distributed import Client  # noqa: PLC0415 - it takes a second to load

    file = folder / "scheduler.json"
    processes = [
        _dask("scheduler", "--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--no-show", "--scheduler-file", file)
    ]
    try:
        worker = ["worker", "--scheduler-file", file, "--host", "127.0.0.1", "--nthreads", 1, "--no-nanny"]
        worker += ["--no-dashboard", "--local-directory", folder, "--death-timeout", START_S]
        processes += [_dask(*worker, "--name", number) for number in range(size)]
        deadline = time.monotonic() + START_S
        while not file.exists() or not file.read_text(encoding="utf-8").strip():
            assert processes[0].poll() is None, "the scheduler ended"
            assert time.monotonic() < deadline, "the scheduler does not start"
            time.sleep(0.05)
        with Client(scheduler_file=str(file), timeout=START_S, set_as_default=False) as client:
            client.wait_for_workers(size, timeout=START_S)
            address = client.scheduler.address
        yield Cluster(address, processes[1:])
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()
