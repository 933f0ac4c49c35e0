"""Verbs, exit codes and messages."""

import json
from pathlib import Path

import pytest

from virtviz.export.replay import Replay
from virtviz.lesson.shelf import shelf

ROOT = Path(__file__).parents[2]
IDS = [entry.id for entry in shelf()]
SHELF = " or ".join([", ".join(IDS[:-1]), IDS[-1]] if len(IDS) > 1 else IDS)
# The shelf


def test_list_names_every_lesson_on_a_line(call):
    listed = call("list")
    assert listed.code == 0
    assert [line.split()[0] for line in listed.out.splitlines()] == IDS
    (line,) = (line for line in listed.out.splitlines() if line.startswith("3-vhost "))
    assert line.split(maxsplit=4) == ["3-vhost", "intermediate", "15", "min", "vhost-net, the kernel takes the ring"]
    assert not listed.err


def test_without_a_verb_there_is_the_shelf_and_how_to_open_a_lesson(call):
    shown = call()
    assert shown.code == 0
    assert shown.out == call("list").out
    assert "virtviz lesson ID" in shown.err


def test_help_says_the_verbs_in_their_order_and_the_exit_codes(call):
    shown = call("--help")
    assert shown.code == 0
    commands = shown.out.partition("Commands:\n")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in commands.splitlines()] == [
        "lesson",
        "run",
        "compare",
        "list",
        "check",
        "schema",
        "knobs",
        "costs",
    ]
    assert "Exit codes: 0 fine, 1 the lesson or an answer failed, 2 usage, 3 invalid" in " ".join(shown.out.split())
    assert "_VIRTVIZ_COMPLETE=bash_source" in shown.out


def test_the_version_is_said(call):
    assert call("--version").out.startswith("virtviz")


def test_knobs_are_listed_with_value_sentence_and_range(call):
    listed = call("knobs").out
    assert "handlers=2\n    Upcall handler threads of ovs-vswitchd" in listed
    assert "nic_ring=512\n" in listed
    assert "    A power of two from 8 to 4096.\n" in listed
    assert "features=event_idx,indirect,mergeable\n" in listed


# Running


def test_run_writes_a_trace_that_can_be_read_back(call):
    ran = call("run", "3-vhost")
    assert ran.code == 0
    assert not ran.err
    replay = Replay(ran.out.encode())
    assert replay.header.lesson == "3-vhost"
    assert replay.length == replay.footer.steps


