"""The budgets, measured: `python -m benchmarks` (or `make bench`) prints them all in one table."""
