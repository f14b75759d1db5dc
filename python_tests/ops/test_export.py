"""Ops in a program that torch.export writes, and in one that AOTInductor compiles: the same bits as in eager mode."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from deepclust_ext import kmeans_assign, knn, mi_loss

N = torch.export.Dim("n", min=4)


class Searches(torch.nn.Module):
    """Rows x [n, 8] of any number, three centroids."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centroids", torch.randn(3, 8, generator=torch.Generator().manual_seed(1)))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        nearest = knn(self.centroids, 2, query=x, metric="cosine")
        return *knn(x, 3), *nearest, *kmeans_assign(x, self.centroids)


class Loss(torch.nn.Module):
    """Two batches of probabilities."""

    def forward(self, p: Tensor, q: Tensor) -> tuple[Tensor, ...]:
        return (mi_loss(p, q),)


class Both(torch.nn.Module):
    """Of the rows, and of two batches of probabilities made of them."""

    def __init__(self) -> None:
        super().__init__()
        self.searches, self.loss = Searches(), Loss()

    def forward(self, x: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, ...]:
        return *self.searches(x), *self.loss(p, q)


def rows(n: int) -> tuple[Tensor, ...]:
    return (torch.randn(n, 8, generator=torch.Generator().manual_seed(n)),)


def probabilities(n: int) -> tuple[Tensor, ...]:
    p = torch.randn(2, n, 5, generator=torch.Generator().manual_seed(n)).softmax(-1)
    return p[0].clone(), p[1].clone()


def both(n: int) -> tuple[Tensor, ...]:
    return *rows(n), *probabilities(n)


CASES = [(Searches, rows), (Loss, probabilities)]
every_case = pytest.mark.parametrize(("module", "inputs"), CASES, ids=["searches", "mi_loss"])


def exported(module: type[torch.nn.Module], inputs) -> torch.export.ExportedProgram:
    sample = inputs(50)
    return torch.export.export(module(), sample, dynamic_shapes=tuple({0: N} for _ in sample))


def assert_same(got: tuple[Tensor, ...], want: tuple[Tensor, ...]) -> None:
    assert len(got) == len(want)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@every_case
def test_an_exported_program_of_any_number_of_rows(module, inputs, tmp_path):
    program = exported(module, inputs)
    assert "deepclust." in str(program.graph)
    torch.export.save(program, tmp_path / "program.pt2")
    loaded = torch.export.load(tmp_path / "program.pt2").module()
    for n in (50, 77):
        assert_same(loaded(*inputs(n)), module()(*inputs(n)))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_a_program_that_aot_inductor_compiled(tmp_path, monkeypatch):
    """Another process loads it, where `import deepclust_ext` brings the ops."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    package = torch._inductor.aoti_compile_and_package(
        exported(Both, both), package_path=str(tmp_path / "compiled.pt2")
    )
    torch.save([(both(n), Both()(*both(n))) for n in (50, 77)], tmp_path / "expected.pt")
    code = f"""
import torch, deepclust_ext
program = torch._inductor.aoti_load_package({package!r})
for given, expected in torch.load({str(tmp_path / "expected.pt")!r}):
    assert all(torch.equal(a, b) for a, b in zip(program(*given), expected, strict=True))
print("same bits")
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert ended.stdout == "same bits\n", ended.stderr[-2000:]
