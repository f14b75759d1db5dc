"""The first look: the CUDA library is loaded and has code for this GPU, every op runs; which kernels were launched."""

from __future__ import annotations

import argparse
import json
import re
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

import deepclust_ext
from benchmarks.gpu_check.calls import Recorder, calls, registered
from benchmarks.gpu_check.result import write
from deepclust_ext import _cuda

# Every instance that nvcc makes, as "mi_loss.cu: products<...>".
BUDGET = Path(__file__).parents[2] / "python_tests" / "build" / "ptxas_budget.json"


def problems(build: dict[str, Any], device: str) -> list[str]:
    """Why the kernels cannot run here; nothing where they can."""
    if torch.device(device).type == "cpu":
        return []
    if not torch.cuda.is_available():
        return ["no GPU is visible to torch"]
    if build["cuda_library"] is None:
        return [f"_C_cuda is not loaded: {build['cuda_reason']}"]
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    capabilities = [torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())]
    return _cuda.uncovered(names, capabilities, build["cuda_architectures"])


def call_all(device: str) -> tuple[dict[str, str], set[str]]:
    """What each call said when it failed, nothing where it ran; and the ops that were called."""
    recorder, outcomes = Recorder(), {}
    for name, call in calls().items():
        try:
            with recorder:
                call(device)
                if torch.device(device).type == "cuda":
                    torch.cuda.synchronize()
            outcomes[name] = ""
        except Exception as error:
            traceback.print_exc()
            outcomes[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return outcomes, recorder.seen


def instances() -> set[str]:
    """The instances of our kernels."""
    kernels = json.loads(BUDGET.read_text(encoding="utf-8"))["kernels"]
    return {name.split(": ", 1)[1] for name in kernels}


def short_name(name: str) -> str:
    """`kernel<float, 32>` of `void deepclust::cuda::kernel<float, 32>(float*)`, as the budget writes it."""
    name = re.sub(r"deepclust::(cuda::)?|\(anonymous namespace\)::|^void ", "", name)
    name = re.sub(r">\s+(?=>)", ">", name)
    depth = 0
    for index, character in enumerate(name):
        depth += (character == "<") - (character == ">")
        if character == "(" and depth == 0:
            return name[:index]
    return name


def launched(device: str) -> set[str] | None:
    """The instances that the calls launch, by the profiler; None where it sees none, or there is no GPU to see."""
    if torch.device(device).type == "cpu":
        return None
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            for call in calls().values():
                call(device)
            torch.cuda.synchronize()
    except RuntimeError:  # the profiler's own: every call has run before
        traceback.print_exc()
        return None
    return {short_name(event.name) for event in profile.events()} & instances() or None


def main() -> int:
    """Look, write what was seen, and fail where something is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    build = deepclust_ext.build_info()
    found: dict[str, Any] = {"build": build, "problems": problems(build, options.device)}
    write(options.json, found)
    if not found["problems"]:
        outcomes, seen = call_all(options.device)
        found["problems"] = [f"{name}: {said}" for name, said in outcomes.items() if said]
        found["problems"] += [f"no call reaches the op {name}" for name in sorted(registered() - seen)]
        found["calls"] = len(outcomes)
        write(options.json, found)
        kernels = None if found["problems"] else launched(options.device)
        found["launched"] = len(kernels) if kernels else None
        found["not_launched"] = sorted(instances() - kernels) if kernels else None
        write(options.json, found)
    for line in found["problems"]:
        sys.stdout.write(f"{line}\n")
    return 1 if found["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
