"""What may be said with every verb of the command line, before the verb or after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click
from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.shell_completion import CompletionItem

Command = TypeVar("Command", bound="Callable[..., Any]")


class Options(Struct):
    """What may be said with every verb.

    Attributes:
        settings: knobs of the simulated world, as given, later ones over earlier ones.
        seed: written into the trace.
        motion: how much moves on the screen: `full`, `basic` or `none`.
        ascii_only: draw and say everything with ASCII characters.
        theme: name of the colours; empty for the usual ones.
        lang: language of the screen.
    """

    settings: list[dict[str, str]] = field(default_factory=list)
    seed: int = 0
    motion: str = "full"
    ascii_only: bool = False
    theme: str = ""
    lang: str = "en"


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:  # noqa: ANN401 - of every kind
    """Note an option that every verb has; said before the verb and after it, the later one counts."""
    options = context.ensure_object(Options)
    if parameter.name == "settings":
        from virtviz.paths.knobs import parse_setting  # noqa: PLC0415 - only where it is needed

        options.settings += [dict([parse_setting(text)]) for text in value]
    elif value is not None and parameter.name is not None:
        setattr(options, parameter.name, value)


def _complete_knob(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    from virtviz.paths.knobs import KNOBS  # noqa: PLC0415 - only where it is needed

    return [f"{name}=" for name in KNOBS if name.startswith(incomplete)]


def complete_lesson(
    context: click.Context,  # noqa: ARG001
    parameter: click.Parameter,  # noqa: ARG001
    incomplete: str,
) -> list[CompletionItem]:
    """Offer the lessons of the shelf; what begins like none of them is the path of a file, which the shell knows."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - only where it is needed

    from virtviz.resources import data_folder  # noqa: PLC0415

    names = sorted(path.stem for path in data_folder("lessons").glob("*.yaml"))
    fit = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return fit or [CompletionItem(incomplete, type="file")]


def everywhere(command: Command) -> Command:
    """Add the options that every verb has."""
    kept: dict[str, Any] = {"expose_value": False, "callback": _keep}
    for option in (
        click.option("--lang", type=click.Choice(["en"]), help="Language of the screen.", **kept),
        click.option("--theme", metavar="NAME", help="Colours of the screen: dark, light, ...", **kept),
        click.option("--ascii", "ascii_only", is_flag=True, default=None, help="Use ASCII characters only.", **kept),
        click.option(
            "--motion", type=click.Choice(["full", "basic", "none"]), help="How much moves on the screen.", **kept
        ),
        click.option("--seed", type=int, metavar="N", help="A number that is written into the trace.", **kept),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="KNOB=VALUE",
            shell_complete=_complete_knob,
            help="Change a setting of the simulated world; `virtviz knobs` lists them.",
            **kept,
        ),
    ):
        command = option(command)
    return command


lesson_argument = click.argument("lesson", shell_complete=complete_lesson)
"""The lesson that most verbs are about."""
