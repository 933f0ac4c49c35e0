"""The command line: arguments, exit codes, and the one place that prints.

What is data goes to standard output, what is said to a person goes to standard error. A verb imports what it needs when
it is called, so that `virtviz list` is there at once and never loads the player.

Exit codes: 0 fine; 1 the lesson does not hold, or an answer was wrong; 2 the command line is wrong; 3 a lesson file is
not valid; 130 interrupted; 141 nobody reads the output any more.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from virtviz.cli_options import Options, everywhere, lesson_argument
from virtviz.cli_study import compare, costs
from virtviz.errors import LearnerError, LessonError, Problem, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.export.headless import Totals
    from virtviz.lesson.model import Lesson
    from virtviz.paths.knobs import World
    from virtviz.paths.traffic import Traffic
    from virtviz.session.session import Session

FAILED: Final = 1
USAGE: Final = 2
INVALID: Final = 3
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
COLLECT_AFTER: Final = 200_000
"""Objects after which unreachable cycles are looked for. Up to the first screen some 100,000 are made, and stay; with
Python's usual 700 they would be gone through time and again, which is a fifth of the time to open a lesson."""


class _Verbs(click.Group):
    """The verbs, in the order in which they are written down."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as in the base class
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _drop_output()
            return BROKEN_PIPE
        return result


def _drop_output() -> None:
    """Let what is still to be written go nowhere: Python tries once more when it ends, and would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _version(context: click.Context, parameter: click.Parameter, value: bool) -> None:  # noqa: ARG001, FBT001
    if value:
        from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - it takes a while

        try:
            click.echo(f"virtviz {version('virtviz')}")
        except PackageNotFoundError:
            click.echo("virtviz, from a checkout that is not installed")
        context.exit()


@click.group(
    cls=_Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "LESSON is an id, its number, its name, the beginning of either, or the path of a file. "
        "Data goes to standard output, messages to standard error. "
        "Exit codes: 0 fine, 1 the lesson or an answer failed, 2 usage, 3 invalid lesson. "
        'Completion: eval "$(_VIRTVIZ_COMPLETE=bash_source virtviz)", or zsh_source, fish_source.'
    ),
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Say the version.")
@everywhere
@click.pass_context
def cli(context: click.Context) -> None:
    """See how a network packet really leaves and enters a virtual machine, one ring operation at a time.

    Without a verb: the shelf of lessons.
    """
    if context.invoked_subcommand is None:
        _print_shelf()
        click.echo("\nvirtviz lesson ID opens one, virtviz --help says the rest.", err=True)


# Opening a lesson


def _load(name: str) -> Lesson:
    from virtviz.lesson.loader import load  # noqa: PLC0415 - as all below: a verb loads what it needs
    from virtviz.lesson.shelf import find  # noqa: PLC0415

    return load(find(name))


@cli.command()
@lesson_argument
@click.option("--plain", is_flag=True, help="A line a step instead of a screen.")
@click.option("--at", type=click.IntRange(min=0), metavar="N", help="Begin after step N.")
@everywhere
@click.pass_obj
def lesson(options: Options, lesson: str, *, plain: bool, at: int | None) -> int:
    """Open a lesson in the player.

    Without a terminal it is told as plain text, a line a step.
    """
    from virtviz.session.session import Session  # noqa: PLC0415

    session = Session.open(_load(lesson), settings=options.settings, seed=options.seed)
    if at is not None and session.go_to(at) != at:
        reason = "where a question waits" if session.question else "which is the last one"
        click.echo(f"virtviz: this is step {session.position}, {reason}", err=True)
    # Textual reads standard input and draws on standard error.
    on_terminal = all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
    on_terminal = on_terminal and os.environ.get("TERM") != "dumb"
    if plain or not on_terminal:
        _play_plain(session, options)
    else:
        from virtviz.ui.app import play  # noqa: PLC0415

        play(session, motion=options.motion, ascii=options.ascii_only, theme=options.theme or None)
    return FAILED if any(verdict.is_right is False for verdict in session.verdicts) else 0


def _play_plain(session: Session, options: Options) -> None:
    """Play as lines of text: in conversation on a terminal or with what is piped in, else straight through."""
    import shutil  # noqa: PLC0415

    from virtviz.session import plain  # noqa: PLC0415

    interactive = sys.stdin.isatty()
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    over = False

    def ask(prompt: str) -> str:
        """Ask; once the input has ended, go on by itself to the end, without answering anything."""
        nonlocal over
        if interactive:
            # `input` would write the prompt to standard error.
            sys.stdout.write(prompt)
            sys.stdout.flush()
            line = sys.stdin.readline()
            if not line:
                raise EOFError
            return line
        line = "" if over else sys.stdin.readline()
        over = over or not line
        if over:
            return "s" if session.question else ""
        return line

    plain.play(session, ask, _say, width, auto=_is_null(sys.stdin), ascii_only=options.ascii_only)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _is_null(stream: Any) -> bool:  # noqa: ANN401 - a stream, or what a test has put in its place
    """Say whether nothing can ever be read: a null device, which is a character device that is no terminal."""
    try:
        return stat.S_ISCHR(os.fstat(stream.fileno()).st_mode) and not stream.isatty()
    except (OSError, ValueError, AttributeError):
        return True


