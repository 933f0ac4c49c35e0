"""The player: a lesson on the screen.

The application owns one fact, the session's position; everything on screen is drawn from the frame of that position. Moving asks the session,
which knows where questions stop the way; drawing replaces the content of a few canvases, which send what differs. Nothing here computes anything
about the machine.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar, Final

from textual.app import App, SystemCommand
from textual.binding import Binding

from virtviz.ui.canvas import Tile
from virtviz.ui.commands import COMMANDS
from virtviz.ui.draw.lists import draw_lanes, draw_ledger, draw_sources, lane_columns
from virtviz.ui.draw.panels import draw_counters, draw_hints, draw_sentence, draw_title, draw_track, draw_who
from virtviz.ui.draw.question import Asking, draw_question
from virtviz.ui.draw.ring import draw_ring, slots_for
from virtviz.ui.draw.stage import Glide, draw_stage
from virtviz.ui.grid import Grid
from virtviz.ui.palette import DARK, PLAIN_THEME, THEMES, palette_for
from virtviz.ui.plan import LEAST_HEIGHT, LEAST_WIDTH, Rect, make_plan, make_tiles
from virtviz.view.build import fold_of, make_frame
from virtviz.view.lanes import make_lanes
from virtviz.view.stage_plan import make_stage
from virtviz.view.track import Track

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from textual import events
    from textual.app import ComposeResult
    from textual.screen import Screen
    from textual.timer import Timer

    from virtviz.session.session import Session
    from virtviz.ui.canvas import Zone
    from virtviz.view.frame import Frame
    from virtviz.view.stage import Point, Stage

PANELS: Final = ("ring", "counters", "who", "sentence", "lanes", "ledger", "sources")
SPEEDS: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Steps a second while it plays."""
GLIDE_FRAMES_A_SECOND: Final = 15
GLIDE_SECONDS: Final = 0.4
EAGER_STEPS: Final = 4096
"""Longer runs have marks on the track only for what somebody has been to."""


