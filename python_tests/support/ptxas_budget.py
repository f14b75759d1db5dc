"""What ptxas makes of each CUDA kernel: registers, shared memory, stack, spills, held against ptxas_budget.json.

python python_tests/support/ptxas_budget.py             shows what is over budget, new, or can be lowered
python python_tests/support/ptxas_budget.py --update    writes the JSON anew; review its diff
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))
import setup_cuda  # noqa: E402 - beside setup.py, outside of every package

BUDGET = ROOT / "python_tests/build/ptxas_budget.json"
CACHE = ROOT / "build/budget"
ARCHITECTURES = setup_cuda.DEFAULT_ARCHITECTURES
STRICT = ["-Werror", "all-warnings", "-Xptxas", "-v"]
FLAGS = [*setup_cuda.NVCC_FLAGS, *setup_cuda.gencode_flags(ARCHITECTURES), *STRICT]
FIGURES = ("registers", "shared", "stack")  # bytes but for the registers


@dataclass
class Usage:
    """One kernel (or device function that was not inlined) on one architecture; bytes but for the registers."""

    registers: int = 0
    shared: int = 0
    stack: int = 0
    spills: int = 0


Measured = dict[str, dict[str, Usage]]  # "mi_loss.cu: kernel<float>" -> "8.6" -> usage


def sources() -> list[Path]:
    """Every file that nvcc compiles."""
    return sorted((ROOT / "csrc/cuda").glob("*.cu"))


def orphans(folder: Path) -> list[str]:
    """The `_kernel.cuh` files that no .cu includes, directly or through another file: no gate would see them."""
    seen: set[Path] = set()
    waiting = [path.resolve() for path in folder.glob("*.cu")]
    while waiting:
        path = waiting.pop()
        if path not in seen and path.exists():
            seen.add(path)
            waiting += [(path.parent / name).resolve() for name in re.findall(r'#include "([^"]+)"', path.read_text())]
    return [path.name for path in sorted(folder.glob("*_kernel.cuh")) if path.resolve() not in seen]


def report_path(source: Path, release: tuple[int, int], flags: list[str], cache: Path) -> Path:
    """Where the report on a .cu is kept: another place where a source, a flag or nvcc has changed."""
    key = hashlib.sha256("\0".join([str(release), str(source), *flags]).encode())
    for path in [source, *sorted(p for p in (ROOT / "csrc").rglob("*") if p.suffix in (".h", ".cuh"))]:
        key.update(path.read_bytes())
    return cache / f"{source.name}.{key.hexdigest()[:16]}.txt"


def keep_report(report: Path, printed: str) -> str:
    """The report in what nvcc printed, kept in place of earlier ones on the same source."""
    report.parent.mkdir(parents=True, exist_ok=True)
    for old in report.parent.glob(f"{report.name.rsplit('.', 2)[0]}.*.txt"):
        old.unlink(missing_ok=True)
    text = demangle(printed)
    partial = report.with_suffix(f".{os.getpid()}")
    partial.write_text(text)
    partial.rename(report)
    return text


def compile_report(source: Path, toolkit: setup_cuda.Toolkit, flags: list[str], cache: Path) -> str:
    """ptxas' report on a .cu: the kept one, or that of compiling it now."""
    report = report_path(source, toolkit.release, flags, cache)
    if report.exists():
        return report.read_text()
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [toolkit.nvcc, *flags, "-c", source, "-o", f"{folder}/kernel.o"],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise AssertionError(f"nvcc refuses {source.name}:\n{done.stdout}{done.stderr}")
    return keep_report(report, done.stdout + done.stderr)


def demangle(text: str) -> str:
    """The report with C++ names."""
    return subprocess.run(["c++filt"], input=text, capture_output=True, text=True, check=True).stdout


def short_name(demangled: str) -> str:
    """`kernel<float, 32>` of `void deepclust::cuda::kernel<float, 32>(float*)`."""
    name = re.sub(r"deepclust::(cuda::)?|\(anonymous namespace\)::|_INTERNAL_\w+::|^void ", "", demangled)
    name = re.sub(r">\s+(?=>)", ">", name)  # c++filt's versions differ in it
    depth = 0
    for index, character in enumerate(name):
        depth += (character == "<") - (character == ">")
        if character == "(" and depth == 0:
            return name[:index]
    return name