# Running one without a screen


@cli.command()
@lesson_argument
@click.option("--format", "form", type=click.Choice(["jsonl", "json", "table"]), default="jsonl", show_default=True)
@click.option("--packets", type=click.IntRange(min=1), metavar="N", help="Repeat the scenario until it has N packets.")
@click.option("--counters", is_flag=True, help="Record nothing, give the counters only; for long runs.")
@click.option(
    "--input",
    "source",
    metavar="F.pcap",
    type=click.Path(path_type=Path),
    help="Take the packets from a capture file instead of the scenario.",
)
@click.option(
    "--pcap", "captures", multiple=True, metavar="PLACE=F", help="Write what passed a place to a capture file."
)
@click.option("--profile", metavar="NAME", help="The profile to begin with: default or recorded.")
@click.option(
    "--progress/--no-progress",
    default=None,
    help="With --counters, say how far it is; without either, on a terminal only.",
)
@everywhere
@click.pass_obj
def run(
    options: Options,
    lesson: str,
    *,
    form: str,
    packets: int | None,
    counters: bool,
    source: Path | None,
    captures: tuple[str, ...],
    profile: str | None,
    progress: bool | None,
) -> int:
    """Run a lesson without a screen and write its trace.

    PLACE is a place or queue of the trace, or `wire`: what left the network card and what came in by it.
    """
    places = _captures(captures)
    if counters and places:
        raise click.UsageError(
            "--counters keeps no packets, so there is nothing for --pcap to write; leave one of them out"
        )
    from virtviz.export import headless  # noqa: PLC0415

    opened = _load(lesson)
    settings = [*([{"profile": profile}] if profile is not None else []), *options.settings]
    world, traffic = headless.world_and_traffic(opened, settings, packets, source)
    if packets is not None and traffic.packets != packets:
        one = traffic.rounds == 1
        rounds = f"{traffic.rounds} whole round{'' if one else 's'} of the scenario {'is' if one else 'are'}"
        click.echo(f"virtviz: {rounds} {traffic.packets} packets", err=True)
    if counters:
        totals = _count(opened, world, traffic, progress)
        _write_totals(totals, form)
        return 0
    _record(opened, world, traffic, options.seed, form, places, to_the_end=packets is not None)
    return 0


def _captures(given: tuple[str, ...]) -> list[tuple[str, str]]:
    """Take `PLACE=F` apart."""
    made: list[tuple[str, str]] = []
    for text in given:
        place, equals, path = text.partition("=")
        if not (place and equals and path):
            raise click.BadParameter(f"write PLACE=F, such as wire=out.pcap, not {text!r}", param_hint="'--pcap'")
        made.append((place, path))
    return made


def _record(
    opened: Lesson,
    world: World,
    traffic: Traffic,
    seed: int,
    form: str,
    places: list[tuple[str, str]],
    *,
    to_the_end: bool,
) -> None:
    """Run, and write the trace as it is gone through."""
    from virtviz.export.headless import find_places, recorded_steps, recorded_totals  # noqa: PLC0415
    from virtviz.export.jsonl import header_json, write_document, write_jsonl  # noqa: PLC0415
    from virtviz.export.table import write_counters, write_table  # noqa: PLC0415
    from virtviz.paths.describe import initial_state  # noqa: PLC0415
    from virtviz.paths.wiring import simulate  # noqa: PLC0415
    from virtviz.session.run import run_lesson  # noqa: PLC0415

    done = run_lesson(opened, simulate(world, traffic), seed)
    caught = find_places(done, [place for place, _ in places])
    steps = recorded_steps(done, to_the_end=to_the_end)
    if form == "table":
        write_table(sys.stdout, done.header, steps)
        totals = recorded_totals(done)
        sys.stdout.write("\n")
        write_counters(sys.stdout, totals.counters, totals.drops)
    else:
        write = write_jsonl if form == "jsonl" else write_document
        write(
            sys.stdout,
            header_json(done.header, initial_state(done.machine)),
            steps,
            lambda: recorded_totals(done).json(),
        )
    if done.truncated:
        click.echo(f"virtviz: the run is longer than {done.length} steps; it was ended there", err=True)
    for place, (_, path) in zip(caught, places, strict=True):
        from virtviz.paths.capture import frames_at, write_capture  # noqa: PLC0415

        write_capture(path, frames_at(done.simulation, done.trace, place))


