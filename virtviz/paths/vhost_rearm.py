"""The last look that vhost takes at a ring it has found empty, after it has asked to be kicked: vhost_enable_notify."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from virtviz.engine.ops import goto, op
from virtviz.paths.vhost_checks import CheckingRoutine
from virtviz.spec.citation import VHOST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.paths.context import Context


class LastLook(CheckingRoutine):
    """Look at avail.idx once more, and withdraw the wish for a kick if something slipped in.

    A class made of it says with `rows` which row `LAST-LOOK` is there, with `links` what comes when the ring is still
    `empty` and when there is `more`, and what that means, in words.
    """

    still_empty: ClassVar[str]
    slipped_in: ClassVar[str]

    def words(self, me: Context) -> Mapping[str, object]:
        """Give what vhost's texts speak of, and what was found."""
        return {**super().words(me), "still_empty": self.still_empty, "slipped_in": self.slipped_in}

    @op(
        "LAST-LOOK",
        "look at avail.idx again",
        "vhost_enable_notify",
        VHOST,
        spec="2.7.10",
        text={"still empty": "{still_empty}", "more": "{slipped_in}"},
        to={"still empty": goto("empty"), "more": goto("disable_again")},
        cost="ring cold",
    )
    def recheck_avail_idx(self, me: Context) -> str:
        return "more" if self.ring.read_avail_idx() == "new" else "still empty"

    @op(
        "LAST-LOOK",
        "ask for no more kicks",
        "vhost_disable_notify",
        VHOST,
        spec="2.7.10",
        text="The worker is at it again and needs no kick.",
        to=goto("more"),
    )
    def disable_again(self, me: Context) -> None:
        self.ring.disable_kicks()
