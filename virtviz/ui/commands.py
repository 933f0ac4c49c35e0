"""Everything that can be done, once: its keys, its action, its name and what it is for.

Bindings, command palette, help and key hints all come from this list, so that whatever has a key can also be found
and clicked.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct


class Command(Struct, frozen=True):
    """Something the learner can do.

    Attributes:
        keys: as Textual calls them, separated by commas.
        shown: how the keys are written for people.
        action: the application's action.
        title: a few words.
        help: a sentence.
        hint: the word beside the key at the bottom of the screen; empty if it has no place there.
    """

    keys: str
    shown: str
    action: str
    title: str
    help: str
    hint: str = ""

    @property
    def name(self) -> str:
        """What a user's own key map calls it."""
        return self.title.lower().replace(" ", "-")


COMMANDS: Final = (
    Command("right,n,space", "→ n space", "next", "Next step", "One operation further.", "next"),
    Command("left,b", "← b", "step_back", "Step back", "One operation back; nothing is lost.", "back"),
    Command("home", "Home", "home", "To the beginning", "Before the first step."),
    Command("end", "End", "end", "To the end", "The last step, or the next question without an answer."),
    Command("g", "g", "goto", "Go to a step", "Type the number of a step."),
    Command("c", "c", "crossing(1)", "Next crossing", "The next step at which a thread crosses a border.", "crossing"),
    Command(
        "C,upper_c", "C", "crossing(-1)", "Previous crossing", "The last step before at which a border is crossed."
    ),
    Command("m", "m", "milestone(1)", "Next milestone", "The next point of a packet's way.", "milestone"),
    Command("M,upper_m", "M", "milestone(-1)", "Previous milestone", "The last point of a packet's way before this."),
    Command("k", "k", "notification(1)", "Next notification", "The next kick, wake-up or interrupt."),
    Command(
        "K,upper_k", "K", "notification(-1)", "Previous notification", "The last kick, wake-up or interrupt before."
    ),
    Command("enter", "Enter", "play", "Play or pause", "Let it run; it stops by itself at every question.", "play"),
    Command("greater_than_sign", ">", "speed(1)", "Faster", "More steps a second while it plays."),
    Command("less_than_sign", "<", "speed(-1)", "Slower", "Fewer steps a second while it plays."),
    Command("p", "p", "predict", "Question", "Show the question again, or put it aside to look at the screen."),
    Command("h", "h", "hint", "Hint", "The next hint for the question that is open."),
    Command("down", "↓", "scroll(1)", "Scroll a long question", "More of a question that is longer than the screen."),
    Command("up", "↑", "scroll(-1)", "Scroll it back", "Back towards the question's beginning."),
    Command("pagedown", "PgDn", "scroll_page(1)", "Scroll it by a page", "Much more of a long question."),
    Command("pageup", "PgUp", "scroll_page(-1)", "Scroll it back by a page", "Back by as much."),
    Command("r", "r", "ring", "Ring", "Follow the action, stay with transmitq1, or stay with receiveq1.", "ring"),
    Command(
        "l",
        "l",
        "panel('ledger')",
        "Ledger",
        "Every crossing and effect so far, with its step and its thread.",
        "ledger",
    ),
    Command("t", "t", "panel('lanes')", "Thread lanes", "Which thread ran at which step, and in which domain."),
    Command("s", "s", "panel('sources')", "Sources", "Where this step comes from, and all it read and wrote."),
    Command("question_mark,f1", "? F1", "help", "Help", "All keys, and what the signs mean.", "help"),
    Command("ctrl+p", "ctrl+p", "command_palette", "Commands", "Find anything by its name."),
    Command("q,ctrl+q", "q ctrl+c", "quit", "Quit", "Leave the lesson.", "quit"),
)
