"""The data path of a packet: one file for each place, and the wiring that joins them into a world."""
