"""The words for what device and driver may agree on, as in the knob `features`."""

from typing import Final

EVENT_IDX: Final = "event_idx"
INDIRECT: Final = "indirect"
MERGEABLE: Final = "mergeable"
CSUM: Final = "csum"
TSO: Final = "tso"
