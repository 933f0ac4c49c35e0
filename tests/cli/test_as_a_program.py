"""The command line as a program: pipes, terminals, signals, and what it loads."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}
RUN = [sys.executable, "-m", "virtviz", "run", "3"]

# Playing without a screen


def test_without_a_terminal_a_lesson_is_told_a_line_a_step(start, lesson):
    told = start("lesson", lesson)
    assert (told.returncode, told.stderr) == (0, "")
    steps = json.loads(start("run", lesson).stdout.splitlines()[-1])["steps"]
    numbers = [line.split()[0] for line in told.stdout.splitlines() if line[:5].strip().isdecimal() and "vm1" in line]
    assert "1" in numbers
    assert f"Counted up to step {steps} of {steps}:" in told.stdout
    assert "It is out." in told.stdout


def test_what_is_piped_in_steps_and_answers_and_a_wrong_answer_exits_1(start):
    right, wrong = (answers_to_the_first_question(start, is_right) for is_right in (True, False))
    assert right.returncode == 0
    assert "Right:" in right.stdout
    assert wrong.returncode == 1
    assert "No:" in wrong.stdout


def answers_to_the_first_question(start, is_right):
    """Go to the first question of 3-vhost and answer it, by what not answering it tells."""
    told = start("lesson", "3", "--plain", input="end\ns\nq\n").stdout
    line = next(line for line in told.splitlines() if "Answer:" in line)
    right = int(line.split("Answer:")[1].split(",")[0])
    choice = right if is_right else right % 2 + 1
    return start("lesson", "3", "--plain", input=f"end\n{choice}\nq\n")


def test_where_the_input_ends_the_rest_is_told_without_asking(start, lesson):
    told = start("lesson", lesson, "--plain", input="\n\n")
    assert told.returncode == 0
    assert told.stdout.count("It is out.") == 1
    steps = json.loads(start("run", lesson).stdout.splitlines()[-1])["steps"]
    assert f"Counted up to step {steps} of {steps}:" in told.stdout


def test_a_lesson_can_begin_later(start, lesson):
    told = start("lesson", lesson, "--at", "10", input="q\n")
    assert "Counted up to step 10 of" in told.stdout
    assert "call sendmsg()" not in told.stdout
    late = start("lesson", lesson, "--at", "5000", input="q\n")
    assert "which is the last one" in late.stderr


def test_ascii_is_ascii(start):
    told = start("lesson", "3", "--ascii")
    assert told.returncode == 0
    assert told.stdout.isascii()


# How it behaves as a program


@pytest.mark.parametrize(
    "arguments", [["list"], ["run", "3"], ["run", "3", "--counters"], ["check", "lessons/3-vhost.yaml"]]
)
def test_without_a_screen_neither_textual_nor_networkx_is_loaded(arguments):
    script = (
        "import sys, io; sys.stdout = io.StringIO()\n"
        "from virtviz.cli import main\n"
        f"code = main({arguments!r}); sys.stdout = sys.__stdout__\n"
        "print(code, [m for m in ('textual', 'networkx', 'rich', 'dpkt', 'simpy') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=ENV, capture_output=True, text=True, check=True)
    assert ran.stdout == "0 []\n"


@pytest.mark.parametrize("arguments", ["run 3", "list", "run 3 --format table"])
def test_it_ends_quietly_when_nobody_reads_on(arguments):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed: pipes cannot be looked into")
    script = f'"{sys.executable}" -m virtviz {arguments} | true; echo "${{PIPESTATUS[0]}}"'
    ran = subprocess.run([bash, "-c", script], cwd=ROOT, env=ENV, capture_output=True, text=True, check=True)
    assert ran.stdout in ("141\n", "0\n")
    assert ran.stderr == ""


def test_a_full_disk_behind_standard_output_is_said():
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("/dev/full does not exist here")
    with full.open("w") as out:
        ran = subprocess.run(
            [sys.executable, "-m", "virtviz", "run", "3"],
            cwd=ROOT,
            env=ENV,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (ran.returncode, ran.stderr) == (1, "virtviz: No space left on device\n")


def test_an_interrupted_run_exits_130_without_a_traceback():
    command = [sys.executable, "-m", "virtviz", "run", "3", "--packets", "100000000"]
    with subprocess.Popen(
        command, cwd=ROOT, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout.readline().startswith('{"format"')
        time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in said


def test_completion_offers_lessons_and_knobs(start):
    for line, offered in (("virtviz run 3", "3-vhost"), ("virtviz run 3 --set queue.s", "queue.size=")):
        env = {"_VIRTVIZ_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        assert offered in start(env=env).stdout
