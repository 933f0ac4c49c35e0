"""The verb `compare`: several worlds side by side, all data paths in one table."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import click

from virtviz.cli_options import Options, complete_lesson, everywhere

if TYPE_CHECKING:
    from collections.abc import Sequence

    from click.shell_completion import CompletionItem

    from virtviz.study.subjects import Frames

FORMATS: Final = ("table", "json", "csv")


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
@click.option("--profile", metavar="NAME", help="The profile to begin with: default or recorded.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True)
@everywhere
@click.pass_obj
def compare(options: Options, /, worlds: tuple[str, ...], **said: Any) -> None:  # noqa: ANN401 - as click gives them
    """Compare data paths: the same packets in several worlds, crossing by crossing.

    A, B, C, D are data paths (vhost-net), settings (path=virtio-qemu,ioeventfd=off), or both
    (virtio-qemu,ioeventfd=off). Without --lesson, what is sent is one echo request and its answer, with flows known.
    The worlds are laid beside each other by the milestones of each packet. A lesson's script is not carried out: it may
    hold threads that another path does not have.
    """
    common = [*([{"profile": said["profile"]}] if said["profile"] is not None else []), *options.settings]
    if said["all_paths"]:
        if worlds or said["lesson"]:
            raise click.UsageError("--all-paths has worlds and packets of its own; leave the others out")
        _all_paths(common, said["form"])
        return
    _side_by_side(worlds, _frames(said["lesson"]), common, said["form"])


def _frames(lesson: str | None) -> Frames:
    from virtviz.study.subjects import Frames  # noqa: PLC0415 - as all below: a verb loads what it needs

    if lesson is None:
        return Frames()
    from virtviz.lesson.loader import load  # noqa: PLC0415
    from virtviz.lesson.shelf import find  # noqa: PLC0415

    return Frames(lesson=load(find(lesson)))


def _side_by_side(worlds: Sequence[str], frames: Frames, common: Sequence[dict[str, str]], form: str) -> None:
    from virtviz.study.compare import WORLDS_MAX, compare  # noqa: PLC0415
    from virtviz.study.subjects import read_subject  # noqa: PLC0415

    if not 2 <= len(worlds) <= WORLDS_MAX:
        raise click.UsageError(
            f"compare takes two to {WORLDS_MAX} worlds, such as: virtviz compare vhost-net virtio-qemu"
        )
    if form == "csv":
        raise click.UsageError("worlds side by side are a table or json; csv is for --all-paths")
    found = compare([read_subject(text) for text in worlds], frames, common)
    if form == "json":
        from virtviz.export.compared import comparison_json  # noqa: PLC0415

        click.echo(comparison_json(found))
    else:
        from virtviz.export.compared_table import write_comparison  # noqa: PLC0415

        write_comparison(sys.stdout, found, _columns())


def _columns() -> int | None:
    """Give the width of the terminal; None where there is none."""
    import shutil  # noqa: PLC0415

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


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
