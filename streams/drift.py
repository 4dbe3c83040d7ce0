"""What `[drift]` declares: which detectors watch what, with what settings.

Names and defaults of detectors' settings are River's (0.26), so that its documentation holds; KSWIN's seed is fixed.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Detector = Literal["adwin", "page_hinkley", "kswin"]
OnDrift = Literal["none", "reset", "relearn", "retrain"]  # what an alarm on a candidate's loss does to it

WINDOW_PARTS = 10  # of the window of features: it is looked at each time one of them is new
RELEARN_ROWS = 1_000  # 128 KiB with 16 columns, in memory and in every snapshot


class Adwin(msgspec.Struct, frozen=True):
    """Adaptive windowing. A smaller `delta` raises fewer and later alarms; a larger `clock` looks less often."""

    delta: float = 0.002
    clock: int = 32
    max_buckets: int = 5
    min_window_length: int = 5
    grace_period: int = 10


class PageHinkley(msgspec.Struct, frozen=True):
    """The Page-Hinkley test. A larger `threshold` raises fewer and later alarms; a change of `delta` is none."""

    min_instances: int = 30
    delta: float = 0.005
    threshold: float = 50.0
    alpha: float = 1 - 0.0001
    mode: Literal["up", "down", "both"] = "both"


class Kswin(msgspec.Struct, frozen=True):
    """Kolmogorov-Smirnov windowing. A smaller `alpha` raises fewer alarms; every loss is a test, so keep it small."""

    alpha: float = 0.005
    window_size: int = 100
    stat_size: int = 30
    seed: int = 0


class Psi(msgspec.Struct, frozen=True):
    """Population stability index of the features.

    Attributes:
        threshold: an index from which a feature has drifted.
        bins: of the reference, besides the one for missing values.
        reference_rows: so many rows are the reference, from the first watched on.
        window_rows: so many of the newest are compared with it, a multiple of ten.
        every: only every so many-th event is watched; larger costs less and sees later.
    """

    threshold: float = 0.2
    bins: int = 10
    reference_rows: int = 5_000
    window_rows: int = 5_000
    every: int = 1


class Drift(msgspec.Struct, frozen=True):
    """How drift is watched: `loss` on every candidate's losses, `features` on the champion's features."""

    loss: tuple[Detector, ...] = ("adwin",)
    features: Literal["psi", "off"] = "psi"
    adwin: Adwin = Adwin()
    page_hinkley: PageHinkley = PageHinkley()
    kswin: Kswin = Kswin()
    psi: Psi = Psi()
