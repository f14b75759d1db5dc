"""No CUDA kernel spills, warns, or takes more registers or shared memory than ptxas_budget.json allows."""

from __future__ import annotations

import json
import os
import shutil
import warnings

import pytest
import torch
from support import ptxas_budget
from support.ptxas_budget import ARCHITECTURES, Usage

import setup_cuda


@pytest.fixture(scope="module")
def toolkit() -> setup_cuda.Toolkit:
    if shutil.which("c++filt") is None:
        pytest.skip("needs binutils")
    try:
        return setup_cuda.find_toolkit(os.environ, torch.version.cuda)
    except setup_cuda.Unfit as unfit:
        pytest.skip(f"needs nvcc: {unfit.problem}")


def test_kernels_keep_to_the_budget(toolkit):
    budget = json.loads(ptxas_budget.BUDGET.read_text())
    assert budget["architectures"] == list(ARCHITECTURES)
    measured = ptxas_budget.measure(toolkit)  # fails on any warning
    assert [name for name, usages in measured.items() if any(usage.spills for usage in usages.values())] == []
    if budget["nvcc"] != ptxas_budget.release_text(toolkit):
        pytest.skip(f"the figures are nvcc {budget['nvcc']}'s: warnings and spills alone were checked")
    broken, better = ptxas_budget.compare(measured, budget["kernels"])
    for line in better:
        warnings.warn(line, stacklevel=1)
    assert broken == [], "\n".join([*broken, "if that is meant: python python_tests/support/ptxas_budget.py --update"])


def test_every_kernel_file_is_compiled():
    assert ptxas_budget.orphans(ptxas_budget.ROOT / "csrc/cuda") == []


def test_an_orphan_is_found(tmp_path):
    (tmp_path / "one.cu").write_text('#include "shared.cuh"\n')
    (tmp_path / "shared.cuh").write_text('#include "one_kernel.cuh"\n')
    (tmp_path / "one_kernel.cuh").write_text("")
    (tmp_path / "two_kernel.cuh").write_text("")
    assert ptxas_budget.orphans(tmp_path) == ["two_kernel.cuh"]


REPORT = """\
ptxas info    : Compiling entry function 'void deepclust::cuda::sums<float, (Mode)1>(T*)' for 'sm_75'
ptxas info    : Function properties for void deepclust::cuda::(anonymous namespace)::sums<float, (Mode)1>(float*)
    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 72 registers, used 1 barriers, 1024 bytes smem, 364 bytes cmem[0]
ptxas info    : Function properties for _INTERNAL_a7_4_s_cu_ed::deepclust::cuda::helper<A<int> >(float)
    32 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Compiling entry function 'void deepclust::cuda::sums<float, (Mode)1>(T*)' for 'sm_120'
ptxas info    : Function properties for void deepclust::cuda::(anonymous namespace)::sums<float, (Mode)1>(float*)
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers
"""


def test_the_report_is_read_by_kernel_and_architecture():
    assert ptxas_budget.parse_report("s.cu", REPORT) == {
        "s.cu: sums<float, (Mode)1>": {"7.5": Usage(72, 1024, 16, 12), "12.0": Usage(40, 0, 0, 0)},
        "s.cu: helper<A<int>>": {"7.5": Usage(0, 0, 32, 0)},
    }


@pytest.mark.parametrize(
    ("usage", "complaint"),
    [
        (Usage(40, 1024, 0, 0), None),
        (Usage(41, 1024, 0, 0), "registers 41 on 8.6, budget 40"),
        (Usage(40, 1025, 0, 0), "shared 1025 on 8.6, budget 1024"),
        (Usage(40, 1024, 8, 0), "stack 8 on 8.6, budget 0"),
        (Usage(40, 1024, 0, 4), "spills 4 bytes on 8.6"),
    ],
)
def test_what_exceeds_a_budget_is_named(usage, complaint):
    usages = {architecture: Usage(40, 1024, 0, 0) for architecture in ARCHITECTURES}
    budget = {"a.cu: k": ptxas_budget.line(usages)}
    assert budget["a.cu: k"] == {"registers": 40, "shared": 1024, "stack": 0}
    broken, better = ptxas_budget.compare({"a.cu: k": {**usages, "8.6": usage}}, budget)
    assert better == []
    assert broken == [] if complaint is None else complaint in broken[0]


def test_lower_new_and_gone_kernels_are_reported():
    usages = {architecture: Usage(40, 0, 0, 0) for architecture in ARCHITECTURES}
    usages["9.0"] = Usage(38, 0, 0, 0)
    budget = {"a.cu: k": {"registers": 40, "shared": 0, "stack": 0}, "a.cu: old": {}}
    broken, better = ptxas_budget.compare({"a.cu: k": usages, "a.cu: new": usages}, budget)
    assert better == ["a.cu: k: registers on 9.0 can be lowered from 40 to 38"]
    assert '"a.cu: new": {"registers": [40, 40, 40, 38, 40, 40], "shared": 0, "stack": 0}' in broken[0]
    assert broken[1] == "a.cu: old is gone; remove its line from ptxas_budget.json"
    written = json.loads(ptxas_budget.dump("13.0", {"a.cu: k": usages}))
    assert ptxas_budget.compare({"a.cu: k": usages}, written["kernels"]) == ([], [])


SPILLING = """
__global__ void __launch_bounds__(1024, 1) spilling(float* x, int n) {
  float sums[96];
#pragma unroll
  for (int i = 0; i < 96; ++i) sums[i] = x[i * n];
  for (int step = 0; step < n; ++step) {
#pragma unroll
    for (int i = 0; i < 96; ++i) sums[i] += sums[(i * 7 + 1) % 96] * x[step];
  }
#pragma unroll
  for (int i = 0; i < 96; ++i) x[i] = sums[i];
}
"""


def test_a_real_spill_a_warning_and_the_cache(toolkit, tmp_path):
    source = tmp_path / "spilling.cu"
    source.write_text(SPILLING)
    flags = [*setup_cuda.gencode_flags(["8.6"]), "-Werror", "all-warnings", "-Xptxas", "-v"]
    text = ptxas_budget.compile_report(source, toolkit, flags, tmp_path / "cache")
    assert ptxas_budget.parse_report("spilling.cu", text)["spilling.cu: spilling"]["8.6"].spills > 0
    (cached,) = (tmp_path / "cache").iterdir()
    cached.write_text("from the cache")
    assert ptxas_budget.compile_report(source, toolkit, flags, tmp_path / "cache") == "from the cache"
    source.write_text("__global__ void idle(float* x) { int unused; }\n")
    with pytest.raises(AssertionError, match=r"nvcc refuses spilling\.cu"):
        ptxas_budget.compile_report(source, toolkit, flags, tmp_path / "cache")
