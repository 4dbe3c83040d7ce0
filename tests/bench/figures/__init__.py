"""One file per kind of run; a file added here is found by itself (tests/bench/figure.py says what it needs)."""