class Player(App[None]):
    """A lesson on the screen.

    Args:
        session: the lesson, opened.
        motion: `full`, `basic` or `none`.
        plain: draw with ASCII characters only.
        theme: a theme's name; None for the dark one.
    """

    CSS: ClassVar[str] = "Screen { overflow: hidden; }"
    TITLE = "virtviz"
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+p"
    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[Binding]] = [
        Binding(c.keys, c.action, c.title, show=False, tooltip=c.help, id=c.action.partition("(")[0] + c.shown[:1])
        for c in COMMANDS
        if c.action != "command_palette"
    ] + [Binding(str(i), f"answer({i - 1})", f"Answer {i}", show=False, id=f"answer{i}") for i in range(10)]

    def __init__(
        self, session: Session, *, motion: str = "full", plain: bool = False, theme: str | None = None
    ) -> None:
        self._coloured = "NO_COLOR" not in os.environ
        super().__init__()
        self.session = session
        self.plain = plain
        self.motion = motion if self.animation_level == "full" else self.animation_level
        self.animation_level = "none" if self.motion == "none" else self.animation_level
        for made in THEMES.values():
            self.register_theme(made)
        if self._coloured:
            self.theme = theme or DARK
        self.palette = palette_for(self.current_theme, coloured=self._coloured)
        self._tiles: list[Tile] = []
        self._grid = Grid(0, 0)
        self._zones: list[Zone] = []
        self._plan: Mapping[str, Rect] = {}
        self._stage: Stage | None = None
        self._frame: Frame | None = None
        self._queue: str | None = None
        self._panel = "ring"
        self._hints = 0
        self._aside = False
        self._just_answered = ""
        self._message = ""
        self._speed = 2
        self._playing: Timer | None = None
        self._gliding: Timer | None = None
        self._route: Sequence[Point] = ()
        self._glide: Glide | None = None
        self._question_at = {m.position: m.id for m in session.run.moments if m.predict is not None}
        self._order = [m.id for m in session.run.moments if m.predict is not None]

    def compose(self) -> ComposeResult:
        """Give the tiles of a screen of the present size."""
        self._lay_out(*self.size)
        yield from self._tiles

    def on_mount(self) -> None:
        """Listen to changes of the theme, and look for the track's marks once the first frame is there."""
        self.theme_changed_signal.subscribe(self, self._recolour)
        if self.session.length <= EAGER_STEPS:
            self.call_after_refresh(self._look_ahead)

    def _look_ahead(self) -> None:
        """Go over the whole run, so that the track can show what lies ahead."""
        fold_of(self.session).at(self.session.length)
        self.show()

    # Layout

    async def on_resize(self, event: events.Resize) -> None:
        """Lay everything out anew."""
        if event.size != (self._grid.width, self._grid.height):
            new = self._lay_out(*event.size)
            await self.screen.mount(*new)

    def _lay_out(self, width: int, height: int) -> list[Tile]:
        """Plan the screen for a size; answers the tiles that are new."""
        self._stop_gliding()
        self._plan = plan = make_plan(width, height)
        if plan:
            self._stage = stage = make_stage(self.session.header, plan["stage"].width, plan["stage"].height)
            rects = make_tiles(plan, stage, width, height)
        else:
            rects = [Rect(0, 0, width, height)]
        new = [Tile(rect) for rect in rects[len(self._tiles) :]]
        for tile, rect in zip(self._tiles, rects, strict=False):
            tile.place(rect)
        self._tiles += new
        for i, tile in enumerate(self._tiles):
            tile.display = i < len(rects)
        self._grid = Grid(width, height)
        self.show()
        return new

    # Drawing

    def show(self) -> None:
        """Draw the present position, everything in one go."""
        plan, session = self._plan, self.session
        self._grid = Grid(self._grid.width, self._grid.height)
        self._zones = []
        if not plan:
            self._draw_too_small()
            self._send()
            return
        ring = plan["ring"]
        self._frame = frame = make_frame(session, session.position, self._queue, slots_for(ring.width, ring.height))
        self._put("title", draw_title(frame, session.lesson.id, session.lesson.title, plan["title"].width))
        self._draw_stage()
        for name in PANELS:
            if name in plan:
                self._put(name, *self._panel_grid(self._panel if name == "ring" else name, plan[name]))
        self._draw_question(plan["stage"].y + plan["stage"].height, plan["track"].y)
        self._draw_track()
        self._draw_hints()
        self._send()

    def _put(self, name: str, grid: Grid, zones: Sequence[Zone] = ()) -> None:
        """Put a panel's grid in its place."""
        rect = self._plan[name]
        self._grid.blit(grid, rect.x, rect.y)
        self._zones += ((x + rect.x, y + rect.y, width, action) for x, y, width, action in zones)

    def _send(self) -> None:
        """Let every tile take what belongs to it."""
        with self.batch_update():
            for tile in self._tiles:
                if tile.display:
                    tile.show(self._grid, self.palette, plain=self.plain)

    def _draw_too_small(self) -> None:
        """Say what is needed, in whatever room there is."""
        grid = self._grid
        lines = (
            f"This needs {LEAST_WIDTH}x{LEAST_HEIGHT};",
            f"here are {grid.width}x{grid.height}.",
            "Make it larger, or press q.",
        )
        for y, line in enumerate(lines):
            grid.put(0, y, line)

    def _draw_stage(self) -> None:
        if self._stage is not None and self._frame is not None:
            self._put("stage", draw_stage(self._stage, self._frame, self._glide))

    def _draw_question(self, top: int, bottom: int) -> None:
        """Lay the question over the lower part of the screen, if there is one."""
        asking = self._asking()
        if asking is None or self._aside:
            return
        grid, zones, rows = draw_question(asking, self._grid.width, bottom - top)
        start = max(bottom - rows, top)
        self._grid.blit(grid.top(rows), 0, start)
        self._zones = [zone for zone in self._zones if zone[1] < start]
        self._zones += ((x, y + start, width, action) for x, y, width, action in zones)

    def _aside_text(self) -> str:
        """Say what can be done where there is no step to tell about, or nothing more to come."""
        session = self.session
        if session.position == 0:
            return "Press → for the first step, Enter to let it play, ? for help."
        if session.position < session.length:
            return ""
        score = session.score
        answers = f" {score.right} of {score.asked} answers were right." if score.asked else ""
        return f"This is the end.{answers} Home begins again."

    def _panel_grid(self, panel: str, rect: Rect) -> tuple[Grid, Sequence[Zone]]:
        """Draw one panel of the body."""
        frame, session = self._frame, self.session
        assert frame is not None
        width, height, position = rect.width, rect.height, session.position
        match panel:
            case "ring":
                return draw_ring(frame, width, height), ()
            case "counters":
                return draw_counters(frame, width, height), ()
            case "who":
                return draw_who(frame, width), ()
            case "sentence":
                return draw_sentence(frame, session.said, width, height, self._aside_text()), ()
            case "lanes":
                return draw_lanes(make_lanes(session, position, lane_columns(width)), position, width, height)
            case "ledger":
                fold = fold_of(session)
                count = fold.at(position).ledger
                return draw_ledger(fold.ledger[max(0, count - height) : count], count, position, width, height)
            case _:
                return draw_sources(frame, width, height), ()

    def _asking(self) -> Asking | None:
        """Give the question to show: the open one here, or the one that was just answered here."""
        session = self.session
        question = session.question
        if question is not None:
            number = self._order.index(question.id) + 1
            said = "\n".join(moment.say for moment in session.moments(session.position) if moment.say)
            return Asking(question, number, session.questions, self._hints, None, said)
        for verdict in reversed(session.verdicts):
            if verdict.question.position == session.position and self._just_answered == verdict.question.id:
                number = self._order.index(verdict.question.id) + 1
                return Asking(verdict.question, number, session.questions, 0, verdict)
        return None

    def _draw_track(self) -> None:
        session = self.session
        fold = fold_of(session)
        answered = {v.question.id for v in session.verdicts}
        questions = tuple((at, name in answered) for at, name in sorted(self._question_at.items()))
        track = Track(tuple(fold.milestones), tuple(fold.crossings), questions)
        sign = f"▶ {SPEEDS[self._speed]:g}/s" if self._playing else "‖"
        rect = self._plan["track"]
        self._put("track", *draw_track(track, session.position, session.length, rect.width, sign))

    def _tell(self, message: str) -> None:
        """Say something in the last row, until the next thing happens."""
        self._message = message
        self.show()
        self._message = ""

    def _draw_hints(self) -> None:
        question = self.session.question
        if question is not None:
            left = len(question.hints) - self._hints
            hints = [(f"1-{len(question.options)}", "answer", ""), ("0", "not sure", "answer(-1)")]
            hints += [("h", f"hint ({left} left)", "hint")] if left > 0 else []
            hints += [("p", "show it again" if self._aside else "look at the screen", "predict")]
            hints += [("←", "back", "step_back"), ("?", "help", "help"), ("q", "quit", "quit")]
        else:
            hints = [(c.shown.split()[0], c.hint, c.action) for c in COMMANDS if c.hint]
        rect = self._plan["hints"]
        self._put("hints", *draw_hints(hints, rect.width, self._message))

    def _recolour(self, _: object) -> None:
        """Another theme was chosen."""
        self.palette = palette_for(self.current_theme, coloured=self._coloured)
        for tile in self._tiles:
            tile.forget()
        self.show()

    # Going

    def _moved(self, went: bool, *, glide: bool = False) -> None:
        """Show where we are now, or say why we are still here."""
        before = self._frame
        if went or (before is not None and before.position != self.session.position):
            self._hints = 0
            self._aside = False
            self._just_answered = ""
            self._stop_gliding()
            self.show()
            if glide and self.motion == "full" and before is not None:
                self._start_gliding()
            return
        if self.session.question is not None:
            self._aside = False
            self._stop_playing()
            self.show()
            self._tell("The question comes first.")
        else:
            self._stop_playing()

    def action_next(self) -> None:
        """Go one step further."""
        self._moved(self.session.next(), glide=True)

    def action_step_back(self) -> None:
        """Go one step back."""
        self._stop_playing()
        self._moved(self.session.back())

    def action_home(self) -> None:
        """Go to the beginning."""
        self._stop_playing()
        self.session.home()
        self._moved(went=False)

    def action_end(self) -> None:
        """Go to the end, or to the next question."""
        self._stop_playing()
        self.session.end()
        self._moved(went=False)

    def action_seek(self, position: int) -> None:
        """Go to a position, or to the first question on the way."""
        self._stop_playing()
        self.session.go_to(max(0, min(position, self.session.length)))
        self._moved(went=False)

    def action_seek_from(self, first: int, more: int) -> None:
        """Go to a step by its place in the lanes."""
        self.action_seek(first + more)

    def action_part(self, part: int, whole: int) -> None:
        """Go to a position by its place on the track."""
        self.action_seek(-(-part * self.session.length // whole))

    def action_crossing(self, way: int) -> None:
        """Go to the next or previous crossing."""
        self._moved(self.session.next_crossing() if way > 0 else self.session.previous_crossing())

    def action_milestone(self, way: int) -> None:
        """Go to the next or previous milestone."""
        self._moved(self.session.next_milestone() if way > 0 else self.session.previous_milestone())

    def action_notification(self, way: int) -> None:
        """Go to the next or previous notification."""
        self._moved(self.session.next_notification() if way > 0 else self.session.previous_notification())

    def action_goto(self) -> None:
        """Ask for the number of a step."""
        from virtviz.ui.screens import GoTo  # noqa: PLC0415 - not before the first frame

        self._stop_playing()
        self.push_screen(GoTo(self.session.position, self.session.length), self._gone_to)

    def _gone_to(self, position: int | None) -> None:
        if position is not None:
            self.action_seek(position)

    # Playing

    def action_play(self) -> None:
        """Play, or pause."""
        if self._asking() is not None and self.session.question is None:
            self.action_next()
            return
        if self._playing is not None:
            self._stop_playing()
        elif self.motion == "none":
            self._tell("Motion is off: go on with → instead.")
        else:
            self._playing = self.set_interval(1 / SPEEDS[self._speed], self.action_next)
            self.action_next()
        self.show()

    def action_speed(self, way: int) -> None:
        """Play faster or slower."""
        self._speed = max(0, min(self._speed + way, len(SPEEDS) - 1))
        if self._playing is not None:
            self._playing.stop()
            self._playing = self.set_interval(1 / SPEEDS[self._speed], self.action_next)
        self.show()

    def _stop_playing(self) -> None:
        if self._playing is not None:
            self._playing.stop()
            self._playing = None
            self.show()

    def _start_gliding(self) -> None:
        """Let the packet that the step moved go its way over the stage."""
        frame, stage = self._frame, self._stage
        if frame is None or stage is None:
            return
        moved = next((p for p in frame.packets if p.came_from), None)
        if moved is None:
            return
        source, target = stage.spot(moved.came_from), stage.spot(moved.where)
        if source is None or target is None:
            return
        route = stage.route(source.name, target.name)
        seconds = min(GLIDE_SECONDS, 0.7 / SPEEDS[self._speed]) if self._playing else GLIDE_SECONDS
        frames = max(int(seconds * GLIDE_FRAMES_A_SECOND), 1)
        if len(route) < 3:
            return
        self._route = [route[(i + 1) * (len(route) - 1) // (frames + 1)] for i in range(frames)]
        self._glide = Glide(moved.number, self._route[0])
        self._draw_stage()
        self._send()
        self._gliding = self.set_interval(1 / GLIDE_FRAMES_A_SECOND, self._glide_on)

    def _glide_on(self) -> None:
        self._route = self._route[1:]
        if not self._route or self._glide is None:
            self._stop_gliding()
        else:
            self._glide = Glide(self._glide.packet, self._route[0])
        self._draw_stage()
        self._send()

    def _stop_gliding(self) -> None:
        self._glide = None
        if self._gliding is not None:
            self._gliding.stop()
            self._gliding = None

    # Questions

    def action_answer(self, choice: int) -> None:
        """Answer the open question; -1 stands for not sure yet."""
        question = self.session.question
        if question is None or choice >= len(question.options):
            return
        self._just_answered = question.id
        self._aside = False
        self.session.answer(None if choice < 0 else choice)
        self.show()

    def action_hint(self) -> None:
        """Show one hint more."""
        question = self.session.question
        if question is not None and self._hints < len(question.hints):
            self._hints += 1
            self._aside = False
            self.show()

    def action_predict(self) -> None:
        """Put the question aside, or show it again."""
        if self._asking() is None:
            self._tell("No question is open here.")
            return
        self._aside = not self._aside
        self.show()

    # Panels

    def action_ring(self) -> None:
        """Show the ring; pressed again, stay with one queue or follow the action."""
        if self._panel != "ring":
            self._panel = "ring"
        else:
            names = [None, *(q.name for q in sorted(self.session.header.queues, key=lambda q: q.direction != "out"))]
            self._queue = names[(names.index(self._queue) + 1) % len(names)]
        self.show()

    def action_panel(self, name: str) -> None:
        """Put a panel in the ring's place, or the ring back."""
        self._panel = "ring" if self._panel == name else name
        self.show()

    def action_help(self) -> None:
        """Show all keys and what the signs mean."""
        from virtviz.ui.screens import Help  # noqa: PLC0415 - not before the first frame

        self._stop_playing()
        self.push_screen(Help(self.palette, plain=self.plain))

    # Mouse and palette

    async def on_tile_clicked(self, event: Tile.Clicked) -> None:
        """Do what was clicked."""
        for x, y, width, action in reversed(self._zones):
            if event.y == y and x <= event.x < x + width:
                if action:
                    await self.run_action(action.format(x=event.x - x))
                return

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Give everything that can be done to the command palette."""
        for command in COMMANDS:
            if command.action == "command_palette":
                continue
            title = f"{command.title} ({command.shown})"
            yield SystemCommand(
                title, command.help, lambda action=command.action: self.call_later(self.run_action, action)
            )
        yield SystemCommand("Theme", "Choose other colours.", self.action_change_theme)


def make_player(session: Session, *, motion: str = "full", ascii: bool = False, theme: str | None = None) -> Player:  # noqa: A002
    """Make the application, with a theme that is right for the terminal from the first moment on.

    Where `NO_COLOR` is set, the theme must be one without colours before Textual's own initialisation, which chooses its filters by it.
    """
    if "NO_COLOR" not in os.environ:
        return Player(session, motion=motion, plain=ascii, theme=theme)

    class PlainPlayer(Player):
        """The player without colours."""

    PlainPlayer.theme._default = PLAIN_THEME  # type: ignore[attr-defined]
    return PlainPlayer(session, motion=motion, plain=ascii)


def play(session: Session, *, at: int = 0, motion: str = "full", ascii: bool = False, theme: str | None = None) -> int:  # noqa: A002
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
    app = make_player(session, motion=motion, ascii=ascii, theme=theme)
    app.run()
    return app.return_code or 0
