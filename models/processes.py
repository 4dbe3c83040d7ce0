"""The processes that share a training, and what each computes on.

They find each other by what torchrun sets: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, on one machine or
on several. A process alone needs none of it, and no torch unless it trains a network.

On a CPU a process computes on one core, and several cores take several processes. Threads of one process wait for each
other after every product: beside a pipeline's other processes, two of them were found ten times as slow as one. It also
keeps sums in one order, so that a training that goes on elsewhere goes on with the same bits.

On a GPU the order is kept by torch's deterministic algorithms. CUDA_VISIBLE_DEVICES says which GPUs may be taken; it is
empty where none may. Processes that have one each exchange gradients by nccl, processes that share one by gloo, since
nccl refuses them.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from streams.errors import UnavailableError

_TORCHRUN = (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1"))
_RSS_UNIT_BYTES = 1_024  # Linux tells the resident size in KiB


class Processes(NamedTuple):
    """Those that share a training.

    Attributes:
        rank: which one this is; the first writes.
        size: how many there are.
        device: what this one computes on.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    def wait(self) -> None:
        """Go on once all have come here."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()

    def agree(self, number: int) -> int:
        """Give all the first one's number: what each has found by itself may differ."""
        if self.size == 1:
            return number
        import torch
        import torch.distributed as dist

        shared = torch.tensor([number], dtype=torch.int64, device=self.device)
        dist.broadcast(shared, 0)
        return int(shared.item())

    def peak_bytes(self) -> int:
        """Give the most memory that was taken: the GPU's where there is one, else this process's."""
        if self.device != "cpu":
            import torch

            return int(torch.cuda.max_memory_allocated())
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT_BYTES

    def device_name(self) -> str:
        """Name what was computed on, and how often there was one."""
        name = self.device
        if name != "cpu":
            import torch

            name = torch.cuda.get_device_name(name)
        return name if self.size == 1 else f"{self.size} x {name}"


@contextlib.contextmanager
def joined(environment: Mapping[str, str]) -> Iterator[Processes]:
    """Find the others, on GPUs where there are any, and let go of them at the end.

    Raises:
        UnavailableError: they do not find each other.
    """
    import torch
    import torch.distributed as dist

    size, rank, local, neighbours = (int(environment.get(name, usual)) for name, usual in _TORCHRUN)
    gpus = torch.cuda.device_count() if environment.get("CUDA_VISIBLE_DEVICES") != "" else 0
    device = f"cuda:{local % gpus}" if gpus else "cpu"
    if gpus:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS adds up in any order
        torch.cuda.set_device(device)
        torch.use_deterministic_algorithms(True)
    else:
        torch.set_num_threads(1)
    if size == 1:
        yield Processes(device=device)
        return
    try:
        dist.init_process_group("nccl" if gpus >= neighbours else "gloo", world_size=size, rank=rank)
    except (RuntimeError, ValueError) as error:
        raise UnavailableError(f"the {size} processes of a training do not find each other: {error}") from error
    try:
        yield Processes(rank, size, device)
    finally:
        dist.destroy_process_group()