@pytest.mark.parametrize("name", ["3-vhost", "3", "vhost", "vho", "lessons/3-vhost.yaml"])
def test_a_lesson_is_found_by_id_number_name_beginning_or_path(call, name, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert json.loads(call("run", name).out.splitlines()[0])["lesson"] == "3-vhost"


def test_run_writes_one_json_document(call):
    document = json.loads(call("run", "3", "--format", "json").out)
    lines = call("run", "3").out.splitlines()
    assert [document["header"], *document["steps"], document["footer"]] == list(map(json.loads, lines))


def test_run_writes_a_table_of_the_steps_and_then_the_counters(call, lesson):
    lines = call("run", lesson, "--format", "table").out.splitlines()
    steps = json.loads(call("run", lesson).out.splitlines()[-1])["steps"]
    assert " ".join(lines[0].split()) == "step ns thread place row packet what it does what it costs"
    assert [line.split()[0] for line in lines[1 : steps + 1]] == [str(n) for n in range(1, steps + 1)]
    assert lines[1].rstrip().endswith("call sendmsg()                                syscall-enter (guest), [sent]")
    assert lines[steps + 1] == ""
    assert lines[-1].split() == ["dropped", "packets", "0"]


def test_settings_and_seed_are_in_the_header_wherever_they_are_said(call):
    for order in (
        ["--set", "flows=unknown", "--seed", "7", "run", "3"],
        ["run", "3", "--set", "flows=unknown", "--seed=7"],
    ):
        header = json.loads(call(*order).out.splitlines()[0])
        assert header["seed"] == 7
        assert header["world"]["flows"] == "unknown"


def test_a_later_setting_counts_for_more_than_an_earlier_one(call):
    ran = call("--set", "queue.size=64", "run", "3", "--set", "queue.size=128")
    assert json.loads(ran.out.splitlines()[0])["world"]["queue.size"] == 128


def test_the_profile_is_begun_with_and_settings_go_over_it(call):
    ran = call("run", "3", "--profile", "recorded", "--set", "far_port=nic")
    world = json.loads(ran.out.splitlines()[0])["world"]
    assert (world["profile"], world["cpu"], world["far_port"]) == ("recorded", "amd", "nic")


def test_counters_only_are_those_of_the_recorded_run(call):
    counted = call("run", "3", "--counters")
    assert counted.code == 0
    assert counted.out.splitlines() == call("run", "3").out.splitlines()[-1:]
    assert "steps a second" in counted.err


def test_counters_as_a_table_have_their_titles(call):
    assert "light VM exits (KVM only)" in call("run", "3", "--counters", "--format", "table").out


def test_packets_repeat_the_scenario_in_whole_rounds(call):
    ran = call("run", "3", "--counters", "--packets", "12")
    assert json.loads(ran.out)["packets"] == 15
    assert "virtviz: 3 whole rounds of the scenario are 15 packets" in ran.err
    assert "virtviz: 1 whole round of the scenario is 5 packets" in call("run", "3", "--counters", "--packets", "2").err
    assert "whole rounds" not in call("run", "3", "--counters", "--packets", "15").err


def test_a_run_is_the_same_bytes_under_another_hash_seed_and_working_directory(start, tmp_path):
    folder = tmp_path / "with a space"
    folder.mkdir()
    first = start("run", "3", cwd=ROOT, env={"PYTHONHASHSEED": "0"})
    assert first.returncode == 0
    for seed, where, locale in (("1", tmp_path, "C"), ("4711", folder, "C.UTF-8")):
        again = start("run", "3", cwd=where, env={"PYTHONHASHSEED": seed, "LC_ALL": locale})
        assert again.stdout == first.stdout


# What is wrong


SAID = {
    "run 99-none": f"there is no lesson `99-none`; there is {SHELF}, or give the path of a .yaml file",
    "run 3 --set queue.siz=4": "there is no knob 'queue.siz'; did you mean queue.size?",
    "run 3 --set nic_ring=9": "nic_ring is a power of two from 8 to 4096, not '9'",
    "run 3 --set queue.size=2000": "queue.size is a whole number from 4 to 1024, not '2000'",
    "run 3 --set queue.size": "write --set knob=value, such as --set queue.size=128, not 'queue.size'",
    "run 3 --set cpu=amd": "on an AMD processor posted interrupts are AVIC, which is not modelled; set apicv=off",
    "run 3 --profile fast": "profile is one of default, recorded, not 'fast'",
    "run 3 --input none.pcap": "none.pcap: No such file or directory",
}


@pytest.mark.parametrize("line", SAID)
def test_what_is_wrong_with_a_call_is_said_in_one_line_and_exits_2(call, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    called = call(*line.split())
    assert (called.code, called.out, called.err) == (2, "", f"virtviz: {SAID[line]}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rum", "3"], "run"),
        (["run"], "Missing argument 'LESSON'"),
        (["run", "3", "--frmat", "json"], "--format"),
        (["run", "3", "--format", "xml"], "'xml' is not one of 'jsonl', 'json', 'table'"),
        (["run", "3", "--packets", "0"], "0 is not in the range x>=1"),
        (["run", "3", "--pcap", "wire"], "write PLACE=F, such as wire=out.pcap, not 'wire'"),
        (["run", "3", "--pcap", "tap1=x.pcap"], "no packet passes a place called 'tap1'; did you mean tap0?"),
        (["run", "3", "--counters", "--pcap", "wire=x.pcap"], "leave one of them out"),
        (["schema", "lesso"], "'lesson'"),
        (["check"], "Missing argument 'F...'"),
        (["lesson", "3", "--motion", "wild"], "'full', 'basic', 'none'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_a_wrong_call_says_what_could_be_said_instead_and_exits_2(call, arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    called = call(*arguments)
    assert (called.code, called.out) == (2, "")
    assert said in called.err
    assert not list(tmp_path.iterdir())


HOSTILE = [
    ("id: 98-test\nid: 98-other\n", ":2:1:"),
    ("a: &a [x, x]\nb: [*a, *a]\n", ":1:4:"),
    ("title: \x1b]0;owned\x07\n", ":1:"),
    ("- 1\n", ":1:1:"),
    ("id: [unclosed\n", ":1:"),
]


@pytest.mark.parametrize(("text", "where"), HOSTILE, ids=["duplicate", "alias", "control", "list", "unclosed"])
@pytest.mark.parametrize("verb", ["run", "lesson", "check"])
def test_a_hostile_lesson_gives_file_line_and_column_and_exits_3(call, tmp_path, verb, text, where):
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    called = call(verb, path)
    assert (called.code, called.out) == (3, "")
    assert any(line.startswith(f"{path}{where}") for line in called.err.splitlines())
    assert "Traceback" not in called.err
    assert "\x1b" not in called.err


def test_every_problem_of_a_lesson_is_said_at_once(call, tmp_path, lesson):
    path = tmp_path / "bad.yaml"
    path.write_text(
        lesson.read_text().replace("level: beginner", "level: easy").replace("flows: known", "flows: knwon")
    )
    called = call("check", path)
    assert called.code == 3
    lines = called.err.splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{path}:4:8", f"{path}:7:16"]


# Checking


def test_check_plays_a_lesson_and_says_that_it_is_fine(call, lesson):
    checked = call("check", lesson)
    assert checked.code == 0
    assert checked.out.startswith(f"{lesson}: fine; ")


def test_nothing_in_a_files_name_is_obeyed_by_the_terminal(call, tmp_path, lesson):
    good = lesson.rename(lesson.with_name("98-\x1b[31m\n.yaml"))
    bad = tmp_path / "bad\x1b[31m.yaml"
    bad.write_text("- 1\n", encoding="utf-8")
    checked = call("check", good, bad)
    said = checked.out + checked.err
    assert "\x1b" not in said
    assert "98-\\x1b[31m\\n.yaml:2:5: id: the file is called " in said
    assert "bad\\x1b[31m.yaml:1:1: " in said


def test_check_gives_advice_that_does_not_change_the_exit_code(call, lesson):
    advice = f"{lesson}:2:5: id: advice: no `sources`; say where the lesson's facts are from\n"
    assert call("check", lesson).err.startswith(advice)


@pytest.mark.parametrize("path", [entry.path for entry in shelf()], ids=lambda path: path.stem)
def test_every_lesson_of_the_shelf_is_fine(call, path):
    assert call("check", path).code == 0


def test_a_lesson_that_does_not_happen_as_it_says_exits_1_with_the_line(call, lesson):
    lesson.write_text(lesson.read_text().replace("milestone: on-wire", "milestone: from-wire"), encoding="utf-8")
    checked = call("check", lesson)
    assert (checked.code, checked.out) == (1, "")
    assert checked.err.endswith(f"{lesson}:12:11: script.mark.when: this never happens in the run\n")


def test_the_worst_of_several_files_decides_the_exit_code(call, tmp_path, lesson):
    bad = tmp_path / "bad.yaml"
    bad.write_text("- 1\n", encoding="utf-8")
    never = tmp_path / "never" / lesson.name
    never.parent.mkdir()
    never.write_text(lesson.read_text().replace("milestone: on-wire", "milestone: from-wire"), encoding="utf-8")
    assert call("check", lesson, never).code == 1
    assert call("check", never, bad, lesson).code == 3


def test_schemas_are_printed(call):
    assert json.loads(call("schema", "trace").out)["$defs"]["StepLine"]
    assert json.loads(call("schema", "lesson").out)["properties"]["format_version"]
