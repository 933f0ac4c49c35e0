"""The player: a lesson on the screen.

What there is to see is the session's position; the board draws it, and the application sends it to the terminal, a tile
at a time. Keys, mouse and palette lead to the same actions; moving asks the session, which knows where questions stop
the way. Nothing here computes anything about the machine.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar, Final

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.reactive import Reactive

from virtviz.errors import LearnerError
from virtviz.ui.board import Board
from virtviz.ui.canvas import Tile
from virtviz.ui.commands import COMMANDS
from virtviz.ui.draw.question import MOST_ROWS
from virtviz.ui.draw.stage import Glide
from virtviz.ui.palette import DARK, PLAIN_THEME, SHORT_NAMES, THEMES, palette_for
from virtviz.view.build import fold_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from textual import events
    from textual.app import ComposeResult
    from textual.screen import Screen
    from textual.timer import Timer

    from virtviz.session.session import Session
    from virtviz.view.stage import Point

SPEEDS: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Steps a second while it plays."""
GLIDE_FRAMES_A_SECOND: Final = 15
GLIDE_SECONDS: Final = 0.4
GLIDE_CELLS: Final = 4
"""Cells from one picture of a glide to the next, at least: on a short way there are fewer pictures."""
GLIDE_LEAST_CELLS: Final = 3
SCROLL_ROWS: Final = 6
"""Rows of a long question by which a page is further."""
WHEN_TOO_SMALL: Final = frozenset({"quit", "help_quit"})
"""What can be done on a screen that is too small to see what it does."""
OWN_PLACES: Final = {
    "ledger": "The ledger is at the right",
    "lanes": "The thread lanes are below",
    "sources": "The sources are below",
}
"""What a large screen shows beside the ring, and where."""
EAGER_STEPS: Final = 4096
"""Longer runs have marks on the track only for what somebody has been to."""


def _bindings() -> list[BindingType]:
    """Make the bindings from the list of commands, and those of the answers."""
    made: list[BindingType] = [
        Binding(c.keys, c.action, c.title, show=False, tooltip=c.help, id=c.name)
        for c in COMMANDS
        if c.action != "command_palette"
    ]
    return made + [Binding(str(i), f"answer({i - 1})", f"Answer {i}", show=False, id=f"answer-{i}") for i in range(10)]


