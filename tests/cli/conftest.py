"""Ways to call the command line."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from virtviz.cli import main

ROOT = Path(__file__).parents[2]

# What a shell runs in the background ignores interrupts, and so would the programs that are started here.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

LESSON = """\
format_version: 1
id: 98-test
title: A test
level: beginner
minutes: 1
objectives: [Test.]
world: {flows: known}
scenario:
  - send: {id: echo}
script:
  - id: mark
    when: {milestone: on-wire}
    say: It is out.
"""


class Called:
    """What came of a call: its exit code, what it wrote and what it said."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def call(capsys):
    """Give a function that calls the command line in this process."""

    def called(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Called(code, captured.out, captured.err)

    return called


@pytest.fixture
def start():
    """Give a function that calls the command line as a program of its own."""

    def started(*arguments, env=None, stdin=subprocess.DEVNULL, cwd=None, **more):
        return subprocess.run(
            [sys.executable, "-m", "virtviz", *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
            cwd=cwd,
            stdin=None if "input" in more else stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            **more,
        )

    return started


@pytest.fixture
def lesson(tmp_path):
    """The file of a small lesson."""
    path = tmp_path / "98-test.yaml"
    path.write_text(LESSON, encoding="utf-8")
    return path
