"""Card payments for tests: the same ones every time, with frauds at compromised terminals that come out days later.

The method is that of Le Borgne et al., "Reproducible machine learning for credit card fraud detection" (simulator): a
customer has a mean amount and a pace of their own; at a compromised terminal every payment is a fraud.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from streams.durations import DAY_US
from tests.aggregate_reference import Row

CUSTOMERS, TERMINALS, DAYS, PAYMENTS = 500, 200, 60, 15_000
COMPROMISED_EVERY, COMPROMISED_FOR = 3, 14  # days: between two compromised terminals, and until it is found
START_US = 1_704_067_200 * 1_000_000  # Monday, 2024-01-01


def make_payments(seed: int = 1) -> pd.DataFrame:
    """Payments by time, no two at once: time_us, id, customer, terminal, amount, is_fraud, known_us."""
    rng = np.random.default_rng(seed)
    time_us = START_US + np.unique(rng.integers(0, DAYS * DAY_US, PAYMENTS))
    pace, mean_amount = rng.gamma(2.0, 1.0, CUSTOMERS), rng.uniform(5, 100, CUSTOMERS)
    customer = rng.choice(CUSTOMERS, time_us.size, p=pace / pace.sum())
    terminal = rng.integers(0, TERMINALS, time_us.size)
    is_fraud = np.zeros(time_us.size, bool)
    for day in range(0, DAYS, COMPROMISED_EVERY):
        since = (time_us - START_US) / DAY_US - day
        is_fraud |= (terminal == rng.integers(TERMINALS)) & (since >= 0) & (since < COMPROMISED_FOR)
    return pd.DataFrame(
        {
            "time_us": time_us,
            "id": [f"p{number}" for number in range(time_us.size)],
            "customer": [f"c{number}" for number in customer],
            "terminal": [f"t{number}" for number in terminal],
            "amount": np.maximum(0.01, np.round(rng.normal(mean_amount[customer], mean_amount[customer] / 2), 2)),
            "is_fraud": is_fraud,
            "known_us": time_us + rng.integers(DAY_US, 6 * DAY_US, time_us.size),
        }
    )


def payment_rows(payments: pd.DataFrame) -> list[Row]:
    """Rows of the log: payments when they were made, labels when they are known but dated back, a mark a day."""
    rows: list[tuple[int, Row]] = []
    for one in payments.to_dict("records"):
        rows += [(one["time_us"], _event(one)), (one["known_us"], _label(one))]
    for day in range(DAYS + 6):
        at = START_US + day * DAY_US
        rows.append((at, {"kind": "mark", "id": None, "key": None, "time": at - 6 * DAY_US}))
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def _event(one: dict[str, Any]) -> Row:
    fields = {"field.amount": one["amount"], "field.terminal": one["terminal"]}
    time_us = one["time_us"]
    return {"kind": "event", "id": one["id"], "key": one["customer"], "time": time_us, "produced": time_us, **fields}


def _label(one: dict[str, Any]) -> Row:
    label = float(one["is_fraud"])
    return {"kind": "label", "id": one["id"], "key": one["customer"], "time": one["time_us"], "label": label}
