"""Times every contestant of a case in turn, after checking that they agree."""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepclust_ext._loader import build_info
from deepclust_ext._processor import processor_name
from deepclust_ext._version import __version__
from deepclust_ext.benchmark.case import Case, Contest, step
from deepclust_ext.benchmark.held import switches_in_use

OPS = ("mi_loss", "dhog_loss", "bank_nll_entropy", "jule_loss", "kmeans", "knn", "agglomerate")

# A contestant is called for about this long in each of the rounds, all contestants in turn, so that a slow moment of
# the machine meets all of them alike.
ROUNDS = 15
ROUNDS_IF_SLOW = 3
SECONDS_A_TURN = 0.02

# float32 peaks of GPUs: bytes a second of memory, operations a second without tensor cores.
ROOFLINES = {
    "H100": (3.35e12, 67e12),
    "H100 PCIe": (2.04e12, 51e12),  # the last name that fits counts
    "H200": (4.8e12, 67e12),
    "A100": (1.94e12, 19.5e12),
    "L4": (0.3e12, 30.3e12),
    "T4": (0.32e12, 8.1e12),
}


def main(ops: Sequence[str] = (), *, json_path: str | None = None, compiled: bool = True, device: str = "cpu") -> int:
    """Run the benchmarks of `ops` (all of them by default), print a table, and write the figures to `json_path`.

    Parameters
    ----------
    ops : sequence of str
        Names from `OPS`.
    json_path : str, optional
        Where the figures go as JSON; `benchmarks/report.py` makes the README's table from it. What a file from this
        machine holds of other ops stays in it.
    compiled : bool, default True
        Whether torch.compile is among the opponents; compiling them takes most of the time.
    device : str, default "cpu"
        Where to run: "cpu", or "cuda" for a GPU, where bandwidth and the share of its roofline are shown too.

    Returns
    -------
    int
        0; 1 if a contestant disagrees in some case, which is then neither timed nor written; the others are.

    Raises
    ------
    ValueError
        An op is unknown, or the device is not here.
    """
    unknown = [op for op in ops if op not in OPS]
    if unknown:
        raise ValueError(f"bench: unknown op {unknown[0]!r}; known: {', '.join(OPS)}")
    kind = torch.device(device).type
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f"bench: 'device' must be one that is here, cpu or cuda, got {device!r}")
    results = []
    for op in ops or OPS:
        module = importlib.import_module(f"deepclust_ext.benchmark.{op}")
        for case in module.cases():
            if isinstance(case, Contest):
                result = run_contest(case, device)
            else:
                absent = set() if compiled else {"compiled"}
                absent |= set() if kind == "cpu" else case.cpu_only
                opponents = {k: v for k, v in case.opponents.items() if k not in absent}
                result = run_case(case, opponents, device)
            results.append(result | {"benchmark": op})
            _print_case(result)
        # Growth with the size, on the CPU.
        for remark in module.remarks() if kind == "cpu" and hasattr(module, "remarks") else ():
            sys.stdout.write(f"{op}  {remark}\n")
    if json_path:
        timed = [result for result in results if not result["disagreement"]]
        _write(Path(json_path), {"machine": machine(device), "results": timed}, measured=ops or OPS)
    return int(any(result["disagreement"] for result in results))


def _write(path: Path, found: dict[str, Any], *, measured: Sequence[str]) -> None:
    """Write the figures; those that the file has of other ops, from this machine, stay."""
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before["machine"] == found["machine"]:
            kept = [result for result in before["results"] if result["benchmark"] not in measured]
            found["results"] = sorted(kept + found["results"], key=lambda result: OPS.index(result["benchmark"]))
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "cpu": processor_name(),
        "simd": build_info()["simd"],
        "amx": build_info()["amx"],
        "simd_of_torch": torch.backends.cpu.get_cpu_capability(),
        "held": switches_in_use(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "deepclust_ext": __version__,
        **({"gpu": torch.cuda.get_device_name(device)} if torch.device(device).type == "cuda" else {}),
    }


