"""How one weight moves by its gradient: the optimisers and penalties of River 0.26, as pieces of compiled kernels.

Each step takes a weight, its two moments (what the optimiser keeps of earlier gradients) and its gradient, and gives
the weight and the moments as they are then. With settings inside their bounds (streams/model_kinds.py) and gradients of
the loss up to 1e12 nothing becomes infinite: AdaGrad divides by a root that holds the gradient itself, Adam by `eps` at
least, FTRL by `beta / alpha` at least.

- AdaGrad: Duchi, Hazan and Singer 2011, "Adaptive subgradient methods for online learning".
- Adam: Kingma and Ba 2014, arXiv:1412.6980.
- FTRL-Proximal: McMahan et al. 2013, "Ad click prediction: a view from the trenches". As in River the weight is renewed
  from its sums before they take the gradient, so it is one step behind them, and is left as it was where `l1` holds it.
- The cumulative L1 penalty: Tsuruoka, Tsujii and Ananiadou 2009, "Stochastic gradient descent training for
  L1-regularized log-linear models", as River has it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from streams.compiled import inlined

OPTIMIZERS = ("sgd", "adagrad", "adam", "ftrl")
HAS_FIRST, HAS_SECOND = ("adam", "ftrl"), ("adagrad", "adam", "ftrl")  # which moments an optimiser keeps


class Rates(NamedTuple):
    """The numbers that steps are made by; what an optimiser has not is 0."""

    lr: float
    eps: float
    beta_1: float
    beta_2: float
    alpha: float
    beta: float
    sum_l1: float  # FTRL's own penalties
    sum_l2: float
    l1: float  # the cumulative penalty's
    l2: float  # times the weight is added to its gradient


Step = Callable[[Rates, float, float, float, float, float], tuple[float, float, float]]


def rates_of(settings: Mapping[str, float], optimizer: str) -> Rates:
    """Read the rates from a model's settings; `l1` and `l2` are FTRL's own where that is the optimiser."""
    l1, l2, is_own = settings.get("l1", 0.0), settings["l2"], optimizer == "ftrl"
    lr, eps, beta_1, beta_2, alpha, beta = (settings.get(name, 0.0) for name in Rates._fields[:6])
    penalties = (l1, l2, 0.0, 0.0) if is_own else (0.0, 0.0, l1, l2)
    return Rates(lr, eps, beta_1, beta_2, alpha, beta, *penalties)


@inlined
def pace(rates: Rates, steps: float) -> float:
    """Give the step size of a step after so many: Adam's corrects for moments that began at 0."""
    if rates.beta_1 == 0.0 and rates.beta_2 == 0.0:
        return rates.lr
    unbiased = math.sqrt(1.0 - math.pow(rates.beta_2, steps + 1.0)) / (1.0 - math.pow(rates.beta_1, steps + 1.0))
    return rates.lr * unbiased


@inlined
def sgd(_rates: Rates, lr: float, weight: float, first: float, second: float, g: float) -> tuple[float, float, float]:
    """Go down the gradient; no moments."""
    return weight - lr * g, first, second


@inlined
def adagrad(
    rates: Rates, lr: float, weight: float, first: float, second: float, g: float
) -> tuple[float, float, float]:
    """Divide the step by the root of all squared gradients; these are the second moment, there is no first."""
    squares = second + g * g
    return weight - lr / math.sqrt(squares + rates.eps) * g, first, squares


@inlined
def adam(rates: Rates, lr: float, weight: float, first: float, second: float, g: float) -> tuple[float, float, float]:
    """Follow the fading mean of gradients, divided by the root of that of their squares."""
    mean = rates.beta_1 * first + (1.0 - rates.beta_1) * g
    square = rates.beta_2 * second + (1.0 - rates.beta_2) * (g * g)
    return weight - lr * mean / (math.sqrt(square) + rates.eps), mean, square


@inlined
def ftrl(rates: Rates, _lr: float, weight: float, first: float, second: float, g: float) -> tuple[float, float, float]:
    """Renew the weight from its sums: of gradients, less what earlier weights account for, and of squared gradients."""
    root = math.sqrt(second)
    excess = first - math.copysign(rates.sum_l1, first)
    renewed = -excess / ((rates.beta + root) / rates.alpha + rates.sum_l2)
    used = renewed if abs(first) > rates.sum_l1 else weight
    squares = second + g * g
    return used, first + g - (math.sqrt(squares) - root) / rates.alpha * used, squares


@inlined
def penalized(weight: float, paid: float, due: float) -> float:
    """Pull a weight towards 0, not beyond, by what it owes: `due` of every weight so far, `paid` (negative for one
    above 0) by this one.
    """  # noqa: D205  # one sentence
    if weight > 0.0:
        return max(0.0, weight - (due + paid))
    if weight < 0.0:
        return min(0.0, weight + (due - paid))
    return weight
