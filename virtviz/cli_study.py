"""The verbs `compare` and `costs`: worlds side by side, in one table, in simulated time, or over settings."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import click
from msgspec import Struct

from virtviz.cli_options import Options, complete_lesson, everywhere

if TYPE_CHECKING:
    from collections.abc import Sequence

    from click.shell_completion import CompletionItem

    from virtviz.study.subjects import Frames, Subject

FORMATS: Final = ("table", "json", "csv")
BURST: Final = 32
PACKETS: Final = 512
"""What is sent in a sweep, and by `--time`, where nothing else is said: bursts of so many packets, so many in all."""


class _Said(Struct, frozen=True):
    """What was said on the command line of `compare`."""

    worlds: tuple[str, ...]
    lesson: str | None
    all_paths: bool
    sweep: tuple[str, ...]
    by_time: bool
    burst: int | None
    packets: int | None
    show: str | None
    jobs: int | None
    cluster: str | None
    progress: bool | None
    profile: str | None
    form: str


def _complete_world(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - only where it is needed

    from virtviz.paths.knobs import KNOBS  # noqa: PLC0415

    return [CompletionItem(name) for name in KNOBS["path"].choices if name.startswith(incomplete)]


@click.command()
@click.argument("worlds", nargs=-1, metavar="A B [C D]", shell_complete=_complete_world)
@click.option(
    "--lesson",
    metavar="LESSON",
    shell_complete=complete_lesson,
    help="Compare with a lesson's world and packets instead of an echo and its answer.",
)
@click.option("--all-paths", is_flag=True, help="One packet on every path there is, in one table.")
@click.option("--time", "by_time", is_flag=True, help="Rates, delays and busy threads in simulated time.")
@click.option(
    "--sweep",
    multiple=True,
    metavar="KNOB=V1,V2,...",
    help="Run every combination of values; repeatable. `burst` is the number of packets sent at once.",
)
@click.option("--show", metavar="NAME,...", help="Figures of a sweep to show; the first one is plotted.")
@click.option("--burst", type=click.IntRange(min=1), metavar="N", help="Send bursts of N packets instead.")
@click.option("--packets", type=click.IntRange(min=1), metavar="N", help="Repeat what is sent until it is N packets.")
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Processes for a sweep; as many as cores.")
@click.option("--cluster", metavar="ADDRESS", help="Run a sweep on a Dask cluster, such as tcp://127.0.0.1:8786.")
@click.option("--progress/--no-progress", default=None, help="Say how far a sweep is; else on a terminal only.")
@click.option("--profile", metavar="NAME", help="The profile to begin with: default or recorded.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True)
@everywhere
@click.pass_obj
def compare(options: Options, /, **said: Any) -> None:  # noqa: ANN401 - as click gives them
    """Compare data paths: the same packets in several worlds, crossing by crossing.

    A, B, C, D are data paths (vhost-net), settings (path=virtio-qemu,ioeventfd=off), or both
    (virtio-qemu,ioeventfd=off). Without --lesson, what is sent is one echo request and its answer, with flows known;
    in a sweep, and with --time, bursts of UDP packets. The worlds are laid beside each other by the milestones of each
    packet. A lesson's script is not carried out: it may hold threads that another path does not have.
    """
    asked = _Said(**said)
    common = [*([{"profile": asked.profile}] if asked.profile is not None else []), *options.settings]
    _refuse_what_does_not_go_together(asked)
    if asked.all_paths:
        _all_paths(common, asked.form)
    elif asked.sweep:
        _sweep(asked, common, ascii_only=options.ascii_only)
    elif asked.by_time:
        _by_time(asked, common)
    else:
        _side_by_side(asked, common)


def _refuse_what_does_not_go_together(asked: _Said) -> None:
    """Say which of several options has to go."""
    from virtviz.study.compare import WORLDS_MAX  # noqa: PLC0415 - as all below: a verb loads what it needs

    if asked.all_paths and (asked.worlds or asked.lesson or asked.sweep or asked.by_time or asked.burst):
        raise click.UsageError("--all-paths has worlds and packets of its own; leave the others out")
    if asked.lesson and (asked.burst or any(axis.startswith("burst=") for axis in asked.sweep)):
        raise click.UsageError("a lesson has packets of its own, and a burst would take their place; leave one out")
    if not asked.sweep:
        for name in ("show", "jobs", "cluster", "progress"):
            if getattr(asked, name) is not None:
                raise click.UsageError(f"--{name} is for --sweep; say what to vary, such as --sweep burst=1,2,4,8")
    if asked.jobs is not None and asked.cluster is not None:
        raise click.UsageError("a sweep runs here (--jobs) or on a cluster (--cluster); leave one of them out")
    if asked.form == "csv" and not (asked.all_paths or asked.sweep):
        raise click.UsageError("csv is for --all-paths and --sweep; worlds side by side are a table or json")
    least = 0 if asked.all_paths or asked.sweep else 1 if asked.by_time else 2
    if not least <= len(asked.worlds) <= WORLDS_MAX:
        number = {0: "up to", 1: "one to", 2: "two to"}[least]
        raise click.UsageError(
            f"compare takes {number} {WORLDS_MAX} worlds, such as: virtviz compare vhost-net virtio-qemu"
        )


def _subjects(asked: _Said) -> list[Subject]:
    from virtviz.study.subjects import read_subject  # noqa: PLC0415

    return [read_subject(text) for text in asked.worlds]


def _frames(asked: _Said, *, bursts: bool) -> Frames:
    """Say what is sent; where nothing is said of it, bursts or an echo and its answer."""
    from virtviz.study.subjects import Frames  # noqa: PLC0415

    if asked.lesson is not None:
        from virtviz.lesson.loader import load  # noqa: PLC0415
        from virtviz.lesson.shelf import find  # noqa: PLC0415

        return Frames(lesson=load(find(asked.lesson)), packets=asked.packets or 0)
    if asked.burst is None and not bursts:
        return Frames(packets=asked.packets or 0)
    burst = asked.burst or BURST
    return Frames(packets=asked.packets or (PACKETS if bursts else burst), burst=burst)


def _columns() -> int | None:
    """Give the width of the terminal; None where there is none."""
    import shutil  # noqa: PLC0415

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _side_by_side(asked: _Said, common: Sequence[dict[str, str]]) -> None:
    from virtviz.study.compare import compare  # noqa: PLC0415

    found = compare(_subjects(asked), _frames(asked, bursts=False), common)
    if asked.form == "json":
        from virtviz.export.compared import comparison_json  # noqa: PLC0415

        click.echo(comparison_json(found))
    else:
        from virtviz.export.compared_table import write_comparison  # noqa: PLC0415

        write_comparison(sys.stdout, found, _columns())


def _all_paths(common: Sequence[dict[str, str]], form: str) -> None:
    from virtviz.export import all_paths as export  # noqa: PLC0415
    from virtviz.paths.knobs import make_world  # noqa: PLC0415
    from virtviz.study.all_paths import all_paths  # noqa: PLC0415

    profile = make_world(*common).profile
    costs = all_paths(common)
    if form == "table":
        export.write_all_paths_table(sys.stdout, costs, profile)
    elif form == "csv":
        export.write_all_paths_csv(sys.stdout, costs)
    else:
        click.echo(export.all_paths_json(costs, profile))


def _by_time(asked: _Said, common: Sequence[dict[str, str]]) -> None:
    from virtviz.export.timing import timing_json, write_timing_table  # noqa: PLC0415
    from virtviz.study.timing import measure  # noqa: PLC0415

    frames = _frames(asked, bursts=True)
    found = [measure(subject, frames, common) for subject in _subjects(asked)]
    if asked.form == "json":
        click.echo(timing_json(found))
    else:
        write_timing_table(sys.stdout, found, _columns())


def _sweep(asked: _Said, common: Sequence[dict[str, str]], *, ascii_only: bool) -> None:
    from virtviz.cli_progress import Progress  # noqa: PLC0415
    from virtviz.export import swept  # noqa: PLC0415
    from virtviz.study.jobs import cores, run_all  # noqa: PLC0415
    from virtviz.study.metrics import METRICS, SHOWN, find_metric  # noqa: PLC0415
    from virtviz.study.sweep import grid, read_axis  # noqa: PLC0415

    shown = [find_metric(name.strip()) for name in asked.show.split(",")] if asked.show else list(SHOWN)
    timed = asked.by_time or any(METRICS[name].timed for name in shown)
    axes = [read_axis(text) for text in asked.sweep]
    points = grid(_subjects(asked), axes, _frames(asked, bursts=True), common, timed=timed)
    progress = Progress(len(points), "runs", asked.progress)
    try:
        results = run_all(points, asked.jobs or cores(), asked.cluster, progress.show)
        progress.show(len(points), at_once=not progress.drawn_over)
    finally:
        progress.clear()
    if asked.form == "csv":
        swept.write_sweep_csv(sys.stdout, points, results)
    elif asked.form == "json":
        click.echo(swept.sweep_json(points, results))
    else:
        swept.write_sweep_table(sys.stdout, points, results, shown, _columns(), ascii_only=ascii_only)


@click.command()
@click.argument("profile", required=False, metavar="[PROFILE]")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@everywhere
@click.pass_obj
def costs(options: Options, /, profile: str | None, form: str) -> None:
    """Show what operations are assumed to cost in simulated time, and where each figure comes from.

    PROFILE is the name of one that comes with virtviz, or the path of a .toml file; without it, that of the world.
    """
    from virtviz.export.costs import costs_json, write_costs  # noqa: PLC0415
    from virtviz.paths.costs import load_costs  # noqa: PLC0415
    from virtviz.paths.knobs import make_world  # noqa: PLC0415

    world = make_world(*options.settings, {} if profile is None else {"costs": profile})
    found = load_costs(world.word("costs"))
    if form == "json":
        click.echo(costs_json(found))
    else:
        write_costs(sys.stdout, found, _columns())
