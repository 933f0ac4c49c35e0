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
    right = int(line.split("(option ")[1].split(")")[0])
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


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("arguments", ["list", "run 3", "run 3 --counters", "lesson 3"])
def test_streams_that_are_closed_do_no_harm(arguments, closed):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed: streams cannot be closed")
    script = f'"{sys.executable}" -m virtviz {arguments} {closed}'
    ran = subprocess.run([bash, "-c", script], cwd=ROOT, env=ENV, capture_output=True, text=True, check=False)
    assert ran.returncode == 0
    assert "Traceback" not in ran.stderr


@pytest.fixture
def terminal():
    """Give a function that runs the command line on a terminal, types something when it waits, and reads to the end."""
    pty = pytest.importorskip("pty", reason="pseudo-terminals exist on Unix only")

    def run(*arguments, until, typed=b"", sent=None, stderr=None, **env):
        inner, outer = pty.openpty()
        command = [sys.executable, "-m", "virtviz", *arguments]
        where = {"stdin": outer, "stdout": outer, "stderr": stderr or outer}
        with subprocess.Popen(command, cwd=ROOT, env={**ENV, **env}, **where) as running:
            os.close(outer)
            said = read_until(inner, until)
            os.write(inner, typed)
            if sent is not None:
                # Between the prompt and the wait for an answer a signal is noticed only when something is typed.
                time.sleep(0.3)
                running.send_signal(sent)
            said += read_until(inner, None)
            os.close(inner)
        return running.returncode, said.decode()

    return run


def read_until(terminal, words):
    """Read until some words have been said, or nobody has the terminal open any more."""
    said = b""
    while words is None or words not in said:
        try:
            said += os.read(terminal, 4096)
        except OSError:
            # What Linux answers at the end of a terminal.
            break
    return said


@pytest.mark.parametrize(("arguments", "term"), [(["lesson", "3"], "dumb"), (["lesson", "3", "--plain"], "xterm")])
def test_on_a_plain_terminal_one_is_asked_for_commands(terminal, arguments, term):
    code, said = terminal(*arguments, typed=b"q\n", until=b"step 0 of", TERM=term)
    assert code == 0
    assert "\x1b" not in said
    assert "Counted up to step 0 of" in said


def test_where_the_screen_could_not_be_seen_one_is_asked_for_commands(terminal, tmp_path):
    with (tmp_path / "errors").open("wb") as errors:
        code, said = terminal("lesson", "3", typed=b"q\n", until=b"step 0 of", stderr=errors, TERM="xterm-256color")
    assert code == 0
    assert "Counted up to step 0 of" in said
    assert not (tmp_path / "errors").read_bytes()


def test_a_theme_that_does_not_exist_is_said_and_the_player_does_not_open(terminal):
    code, said = terminal("lesson", "3", "--theme", "mauve", until=b"no theme", TERM="xterm-256color")
    assert code == 2
    assert "virtviz: there is no theme 'mauve'; there is " in said
    assert "Traceback" not in said


def test_ctrl_c_leaves_a_plain_lesson_with_130_and_no_traceback(terminal):
    code, said = terminal("lesson", "3", "--plain", sent=signal.SIGINT, until=b"step 0 of", TERM="xterm")
    assert code == 130
    assert "Traceback" not in said


def test_long_counted_runs_say_how_far_they_are_on_a_terminal(terminal):
    code, said = terminal("run", "3", "--counters", "--packets", "60000", until=b" steps", TERM="xterm")
    assert code == 0
    assert said.count("\r") > said.count("\r\n")
    assert "steps a second" in said


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


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("virtviz run 3", "plain,3-vhost"),
        ("virtviz run --set queue.s", "plain,queue.size="),
        ("virtviz lesson /tmp/le", "file,/tmp/le"),
        ("virtviz check le", "file,le"),
    ],
)
def test_completion_offers_lessons_knobs_and_files(start, line, offered):
    env = {"_VIRTVIZ_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    completed = start(env=env)
    assert offered in completed.stdout.splitlines()
    assert not completed.stderr
