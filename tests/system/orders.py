"""Orders of a shop, and half an hour after each what became of it: input from which a network is trained."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from serving.publish import RawRecord

START_US = 1_700_006_400_000_000  # a midnight
STEP_US = 1_800_000_000  # 48 events a day


def pipeline_text(name: str, kafka: str, due: int) -> str:
    """Write a pipeline file with a network that is trained once `due` examples are there, and once in 30 days.

    Args:
        name: of the pipeline.
        kafka: bootstrap servers.
        due: examples.
    """
    return (
        f'[pipeline]\nname = "{name}"\npartitions = 1\n[kafka]\n"bootstrap.servers" = "{kafka}"\n'
        f'[events]\ntopic = "{name}.x"\nid = "n"\ntime = "at"\ntime_unit = "us"\n'
        '[events.fields]\na = "number"\nb = "number"\nshop = "category"\n'
        f'[labels]\ntopic = "{name}.y"\nid = "n"\ntime = "at"\ntime_unit = "us"\nvalue = "y"\nwait = "2h"\n'
        '[models.net]\nkind = "torch:mlp"\nhidden = [8]\nbits = 6\nepochs = 5\nbatch = 32\nlr = 0.02\n'
        f'retrain = {{ examples = {due}, cooldown = "30d" }}\n[models.prior]\nkind = "prior"\n'
    )


def records(start: int, stop: int) -> Iterator[RawRecord]:
    """Give the orders from number `start` on, before `stop`, and their labels."""
    for number in range(start, stop):
        rng = np.random.default_rng(number)
        a, b = rng.normal(size=2).tolist()
        for is_label, values in ((False, {"a": a, "b": b, "shop": f"s{number % 3}"}), (True, {"y": int(a > 0)})):
            at = START_US + number * STEP_US + is_label * STEP_US // 2
            yield RawRecord(at, is_label, str(number).encode(), json.dumps({"n": number, "at": at, **values}).encode())
