"""Traces and frames as files: written, read back, described by a schema."""
