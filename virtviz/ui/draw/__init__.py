"""From frames to grids of characters: what each part of the screen looks like, without colours and without widgets."""
