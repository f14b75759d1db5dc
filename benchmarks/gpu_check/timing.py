"""A call timed by CUDA events, and what a GPU could do at best."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch

from deepclust_ext.benchmark.runner import ROOFLINES

WARM_UPS = 3  # one for a call that takes longer than SECONDS
SECONDS = 0.25  # of timed calls, but never fewer than LEAST of them nor more than MOST
LEAST, MOST = 2, 200


def timed(call: Callable[[], Any], device: str, *, once: bool = False) -> dict[str, float]:
    """Median and fastest time of a call in microseconds, how often it was timed, and the most memory it took.

    Each call stands between two events, so that what the host does meanwhile counts only where the GPU waits for it.
    `once`: a call of many seconds, timed alone and without a warm-up.
    """
    on_gpu = torch.device(device).type == "cuda"
    timer = _by_events if on_gpu else _by_clock
    if on_gpu:
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    found = timer(call, 1)
    if not once:
        if found[0] < SECONDS:
            found = timer(call, WARM_UPS)
        found = timer(call, max(LEAST, min(MOST, int(SECONDS / max(found[-1], 1e-6)))))
    return {
        "median": statistics.median(found) * 1e6,
        "fastest": min(found) * 1e6,
        "calls": len(found),
        "memory": torch.cuda.max_memory_allocated() - before if on_gpu else 0,
    }


def _by_events(call: Callable[[], Any], count: int) -> list[float]:
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
    for begin, end in pairs:
        begin.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) * 1e-3 for begin, end in pairs]


def _by_clock(call: Callable[[], Any], count: int) -> list[float]:
    found = []
    for _ in range(count):
        begin = time.perf_counter()
        call()
        found.append(time.perf_counter() - begin)
    return found


def rates(seconds: float, size: float, operations: float, device: str) -> dict[str, float]:
    """Gigabytes and teraflops a second, and the share of this GPU's bound where its peaks are known."""
    found = {"gigabytes_per_second": size / seconds / 1e9, "teraflops": operations / seconds / 1e12}
    if torch.device(device).type == "cuda":
        name = torch.cuda.get_device_name(device)
        for known, (bandwidth, peak) in ROOFLINES.items():
            if known in name:
                found["share_of_bound"] = max(size / bandwidth, operations / peak) / seconds
    return found


def clocks(device: str) -> str:
    """The clocks of multiprocessors and memory right now, such as "1980 MHz, 2619 MHz"; nothing without nvidia-smi."""
    if torch.device(device).type == "cpu":
        return ""
    command = ["nvidia-smi", "--query-gpu=clocks.sm,clocks.mem", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def captured(call: Callable[[], Any]) -> Callable[[], Any]:
    """The same call as a CUDA graph, replayed."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()

    def replay() -> Any:
        graph.replay()
        return result

    return replay
