"""Studies: one question put to several simulated worlds, and the answers side by side."""
