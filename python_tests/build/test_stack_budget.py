"""No CPU kernel keeps more vectors on the stack at AVX2 than stack_budget.json allows."""

from __future__ import annotations

import json
import platform
import shutil
import warnings

import pytest
from support import stack_budget

TOOLS = shutil.which("objdump") is not None and shutil.which("readelf") is not None


@pytest.mark.skipif(not TOOLS or platform.machine() != "x86_64", reason="needs binutils and an x86-64 build")
def test_kernels_keep_to_the_budget():
    budget, path = json.loads(stack_budget.BUDGET.read_text()), stack_budget.library()
    if stack_budget.compiler(path) != budget["compiler"]:
        pytest.skip(f"the figures are {budget['compiler']}'s")
    broken, better = stack_budget.compare(stack_budget.measure(path), budget["kernels"])
    for line in better:
        warnings.warn(line, stacklevel=1)
    assert broken == [], "\n".join([*broken, "if that is meant: python python_tests/support/stack_budget.py --update"])


REPORT = """\
0000000000000000 <auto {run}avx2<{here}Product, deepclust::cpu::Panels<float> const&>(long&)>:
   0:	vmovaps %ymm5,0xc0(%rsp)
   8:	vmovups (%rdx),%ymm0
   c:	vaddps -0x20(%rbp),%ymm1,%ymm0
  10:	vmovaps %xmm1,0x10(%rsp)
0000000000000040 <auto {run}avx2<{here}Product, deepclust::cpu::Panels<float> const&>(long&) [clone .cold]>:
  40:	vmovaps 0xc0(%rsp,%rax,4),%ymm5
0000000000000080 <auto {run}avx512<{here}Product, float>(long&)>:
  80:	vmovaps %ymm5,0xc0(%rsp)
00000000000000c0 <auto {run}avx2<{here}CodeRows, int>(int&)>:
  c0:	ret
"""


def test_accesses_are_counted_by_kernel():
    report = REPORT.format(run="deepclust::cpu::run_", here="deepclust::cpu::(anonymous namespace)::")
    assert stack_budget.parse(report) == {"Product<float>": 3, "CodeRows": 0}


def test_what_exceeds_the_budget_is_named():
    broken, better = stack_budget.compare({"A": 3, "B": 1, "C": 0}, {"A": 2, "C": 4, "D": 0})
    assert broken[0] == "A: 3 accesses of 32 bytes to the stack, budget 2"
    assert broken[1].startswith("B is new")
    assert broken[2].startswith("D is gone")
    assert better == ["C: can be lowered from 4 to 0"]