class Player(App[None]):
    """A lesson on the screen.

    Args:
        session: the lesson, opened.
        motion: `full`, `basic` or `none`; less if Textual has been asked for less.
        plain: draw with ASCII characters only.
        theme: a theme's name; None for the dark one, or for none where there are no colours.

    Raises:
        LearnerError: there is no such theme.
    """

    CSS: ClassVar[str] = "Screen { overflow: hidden; }"
    TITLE = "virtviz"
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+p"
    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = _bindings()

    def __init__(
        self, session: Session, *, motion: str = "full", plain: bool = False, theme: str | None = None
    ) -> None:
        super().__init__()
        self.session = session
        self.plain = plain
        self.motion = min(motion, self.animation_level, key=("none", "basic", "full").index)
        if self.motion == "none":
            self.animation_level = "none"
        for made in THEMES.values():
            self.register_theme(made)
        theme = SHORT_NAMES.get(theme, theme) if theme is not None else None
        if theme is not None and theme not in self.available_themes:
            names = ", ".join([*SHORT_NAMES, *self.available_themes])
            raise LearnerError(f"there is no theme {theme!r}; there is {names}")
        if not self.no_color:
            self.theme = theme or DARK
        self.palette = palette_for(self.current_theme, coloured=not self.no_color)
        self.board = Board(session)
        self._tiles: list[Tile] = []
        self._speed = 2
        self._playing: Timer | None = None
        self._gliding: Timer | None = None
        self._glider = 0
        self._route: Sequence[Point] = ()

    def compose(self) -> ComposeResult:
        """Give the tiles of a screen of the present size."""
        yield from self._lay_out(*self.size)

    def on_mount(self) -> None:
        """Listen to changes of the theme, and look ahead once the first frame is there."""
        self.theme_changed_signal.subscribe(self, self._recolour)
        if self.session.length <= EAGER_STEPS:
            self.call_after_refresh(self._look_ahead)

    def _look_ahead(self) -> None:
        """Go over the whole run, so that the track can show what lies ahead, and work out the questions' answers."""
        fold_of(self.session).at(self.session.length)
        self.show()
        _ = self.session.problems

    # The screen

    async def on_resize(self, event: events.Resize) -> None:
        """Lay everything out anew."""
        if event.size != (self.board.grid.width, self.board.grid.height):
            await self.screen_stack[0].mount(*self._lay_out(*event.size))
        if self.board.too_small:
            self._stop_playing()
            while len(self.screen_stack) > 1:
                self.pop_screen()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Let nothing be done unseen: a screen that is too small can only be made larger, or left."""
        if self.board.too_small and action not in WHEN_TOO_SMALL:
            return False
        return super().check_action(action, parameters)

    def _lay_out(self, width: int, height: int) -> list[Tile]:
        """Plan the screen for a size; answers the tiles that are new."""
        self._stop_gliding()
        rects = self.board.lay_out(width, height)
        new = [Tile(rect) for rect in rects[len(self._tiles) :]]
        for tile, rect in zip(self._tiles, rects, strict=False):
            tile.place(rect)
        self._tiles += new
        for i, tile in enumerate(self._tiles):
            tile.display = i < len(rects)
        self.show()
        return new

    def show(self, *, glide: bool = False) -> None:
        """Draw the present position, and send what differs in one go.

        Args:
            glide: let the packet that the step moved go its way.
        """
        self.board.playing = f"{SPEEDS[self._speed]:g}/s" if self._playing else ""
        self.board.draw()
        if glide:
            self._start_gliding()
        self._send()

    def _send(self) -> None:
        with self.batch_update():
            for tile in self._tiles:
                if tile.display:
                    tile.show(self.board.grid, self.palette, plain=self.plain)

    def _tell(self, message: str) -> None:
        """Say something in the last row, until the next thing happens."""
        self.board.message = message
        self.show()
        self.board.message = ""

    def _recolour(self, _: object) -> None:
        """Another theme was chosen."""
        self.palette = palette_for(self.current_theme, coloured=not self.no_color)
        for tile in self._tiles:
            tile.forget()
        self.show()

    # Going

    def _arrive(self, *, glide: bool = False) -> None:
        """Show where we are now, or say why we are still here."""
        board, session = self.board, self.session
        before = board.frame
        if before is None or before.position != session.position:
            board.settle()
            self._stop_gliding()
            self.show(glide=glide and self.motion == "full")
            return
        self._stop_playing()
        if session.question is not None:
            board.aside = False
            self._tell("The question comes first.")

    def _go(self, move: Callable[[], object]) -> None:
        self._stop_playing()
        move()
        self._arrive()

    def action_next(self) -> None:
        """Go one step further."""
        self.session.next()
        self._arrive(glide=True)

    def action_step_back(self) -> None:
        """Go one step back."""
        self._go(self.session.back)

    def action_home(self) -> None:
        """Go to the beginning."""
        self._go(self.session.home)

    def action_end(self) -> None:
        """Go to the end, or to the next question."""
        self._go(self.session.end)

    def action_seek(self, position: int) -> None:
        """Go to a position, or to the first question on the way."""
        self._go(lambda: self.session.go_to(max(0, min(position, self.session.length))))

    def action_seek_from(self, first: int, more: int) -> None:
        """Go to a step by its place in the lanes."""
        self.action_seek(first + more)

    def action_part(self, part: int, whole: int) -> None:
        """Go to a position by its place on the track."""
        self.action_seek(-(-part * self.session.length // whole))

    def action_crossing(self, way: int) -> None:
        """Go to the next or previous crossing."""
        self._go(self.session.next_crossing if way > 0 else self.session.previous_crossing)

    def action_milestone(self, way: int) -> None:
        """Go to the next or previous milestone."""
        self._go(self.session.next_milestone if way > 0 else self.session.previous_milestone)

    def action_notification(self, way: int) -> None:
        """Go to the next or previous notification."""
        self._go(self.session.next_notification if way > 0 else self.session.previous_notification)

    def action_goto(self) -> None:
        """Ask for the number of a step."""
        from virtviz.ui.screens import GoTo  # noqa: PLC0415 - not before the first frame

        def gone(position: int | None) -> None:
            if position is not None:
                self.action_seek(position)

        self._stop_playing()
        self.push_screen(GoTo(self.session.position, self.session.length, plain=self.plain), gone)

    # Playing

    def action_play(self) -> None:
        """Play, or pause; on an answered question, go on."""
        if self._playing is not None:
            self._stop_playing()
        elif self.motion == "none":
            self._tell("Motion is off: go on with → instead.")
        else:
            self._playing = self.set_interval(1 / SPEEDS[self._speed], self.action_next)
            self.action_next()

    def action_speed(self, way: int) -> None:
        """Play faster or slower."""
        self._speed = max(0, min(self._speed + way, len(SPEEDS) - 1))
        if self._playing is not None:
            self._playing.stop()
            self._playing = self.set_interval(1 / SPEEDS[self._speed], self.action_next)
        self._tell(f"{SPEEDS[self._speed]:g} steps a second")

    def _stop_playing(self) -> None:
        if self._playing is not None:
            self._playing.stop()
            self._playing = None
            self.show()

    def _start_gliding(self) -> None:
        """Let the packet that the step moved go its way over the stage, and draw the first picture of it."""
        frame, stage = self.board.frame, self.board.stage
        moved = next((p for p in frame.packets if p.came_from), None) if frame is not None else None
        if moved is None or stage is None:
            return
        source, target = stage.packet_spot(moved.came_from), stage.packet_spot(moved.where)
        route = stage.route(source.name, target.name) if source is not None and target is not None else ()
        if len(route) < GLIDE_LEAST_CELLS:
            return
        seconds = min(GLIDE_SECONDS, 0.7 / SPEEDS[self._speed]) if self._playing else GLIDE_SECONDS
        pictures = max(min(int(seconds * GLIDE_FRAMES_A_SECOND), len(route) // GLIDE_CELLS), 1)
        self._route = [route[(i + 1) * (len(route) - 1) // (pictures + 1)] for i in range(pictures)]
        self._glider = moved.number
        self._gliding = self.set_interval(1 / GLIDE_FRAMES_A_SECOND, self._glide_on)
        self._draw_glide()

    def _glide_on(self) -> None:
        """Show the next picture of a glide, or the packet where it has arrived."""
        self._draw_glide()
        self._send()

    def _draw_glide(self) -> None:
        if self._route:
            at, *self._route = self._route
            self.board.draw_stage(Glide(self._glider, at))
        else:
            self._stop_gliding()
            self.board.draw_stage()

    def _stop_gliding(self) -> None:
        self._route = ()
        if self._gliding is not None:
            self._gliding.stop()
            self._gliding = None

    # Questions

    def action_answer(self, choice: int) -> None:
        """Answer the open question; -1 stands for not sure yet."""
        question = self.session.question
        if question is None or choice >= len(question.options):
            return
        self.session.answer(None if choice < 0 else choice)
        self.board.answered = question.id
        self.board.aside = False
        self.board.scroll = 0
        self.show()

    def action_hint(self) -> None:
        """Show one hint more."""
        question = self.session.question
        if question is None:
            return
        if self.board.hints < len(question.hints):
            self.board.hints += 1
            self.board.aside = False
            # Hints are at the end; what is too far is brought back by drawing.
            self.board.scroll = MOST_ROWS
            self.show()
        else:
            self._tell("There are no more hints.")

    def action_predict(self) -> None:
        """Put the question aside, or show it again."""
        if self.board.asking is None:
            self._tell("No question is open here.")
        else:
            self.board.aside = not self.board.aside
            self.show()

    def action_scroll(self, rows: int) -> None:
        """Move a question that is longer than its panel."""
        board = self.board
        if not board.scroll_most:
            self._tell("Nothing is hidden here.")
            return
        board.scroll += rows
        self.show()

    def action_scroll_page(self, way: int) -> None:
        """Move a question that is longer than its panel, by many rows."""
        self.action_scroll(way * SCROLL_ROWS)

    # Panels

    def action_ring(self) -> None:
        """Show the ring; pressed again, stay with one queue or follow the action."""
        board = self.board
        if board.panel == "ring":
            outgoing_first = sorted(self.session.header.queues, key=lambda queue: queue.direction != "out")
            names = [None, *(queue.name for queue in outgoing_first)]
            board.queue = names[(names.index(board.queue) + 1) % len(names)]
        board.panel = "ring"
        self._tell(f"Showing {board.queue}." if board.queue else "Following the action.")

    def action_queue(self, name: str) -> None:
        """Stay with the ring of a queue, or follow the action again."""
        self.board.queue = None if self.board.queue == name else name
        self.board.panel = "ring"
        self._tell(f"Showing {name}." if self.board.queue else "Following the action.")

    def action_panel(self, name: str) -> None:
        """Put a panel in the ring's place, or the ring back."""
        if self.board.has_own_place(name):
            self.board.panel = "ring"
            self._tell(f"{OWN_PLACES[name]} anyway.")
            return
        self.board.panel = "ring" if self.board.panel == name else name
        self.show()

    def action_help_quit(self) -> None:
        """Leave at Ctrl+C, as programs do, where Textual would only say how to leave."""
        self.exit()

    def action_help(self) -> None:
        """Show all keys and what the signs mean."""
        from virtviz.ui.screens import Help  # noqa: PLC0415 - not before the first frame

        self._stop_playing()
        self.push_screen(Help(plain=self.plain))

    # Mouse and palette

    async def on_tile_clicked(self, event: Tile.Clicked) -> None:
        """Do what was clicked."""
        action = self.board.action_at(event.x, event.y)
        if action:
            await self.run_action(action)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Give everything that can be done to the command palette."""
        del screen
        for command in COMMANDS:
            if command.action != "command_palette":
                yield SystemCommand(f"{command.title} ({command.shown})", command.help, self._later(command.action))
        yield SystemCommand("Theme", "Choose other colours.", self.action_change_theme)

    def _later(self, action: str) -> Callable[[], None]:
        """Give a function that carries an action out when the palette has gone."""

        def run() -> None:
            self.call_later(self.run_action, action)

        return run


class PlainPlayer(Player):
    """The player for terminals without colours: its theme is without any from Textual's own initialisation on."""

    theme: Reactive[str] = Reactive(PLAIN_THEME)


def make_player(session: Session, *, motion: str = "full", plain: bool = False, theme: str | None = None) -> Player:
    """Make the application that is right for the terminal.

    Where `NO_COLOR` is set, the theme must be one without colours before Textual initialises itself, because it chooses
    then how to take colours away.
    """
    made = PlainPlayer if "NO_COLOR" in os.environ else Player
    return made(session, motion=motion, plain=plain, theme=theme)


def play(
    session: Session,
    *,
    at: int = 0,
    motion: str = "full",
    ascii: bool = False,  # noqa: A002 - the option's name
    theme: str | None = None,
) -> int:
    """Play a lesson until the learner leaves it; answers the exit code.

    Args:
        session: the lesson, opened.
        at: the step to begin at, or the first question before it.
        motion: `full`, `basic` or `none`; `TEXTUAL_ANIMATIONS` can ask for less.
        ascii: draw with ASCII characters only.
        theme: a theme's name; None for the dark one.
    """
    if at:
        session.go_to(at)
    app = make_player(session, motion=motion, plain=ascii, theme=theme)
    app.run()
    return app.return_code or 0
