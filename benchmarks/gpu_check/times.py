"""Times of every case, after a look at whether all agree; the figures so far are written after each."""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_check.cases import Case, cases
from benchmarks.gpu_check.result import CAPTURED, write
from benchmarks.gpu_check.timing import captured, clocks, rates, timed


def measure(case: Case, device: str, compiled: bool) -> dict[str, Any]:
    """The figures of one case; "disagreement" names who differs from ours, and then nobody is timed."""
    found: dict[str, Any] = {"op": case.op, "label": case.label, "disagreement": "", "times": {}}
    runs = (case.compiled if compiled else case.runs)(device)
    if case.graph and not compiled and torch.device(device).type == "cuda":
        try:
            runs[CAPTURED] = captured(runs["ours"])
        except RuntimeError as error:
            traceback.print_exc()
            found["uncaptured"] = f"a CUDA graph does not record it: {str(error).splitlines()[0]}"
    if not case.once:
        found["disagreement"] = disagreement(case, runs)
    if found["disagreement"]:
        return found
    for name, run in runs.items():
        found["times"][name] = timed(run, device, once=case.once)
        if name == "ours":
            found["clocks"] = clocks(device)
    found |= {"bytes": case.work[0], "operations": case.work[1]}
    return found | rates(found["times"]["ours"]["median"] * 1e-6, *case.work, device)


def disagreement(case: Case, runs: dict[str, Any]) -> str:
    """The first opponent whose result differs from ours, or nothing."""
    ours = [t.detach().clone() for t in case.compare(runs["ours"]())]
    for name, run in runs.items():
        for got, want in zip(case.compare(run()), ours, strict=True):
            error, scale = (got - want).abs().max().item(), want.abs().max().item()
            if not error <= case.tolerance * scale + 1e-6:
                return f"{name}: off by {error:.1e} where the largest value is {scale:.1e}"
    return ""


def main() -> int:
    """Measure; a case that fails is named, and the next one is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--compiled", action="store_true", help="beside torch.compile, where there is such a form")
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    problems: list[str] = []
    if torch.device(options.device).type == "cuda":
        if not torch.cuda.is_available():
            write(options.json, {"device": options.device, "results": [], "problems": ["no GPU is visible to torch"]})
            return 1
        torch.backends.cuda.matmul.allow_tf32 = False  # as torch starts out: opponents multiply in float32 too
    for case in cases(options.small):
        if options.compiled and not case.compiled(options.device):
            continue
        try:
            results.append(measure(case, options.device, options.compiled))
            said = results[-1]["disagreement"] or results[-1].get("uncaptured", "")
        except Exception as error:
            traceback.print_exc()
            said = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if said:
            problems.append(f"{case.op} {case.label}: {said}")
        write(options.json, {"device": options.device, "results": results, "problems": problems})
        sys.stdout.write(f"{case.op} {case.label} {said}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