def parse_report(file: str, text: str) -> Measured:
    """The figures in ptxas' report on `file`."""
    measured: Measured = {}
    architecture, usage = "", Usage()
    for line in text.splitlines():
        if found := re.search(r"Compiling entry function '(.+)' for 'sm_(\d+)(\d)[af]?'", line):
            architecture = f"{found[2]}.{found[3]}"
        elif found := re.search(r"Function properties for (.+)$", line):
            kernels = measured.setdefault(f"{file}: {short_name(found[1].strip())}", {})
            usage = kernels.setdefault(architecture, Usage())
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            usage.stack = max(usage.stack, int(found[1]))
            usage.spills += int(found[2]) + int(found[3])
        elif found := re.search(r"Used (\d+) registers", line):
            usage.registers = max(usage.registers, int(found[1]))
            if found := re.search(r"(\d+) bytes smem", line):
                usage.shared = max(usage.shared, int(found[1]))
    return measured


def measure(toolkit: setup_cuda.Toolkit) -> Measured:
    """The figures of every kernel in csrc/cuda."""

    def one(source: Path) -> Measured:
        return parse_report(source.name, compile_report(source, toolkit, FLAGS, CACHE))

    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        return {name: usage for report in pool.map(one, sources()) for name, usage in report.items()}


def line(usages: dict[str, Usage]) -> dict[str, int | list[int]]:
    """A kernel's line: one number where all architectures agree, else one for each."""
    figures = {}
    for figure in FIGURES:
        values = [getattr(usages[architecture], figure) for architecture in ARCHITECTURES]
        figures[figure] = values[0] if len(set(values)) == 1 else values
    return figures


def compare(measured: Measured, budget: dict[str, dict[str, int | list[int]]]) -> tuple[list[str], list[str]]:
    """What breaks the budget, and what has become better than it."""
    broken, better = [], []
    for name, usages in measured.items():
        broken += [f"{name} spills {usage.spills} bytes on {arch}" for arch, usage in usages.items() if usage.spills]
        if name not in budget:
            broken.append(f"{name} is new; add to {BUDGET.name}:  {json.dumps(name)}: {json.dumps(line(usages))}")
            continue
        for figure in FIGURES:
            allowed = budget[name][figure]
            limits = allowed if isinstance(allowed, list) else [allowed] * len(ARCHITECTURES)
            for architecture, limit in zip(ARCHITECTURES, limits, strict=True):
                used = getattr(usages[architecture], figure)
                if used > limit:
                    broken.append(f"{name}: {figure} {used} on {architecture}, budget {limit}")
                elif used < limit:
                    better.append(f"{name}: {figure} on {architecture} can be lowered from {limit} to {used}")
    broken += [f"{name} is gone; remove its line from {BUDGET.name}" for name in budget if name not in measured]
    return broken, better


def release_text(toolkit: setup_cuda.Toolkit) -> str:
    """The nvcc that figures are of; another one allots other registers."""
    return ".".join(map(str, toolkit.release))


def dump(release: str, measured: Measured) -> str:
    """The JSON, one line a kernel, so that a diff reads well."""
    head = {"nvcc": release, "architectures": list(ARCHITECTURES)}
    lines = [f"    {json.dumps(name)}: {json.dumps(line(measured[name]))}" for name in sorted(measured)]
    body = "{\n" + ",\n".join(lines) + "\n  }" if lines else "{}"
    return (
        "{\n"
        + "".join(f"  {json.dumps(k)}: {json.dumps(v)},\n" for k, v in head.items())
        + f'  "kernels": {body}\n}}\n'
    )


def main(words: list[str]) -> int:
    """Compare, or write the JSON anew."""
    import torch

    toolkit = setup_cuda.find_toolkit(os.environ, torch.version.cuda)
    measured = measure(toolkit)
    if words == ["--update"]:
        BUDGET.write_text(dump(release_text(toolkit), measured))
    elif words:
        sys.exit(__doc__)
    broken, better = compare(measured, json.loads(BUDGET.read_text())["kernels"])
    print("\n".join([*broken, *better, f"{len(measured)} kernels, {len(broken)} over budget"]))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
