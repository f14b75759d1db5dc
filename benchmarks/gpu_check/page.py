"""The Markdown page of a check, from its figures alone.

python3 -m benchmarks.gpu_check.page gpu.json > gpu.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.result import CAPTURED

# What a reader looks for first in a profile; the rest is in gpu.json.
SHOWN = (
    "Duration", "Compute (SM) Throughput", "DRAM Throughput", "Issued Warp Per Scheduler", "No Eligible",
    "Warp Cycles Per Issued Instruction", "Achieved Occupancy", "Registers Per Thread",
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum",
)  # fmt: skip
NANOSECONDS = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}  # ncu's units; older ones say nsecond
STALL = "smsp__pcsamp_warps_issue_stalled_"


def page(data: dict[str, Any]) -> str:
    """All blocks that have something to say."""
    parts = {part["name"]: part for part in data["parts"]}
    blocks = [
        ["# The CUDA kernels on a GPU", "", "Written by `make gpu-check`; the figures are in `gpu.json`."],
        _rehearsal(data),
        _machine(data, parts),
        _outcomes(data),
        _failures(data),
        _skipped(data),
        _coverage(parts.get("first", {}).get("figures", {})),
        _times("Times", parts.get("times", {}).get("figures", {})),
        _times("Times beside torch.compile", parts.get("compiled", {}).get("figures", {})),
        _sanitizers(data),
        _profile(parts.get("profile", {}).get("metrics", [])),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int) -> list[str]:
    """A Markdown table whose last `numbers` columns are set to the right."""
    rule = ["---"] * (len(head) - numbers) + ["---:"] * numbers
    return ["| " + " | ".join(map(_cell, row)) + " |" for row in (head, rule, *rows)]


def _cell(text: str) -> str:
    return " ".join(str(text).replace("|", "\\|").split())


def duration(microseconds: float) -> str:
    """Three significant digits, in us, ms or s."""
    for unit, scale in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= scale:
            return f"{microseconds / scale:.3g} {unit}"
    return f"{microseconds:.3g} us"


def _rehearsal(data: dict[str, Any]) -> list[str]:
    return ["**A rehearsal on a CPU with small inputs: it says nothing about a GPU.**"] if data["rehearsal"] else []


def _machine(data: dict[str, Any], parts: dict[str, Any]) -> list[str]:
    machine = data["machine"]
    build = parts.get("first", {}).get("figures", {}).get("build", {})
    lines = []
    for gpu in machine["gpus"]:
        lines.append(
            f"{gpu['name']}, driver {gpu['driver_version']}, up to {gpu['clocks.max.sm']} and {gpu['clocks.max.mem']} "
            f"(memory), {gpu['power.limit']}, {gpu['temperature.gpu']} degrees."
        )
    lines = lines or ["No GPU."]
    if build:
        architectures = ", ".join(build["cuda_architectures"]) or "nothing"
        lines.append(f"torch {build['torch']}, deepclust_ext {build['version']} compiled for {architectures}.")
    lines.append(f"Python {machine['python']}, {machine['processors']} processors; {machine['nvcc'] or 'no nvcc'}.")
    if machine.get("revision"):
        lines.append(f"The source was that of revision {machine['revision']}.")
    return lines


def _outcomes(data: dict[str, Any]) -> list[str]:
    rows = []
    for part in data["parts"]:
        tests = part.get("tests")
        count = f"{tests['passed']} passed, {len(tests['failed'])} failed" if tests else ""
        rows.append((part["title"], part["outcome"], part["reason"][:200], count, f"{part['seconds']:.0f}"))
    head = ("Part", "Outcome", "Why", "Tests", "Seconds")
    return [f"## Parts ({data['seconds']:.0f} s)", "", *table(head, rows, 1)]


def _failures(data: dict[str, Any]) -> list[str]:
    lines = []
    for part in data["parts"]:
        lines += [f"- `{name}`: {_cell(message)[:300]}" for name, message in part.get("tests", {}).get("failed", [])]
        lines += [f"- {part['name']}: {_cell(said)[:300]}" for said in part.get("figures", {}).get("problems", [])]
    return ["## Failures", "", *lines] if lines else []


def _skipped(data: dict[str, Any]) -> list[str]:
    counts: dict[str, int] = {}
    for part in data["parts"]:
        for why, count in part.get("tests", {}).get("skipped", {}).items():
            counts[why] = counts.get(why, 0) + count
    return ["## Skipped tests", "", *(f"- {count}: {_cell(why)}" for why, count in counts.items())] if counts else []


def _coverage(figures: dict[str, Any]) -> list[str]:
    if not figures.get("launched"):
        return []
    missing = figures["not_launched"]
    lines = [
        "## Kernels launched",
        "",
        f"{figures['calls']} small calls launch {figures['launched']} of "
        f"{figures['launched'] + len(missing)} compiled kernels.",
    ]
    return [*lines, "Not launched by them: " + ", ".join(f"`{name}`" for name in missing) + "."] if missing else lines


def _times(title: str, figures: dict[str, Any]) -> list[str]:
    rows = []
    for result in figures.get("results", []):
        if not result["times"]:
            rows.append((f"`{result['op']}`", result["label"], "differs", *[""] * 8))
            continue
        ours = result["times"]["ours"]["median"]
        recorded = result["times"].get(CAPTURED)
        others = [
            f"{name} {duration(time['median'])} ({time['median'] / ours:.2f}x)"
            for name, time in result["times"].items()
            if name not in ("ours", CAPTURED)
        ]
        share = result.get("share_of_bound")
        rows.append(
            (
                f"`{result['op']}`",
                result["label"],
                "; ".join(others),
                duration(ours),
                duration(result["times"]["ours"]["fastest"]),
                "" if recorded is None else duration(recorded["median"]),
                f"{result['gigabytes_per_second']:.3g}",
                f"{result['teraflops']:.3g}",
                "" if share is None else f"{share:.1%}",
                f"{result['times']['ours']['memory'] / 2**20:.0f}",
                result.get("clocks", ""),
            )
        )
    if not rows:
        return []
    head = ("Op", "Size", "Others", "Ours", "Fastest", "As a graph", "GB/s", "TFLOP/s", "Of the bound", "MiB", "Clocks")
    words = (
        "Medians by CUDA events after a warm-up, float32 without TF32; in brackets, how many times as long as ours. As "
        "a graph: ours too, recorded as a CUDA graph and replayed; what that saves is Python and torch on the host. "
        "GB/s and TFLOP/s are of the least that any form must move and compute (a squared distance as a multiply-add "
        "per dimension); the bound is the larger of both against the GPU's peaks. MiB: the most memory a call takes. "
        "Clocks: of multiprocessors and memory, after ours."
    )
    return [f"## {title}", "", words, "", *table(head, rows, 8)]


def _sanitizers(data: dict[str, Any]) -> list[str]:
    rows = [(part["name"], part["outcome"], "; ".join(part["summary"])) for part in data["parts"] if "summary" in part]
    return ["## compute-sanitizer", "", *table(("Tool", "Outcome", "Summary"), rows, 0)] if rows else []


def _profile(metrics: list[dict[str, str]]) -> list[str]:
    launches: dict[str, dict[str, str]] = {}
    for row in metrics:
        launch = launches.setdefault(row["ID"], {"Kernel": row["Kernel Name"]})
        launch[row["Metric Name"]] = _metric(row["Metric Name"], row["Metric Value"], row["Metric Unit"])
    if not launches:
        return []
    rows = [
        (f"`{launch['Kernel'][:90]}`", *(launch.get(name, "") for name in SHOWN), _stalls(launch))
        for launch in launches.values()
    ]
    shown = [name if len(name) < 40 else "Bank conflicts" for name in SHOWN]
    return ["## Nsight Compute", "", *table(("Kernel", *shown, "Most frequent stalls"), rows, len(SHOWN) + 1)]


def _metric(name: str, value: str, unit: str) -> str:
    unit = unit.replace("second", "s")
    if name == "Duration" and unit in NANOSECONDS:
        return duration(float(value.replace(",", "")) * NANOSECONDS[unit] * 1e-3)
    return f"{value} {unit}".strip()


def _stalls(launch: dict[str, str]) -> str:
    """The three reasons that warps wait for most often, by samples."""
    samples = {
        name.removeprefix(STALL): float(value.split()[0].replace(",", ""))
        for name, value in launch.items()
        if name.startswith(STALL) and not name.endswith("_not_issued")
    }
    most = sorted(samples, key=lambda name: -samples[name])[:3]
    return ", ".join(f"{name} {samples[name]:.0f}" for name in most)


if __name__ == "__main__":
    sys.stdout.write(page(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
