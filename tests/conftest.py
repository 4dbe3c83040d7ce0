"""What all tests share: property tests that find the same examples in every run."""

from __future__ import annotations

from hypothesis import settings

# No deadline: the first call of a kernel compiles it. The same examples every time: a failure can be repeated.
settings.register_profile("millrace", deadline=None, derandomize=True, database=None)
settings.load_profile("millrace")