def run_case(case: Case, opponents: dict[str, Callable[..., Tensor]], device: str = "cpu") -> dict[str, Any]:
    """Check that everybody agrees, then take the medians of the case's turns."""
    inputs = tuple(t.to(device) for t in case.inputs(torch.Generator().manual_seed(0)))
    contestants = {name: step(loss, inputs, case.gradient) for name, loss in {"ours": case.ours, **opponents}.items()}
    disagreement = _disagreement(contestants)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    calls = {name: 1 if case.slow or disagreement else _calls_a_turn(run) for name, run in contestants.items()}
    for _ in range(0 if disagreement else ROUNDS_IF_SLOW if case.slow else ROUNDS):
        for name, run in contestants.items():
            times[name].append(_turn(run, calls[name]))
    result = _summary(case, disagreement, times)
    if torch.device(device).type == "cuda" and not disagreement:
        result["targets"] = {}  # they are the CPU's
        result["roofline"] = _roofline(case, result["microseconds"]["ours"] * 1e-6, device)
    return result


def run_contest(contest: Contest, device: str = "cpu") -> dict[str, Any]:
    """The same for whole runs: the calls that are compared serve as warm-up."""
    contestants = contest.contestants(device)
    disagreement = contest.disagreement({name: run() for name, run in contestants.items()})
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(0 if disagreement else contest.turns):
        for name, run in contestants.items():
            times[name].append(_turn(run, 1))
    result = _summary(contest, disagreement, times)
    if torch.device(device).type == "cuda":
        result["targets"] = {}  # they are the CPU's, as the remarks are
    elif not disagreement:
        result["remarks"] = contest.remarks(result["microseconds"])
    return result


def _summary(case: Case | Contest, disagreement: str, times: dict[str, list[float]]) -> dict[str, Any]:
    medians = {name: statistics.median(t) * 1e6 for name, t in times.items() if t}
    fastest = {name: min(t) * 1e6 for name, t in times.items() if t}
    return {
        "op": case.op,
        "label": case.label,
        "gradient": isinstance(case, Case) and case.gradient,
        "disagreement": disagreement,
        "microseconds": medians,
        "fastest": fastest,
        "ratios": {name: medians[name] / medians["ours"] for name in medians if name != "ours"},
        "targets": {name: target for name, target in case.targets.items() if name in medians},
    }


def _roofline(case: Case, seconds: float, device: str) -> dict[str, float]:
    """Bytes and operations a second, and the share of the time that the GPU's peaks need, where they are known."""
    size, operations = case.work
    rates = {"gigabytes_per_second": size / seconds / 1e9, "gigaflops": operations / seconds / 1e9}
    name = torch.cuda.get_device_name(device)
    for known, (bandwidth, peak) in ROOFLINES.items():
        if known in name:
            rates["share_of_roofline"] = max(size / bandwidth, operations / peak) / seconds
    return rates


def _disagreement(contestants: dict[str, Callable[[], tuple[Tensor, ...]]]) -> str:
    """The first opponent whose loss or gradients differ from ours, or nothing."""
    ours = contestants["ours"]()
    for name, run in contestants.items():
        for got, want in zip(run(), ours, strict=True):
            error, scale = (got - want).abs().max().item(), want.abs().max().item()
            if not error <= 1e-3 * scale + 1e-6:
                return f"{name}: off by {error:.1e} where the largest value is {scale:.1e}"
    return ""


def _synchronise() -> None:
    """Wait for the GPU, if one is in use: its calls return before their work is done."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _turn(run: Callable[[], Any], calls: int) -> float:
    _synchronise()
    start = time.perf_counter()
    for _ in range(calls):
        run()
    _synchronise()
    return (time.perf_counter() - start) / calls


def _calls_a_turn(run: Callable[[], Any]) -> int:
    run()
    return max(1, int(SECONDS_A_TURN / _turn(run, 3)))


def _print_case(result: dict[str, Any]) -> None:
    out = sys.stdout
    out.write(f"{result['op']}  {result['label']}{'  (forward + backward)' if result['gradient'] else ''}\n")
    if result["disagreement"]:
        out.write(f"  DISAGREEMENT {result['disagreement']}\n")
        return
    for name, microseconds in result["microseconds"].items():
        ratio = result["ratios"].get(name)
        target = result["targets"].get(name)
        out.write(f"  {name:<16}{microseconds:>12,.1f} us")
        out.write(f" (fastest {result['fastest'][name]:,.1f})")
        out.write(f"{ratio:>8.2f}x" if ratio else "")
        out.write(f"  (target {target:g}x)" if target else "")
        out.write("\n")
    for name, value in result.get("roofline", {}).items():
        out.write(f"  {name:<24}{value:>8.3g}\n")
    for remark in result.get("remarks", ()):
        out.write(f"  {remark}\n")
    out.flush()
