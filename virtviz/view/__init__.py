"""What a screen shows of a position, as plain data: no colours, no widgets."""

from virtviz.view.build import fold_of, make_frame
from virtviz.view.frame import Frame, Source

__all__ = ["Frame", "Source", "fold_of", "make_frame"]
