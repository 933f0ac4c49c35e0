"""The state-machine engine: ops in tables, journaled state, a timeline that goes both ways. Knows nothing of virtio."""
