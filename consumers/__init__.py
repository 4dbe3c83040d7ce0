"""What runs: the worker loop, one file per role, the supervisor."""
