"""What g++ keeps on the stack in the AVX2 code of each CPU kernel, held against stack_budget.json.

g++ 12 sends some 32-byte vectors through memory where they belong in registers, and a kernel then takes several times
as long with every result still right. So accesses of 32 bytes to the stack are counted in the built library.

python python_tests/support/stack_budget.py             shows what is over budget, new, or can be lowered
python python_tests/support/stack_budget.py --update    writes the JSON anew; review its diff
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUDGET = ROOT / "python_tests/build/stack_budget.json"

KERNEL = re.compile(
    r"^[0-9a-f]+ <(?:\w+ )*deepclust::cpu::run_avx2<deepclust::cpu::\(anonymous namespace\)::(\w+)(.*)>:$"
)
ACCESS = re.compile(r"%ymm.*\((?:%rsp|%rbp)[,)]|\((?:%rsp|%rbp)[,)].*%ymm")


def library() -> Path:
    """The CPU library in use."""
    import deepclust_ext

    return Path(deepclust_ext.__file__).with_name(deepclust_ext.build_info()["cpu_library"])


def compiler(path: Path) -> str:
    """What the library says it was compiled with, such as `GCC 12`; another one keeps other things on the stack."""
    shown = subprocess.run(["readelf", "-p", ".comment", path], capture_output=True, text=True, check=True).stdout
    found = re.search(r"GCC: \(.*\) (\d+)", shown)
    return f"GCC {found[1]}" if found else "unknown"


def parse(disassembly: str) -> dict[str, int]:
    """Accesses by kernel, `GemmTile<float>`, in what objdump shows."""
    counts: dict[str, int] = {}
    name = None
    for line in disassembly.splitlines():
        if line.endswith(">:"):
            found = KERNEL.match(line)
            element = re.search(r"\b(float|double)\b", found[2]) if found else None
            name = f"{found[1]}<{element[1]}>" if found and element else found[1] if found else None
            if name is not None:
                counts.setdefault(name, 0)
        elif name is not None and ACCESS.search(line):
            counts[name] += 1
    return counts


def measure(path: Path) -> dict[str, int]:
    """Accesses by kernel in a library."""
    shown = subprocess.run(
        ["objdump", "-d", "-C", "--no-show-raw-insn", path], capture_output=True, text=True, check=True
    )
    return parse(shown.stdout)


def compare(measured: dict[str, int], budget: dict[str, int]) -> tuple[list[str], list[str]]:
    """What breaks the budget, and what has become better than it."""
    broken = [
        f"{name} is new; add to {BUDGET.name}: {json.dumps(name)}: {count}"
        if name not in budget
        else f"{name}: {count} accesses of 32 bytes to the stack, budget {budget[name]}"
        for name, count in measured.items()
        if count > budget.get(name, -1)
    ]
    broken += [f"{name} is gone; remove its line from {BUDGET.name}" for name in budget if name not in measured]
    better = [
        f"{name}: can be lowered from {budget[name]} to {count}"
        for name, count in measured.items()
        if count < budget.get(name, count)
    ]
    return broken, better


def main(words: list[str]) -> int:
    """Compare, or write the JSON anew."""
    path = library()
    measured = measure(path)
    if words == ["--update"]:
        content = {"compiler": compiler(path), "kernels": dict(sorted(measured.items()))}
        BUDGET.write_text(json.dumps(content, indent=2) + "\n")
    elif words:
        sys.exit(__doc__)
    broken, better = compare(measured, json.loads(BUDGET.read_text())["kernels"])
    print("\n".join([*broken, *better, f"{len(measured)} kernels, {len(broken)} over budget"]))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
