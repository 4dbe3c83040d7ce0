"""The bench: what Millrace reaches on this machine, and what others reach beside it (docs/benchmarks.md)."""