def _count(opened: Lesson, world: World, traffic: Traffic, wanted: bool | None) -> Totals:  # noqa: FBT001 - one of three
    """Run without recording; say how far it is."""
    from virtviz.cli_progress import Progress  # noqa: PLC0415
    from virtviz.export.headless import counted_totals  # noqa: PLC0415

    progress = Progress(traffic.packets, "packets", wanted)
    begun = time.perf_counter()

    def report(steps: int, packets: int) -> None:
        nonlocal begun
        if not steps:
            begun = time.perf_counter()
        else:
            progress.show(packets, _rate(steps, time.perf_counter() - begun))

    totals = counted_totals(opened, world, traffic, report)
    progress.show(totals.packets, _rate(totals.steps, time.perf_counter() - begun), at_once=not progress.drawn_over)
    progress.clear()
    seconds = time.perf_counter() - begun
    click.echo(f"{totals.steps:,} steps in {seconds:.2f} s: {_rate(totals.steps, seconds)}", err=True)
    return totals


def _rate(steps: int, seconds: float) -> str:
    return f"{steps / max(seconds, 1e-9):,.0f} steps a second"


def _write_totals(totals: Totals, form: str) -> None:
    if form == "table":
        from virtviz.export.table import write_counters  # noqa: PLC0415

        write_counters(sys.stdout, totals.counters, totals.drops)
    else:
        sys.stdout.write(totals.json() + "\n")


cli.add_command(compare)

# The shelf, checking, schemas, settings


@cli.command("list")
@everywhere
def list_lessons() -> None:
    """List the lessons."""
    _print_shelf()


def _print_shelf() -> None:
    from virtviz.lesson.shelf import shelf  # noqa: PLC0415

    lessons = shelf()
    name = max((len(entry.id) for entry in lessons), default=0)
    level = max((len(entry.level) for entry in lessons), default=0)
    for entry in lessons:
        minutes = f"{entry.minutes:>3} min" if entry.minutes else ""
        click.echo(f"{entry.id:{name}}  {entry.level:{level}}  {minutes:7}  {entry.title}".rstrip())


@cli.command()
@click.argument("files", nargs=-1, required=True, metavar="F...", type=click.Path())
@everywhere
@click.pass_obj
def check(options: Options, files: tuple[str, ...]) -> int:
    """Check lesson files, then play them: does what they say happen?"""
    return max(_check(name, options) for name in files)


def _check(name: str, options: Options) -> int:
    """Check one file; answers its exit code. An invalid file counts for more than one that does not hold."""
    from virtviz.lesson.check import examine  # noqa: PLC0415
    from virtviz.session.session import Session  # noqa: PLC0415

    checked = examine(name)
    for found in checked.warnings:
        click.echo(str(Problem(found.line, found.column, found.where, f"advice: {found.what}", found.path)), err=True)
    for problem in checked.problems:
        click.echo(str(problem), err=True)
    if checked.problems or checked.reading is None:
        return INVALID
    session = Session.open(checked.reading.lesson, settings=options.settings, seed=options.seed)
    for finding in session.problems:
        click.echo(str(checked.at(finding.where, finding.what)), err=True)
    if session.problems:
        return FAILED
    asked = "1 question" if session.questions == 1 else f"{session.questions} questions"
    click.echo(f"{printable(name)}: fine; {session.length} steps, {asked}")
    return 0


@cli.command()
@click.argument("what", type=click.Choice(["trace", "lesson", "compare"]))
@everywhere
def schema(what: str) -> None:
    """Print the JSON Schema of traces, of lessons, or of comparisons."""
    import json  # noqa: PLC0415

    if what == "trace":
        from virtviz.export.schema import trace_schema as made  # noqa: PLC0415
    elif what == "compare":
        from virtviz.export.compared import comparison_schema as made  # noqa: PLC0415
    else:
        from virtviz.lesson.schema import lesson_schema as made  # noqa: PLC0415
    click.echo(json.dumps(made(), indent=2))


@cli.command()
@everywhere
def knobs() -> None:
    """List the settings of the simulated world, for --set."""
    from virtviz.paths.knobs import KNOBS, make_world  # noqa: PLC0415

    defaults = make_world().plain()
    for name, knob in KNOBS.items():
        value = defaults[name]
        shown = ",".join(value) if isinstance(value, list) else value
        click.echo(f"{name}={shown}\n    {knob.what}\n    {knob.allowed()[:1].upper()}{knob.allowed()[1:]}.")


cli.add_command(costs)

# Beginning and end


def _prepare_streams() -> None:
    """Write the same bytes everywhere, whatever the locale says; let nothing stand for a stream that was closed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - open to the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; answers the exit code."""
    gc.set_threshold(COLLECT_AFTER)
    # At the end everything goes at once, without being gone through for cycles again.
    atexit.register(gc.freeze)
    _prepare_streams()
    try:
        result = cli.main(args=arguments, prog_name="virtviz", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    except LessonError as error:
        click.echo(str(error), err=True)
        return INVALID
    except LearnerError as error:
        click.echo(f"virtviz: {error}", err=True)
        return USAGE
    except OSError as error:
        # Such as a full disk behind standard output.
        _drop_output()
        click.echo(f"virtviz: {error.strerror}", err=True)
        return FAILED
    return result if isinstance(result, int) else 0
