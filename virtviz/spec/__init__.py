"""The outside world as data: constants as the standards spell them, frames, and where a statement comes from."""
