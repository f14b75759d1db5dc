"""Jobs on the ranks of a gloo group, each with one thread."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing

Job = Callable[[Any, int, int], Any]


def on_ranks(world: int, job: Job) -> list[Any]:
    """What `job(group, rank, world)` returns on each rank; a module's function."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_serve, (world, folder, job), nprocs=world)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(world)]


def _serve(rank: int, world: int, folder: str, job: Job) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    torch.save(job(dist.group.WORLD, rank, world), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
