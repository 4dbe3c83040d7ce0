"""How far a mean may lie from the truth at any time: one-sided confidence sequence, for a spread that is estimated.

A test that is looked at after every block has to hold at all times at once. The sequence is that of Waudby-Smith,
Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences" (2021,
arXiv 2103.06476), one-sided: with chance 1 - a, up to what is asymptotic, at no time t is the mean of t values of
variance sigma^2 above the truth by more than z(t) sigma / sqrt(t),

    z = sqrt( 2 (t rho^2 + 1) / (t rho^2) * ln(1 + sqrt(t rho^2 + 1) / (2a)) )

rho says when it is narrowest: here at t = 100 values. Sigma is estimated from a few dozen means; what that costs is
Student's correction with f degrees of freedom, by the formula of Wallace, "Bounds on normal approximations to Student's
and the chi-square distributions" (1959), solved for Student's quantile.
"""

from __future__ import annotations

import math

NARROWEST_VALUES = 100  # so many blocks are the least for a promotion


def share_of_alpha(alpha: float, epoch: int, challengers: int) -> float:
    """Give the share a of one challenger in one epoch (from 1 on); all shares of all epochs add up to alpha."""
    return alpha * 6.0 / (math.pi**2 * epoch**2 * challengers)


def critical_value(t: int, a: float) -> float:
    """Give z after t values, for a known spread."""
    q = -2.0 * math.log(2.0 * a)
    rho_squared = (q + math.log1p(q)) / NARROWEST_VALUES
    grown = t * rho_squared + 1.0
    return math.sqrt(2.0 * grown / (t * rho_squared) * math.log1p(math.sqrt(grown) / (2.0 * a)))


def students(z: float, f: int) -> float:
    """Give the value that Student's t with f degrees of freedom passes as rarely as a normal one passes z."""
    smaller = z * (8 * f + 3) / (8 * f + 1)
    return math.sqrt(f * math.expm1(smaller * smaller / f))


def rare_losses(largest: float, a: float, events: int) -> float:
    """Give what the mean may be off by losses so rare that none was seen yet; `largest` is the largest difference."""
    return largest * math.log(1.0 / a) / events
