"""What there is to see at a position, as plain data: no colours, no widgets."""
