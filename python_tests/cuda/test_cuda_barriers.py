"""Every DC_SYNC of every CUDA kernel is needed: without it the emulated op fails or comes out wrong."""

from __future__ import annotations

import faulthandler
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from support.emulated import GRAPHS, LOSSES, SEARCHES, call, emu
from support.emulator import ROOT, SCHEDULES, directory
from support.opspecs import OPSPECS, points, rows

CUDA = ROOT / "csrc" / "cuda"
SYNC = re.compile(r"\bDC_SYNC\(\);")
SOURCES = sorted(CUDA.glob("*.cuh"))
SITES = [
    (path.name, number)
    for path in SOURCES
    for number, line in enumerate(path.read_text().splitlines(), 1)
    if SYNC.search(line) and not line.lstrip().startswith("//")
]

# Small, and together through every kernel: both tiles, several steps of k, several chunks, small and large joints,
# several blocks that finish.
G = torch.Generator().manual_seed(0)
MISSED, UNSEEN, UNKNOWN = range(3)  # what a deletion comes to
CASES = [
    ("mi_loss", (rows(G, 1, 90, 5), rows(G, 1, 90, 5)), {}),
    ("mi_loss", (rows(G, 1, 70, 40).float(), rows(G, 1, 70, 36).float()), {"symmetric": False}),
    ("mi_loss", (rows(G, 1, 3, 270).float(), rows(G, 1, 3, 270).float()), {}),
    ("dhog_loss", (rows(G, 2, 3, 40, 4).float(),), {}),
    ("jule_loss", (torch.randn(270, 3, generator=G),), {"clusters": 130, "n_negatives": 3}),
]
# Two slabs of depth, two tiles of centroids, two tiles of a scan, several empty clusters; more weights than a block
# of them holds; and one point again and again, where every seed is any other.
FEW, MANY = points(G, 40, 18).float(), points(G, 270, 1, spread=3.0)
EQUAL, WEIGHTS = torch.ones(9, 1), torch.arange(270, dtype=torch.float64).remainder(9) / 9
ALONE = torch.cat([FEW[:1] + 1000, FEW])
GRID = points(G, 300, 2).float().round()  # copies, so that the index decides as well
# Two ranges of the bank, the last tile of the second with one row; two slabs of columns.
BANK, PLACES = points(G, 321, 18), torch.tensor([0, 320, 7])
BANK_ARGUMENTS = (PLACES, torch.tensor([[5, -1], [-1, 0], [7, 319]]), 2.0)
# First neighbours close by, so that every tile of every chunk has roots, and no two as many.
NEAR = torch.arange(3000).add(torch.arange(3000) * 7919 % 101 % 5 - 2).clamp(0, 2999).unsqueeze(1)
SEARCH_CASES = [
    ("kmeans_assign", (FEW, FEW[:20] + 0.1)),
    ("kmeans_assign", (points(G, 130, 40).float(), points(G, 300, 40).float(), 128)),
    ("kmeans", (FEW, torch.cat([FEW[:3], FEW[:3] + 50]), 6, 0, 2, 0.0, 0, False)),
    ("kmeans", (FEW, torch.cat([FEW[:3], FEW[:3] + 50]), 6, 0, 1, 0.0, 1, False)),
    ("kmeans", (MANY, MANY, 270, 0, 1, 0.0, 2, False)),
    ("kmeans_plusplus", (points(G, 1100, 2, clusters=9, spread=0.01), 8, 1)),
    ("kmeans_plusplus", (EQUAL, 5, 0)),
    ("kmeans", (FEW, torch.cat([FEW[:3], FEW[:3] + 50]), 6, 0, 2, 0.0, 0, False, WEIGHTS[:40])),
    ("kmeans_plusplus", (MANY, 5, 1, WEIGHTS)),
    ("kmeans_plusplus", (EQUAL, 5, 0, WEIGHTS[:9])),
    ("knn", (FEW, None, 3, "euclidean")),
    ("knn", (GRID, GRID[:2], 200, "euclidean")),
    ("knn", (points(G, 400, 40).float(), points(G, 9, 40).float(), 7, "euclidean", (1, 1 << 20))),
    ("bank_nll_entropy", (BANK[9:12].float(), BANK.float(), *BANK_ARGUMENTS, True, True, True)),
    ("bank_nll_entropy", (BANK[9:12], BANK, *BANK_ARGUMENTS, True, False, True)),
    ("affinity_weights", (points(G, 300, 20).square(), 1.0)),
    ("initial_clusters", (NEAR,)),
    ("knn", (points(G, 5000, 1), points(G, 2, 1), 3, "euclidean")),  # lists of ten chunks
    # Seeds in blocks of weights beyond the first; a first centroid that stays while others move, and one is empty.
    ("kmeans_plusplus", (points(G, 2100, 2, clusters=9, spread=0.01), 8, 1)),
    ("kmeans", (ALONE, torch.cat([ALONE[:1], FEW[:2], FEW[:1] + 5000]), 4, 0, 3, 0.0, 0, False)),
]


def outcomes(file: str = "") -> Iterator[tuple[tuple[int, int], list[torch.Tensor]]]:
    """By schedule and case: its outputs and gradients. Cases of the op that `file` is named after come first."""
    ordered = sorted(enumerate([*CASES, *SEARCH_CASES]), key=lambda item: not file.startswith(item[1][0].strip("_")))
    for turn, schedule in enumerate(SCHEDULES):
        for place, (name, arguments, *kwargs) in ordered:
            emu.set_schedule(*schedule)
            if kwargs:
                upstream = torch.full((1,) if name == "mi_loss" else (), 2.0, dtype=arguments[0].dtype)
                outputs, grads = call(name, arguments, *kwargs, upstream)
                yield (turn, place), [*outputs, *grads]
            else:
                found = (SEARCHES | GRAPHS)[name](*arguments)
                yield (turn, place), [found] if isinstance(found, torch.Tensor) else list(found)


def survives(right: dict[tuple[int, int], list[torch.Tensor]], file: str = "") -> bool:
    """Whether a missing barrier goes unseen; the first case that sees it ends the search."""
    try:
        return all(torch.equal(a, b) for key, found in outcomes(file) for a, b in zip(found, right[key], strict=True))
    except RuntimeError:  # the emulator's, or that of an op which refuses what it now sees
        return False


@pytest.fixture(scope="module")
def right():
    yield dict(outcomes())
    emu.set_schedule("forward")


def test_the_sites_are_found():
    assert len(SITES) >= 8
    named = {name for name, *_ in [*CASES, *SEARCH_CASES]}
    assert {spec.raw_name or spec.name for spec in OPSPECS if spec.name in LOSSES} <= named


def in_a_child(check: Callable[[], int]) -> int:
    """What `check` returns in a process of its own; below 0 where that is killed: a place that a barrier has not
    brought up to date may lie anywhere in memory."""
    child = os.fork()
    if child == 0:
        code = UNKNOWN
        try:
            faulthandler.disable()
            torch.set_num_threads(1)  # those of a pool have not come along
            code = check()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("site", SITES, ids=lambda site: f"{site[0]}:{site[1]}")
def test_a_barrier_that_is_skipped_is_missed(site, right):
    def check() -> int:
        emu.set_deleted_barrier(*site)
        if survives(right, site[0]):
            return UNSEEN
        return MISSED if emu.deleted_barrier_hits() > 0 else UNKNOWN

    outcome = in_a_child(check)
    assert outcome != UNSEEN, f"{site[0]}:{site[1]}: no case needs this DC_SYNC"
    assert outcome == MISSED or outcome < 0


def test_without_deletions_the_cases_repeat(right):
    assert survives(right)


RUN = """
import sys
sys.path[:0] = sys.argv[1:3]
import torch
from test_cuda_barriers import survives
right = torch.load(sys.argv[3], weights_only=True)
print("survives" if survives(right, sys.argv[4]) else "fails")
"""


# A kernel with a file of its own, a step that two ops share, and a function that many kernels call.
DELETED = ("bank_finish_kernel.cuh", "row_codes_kernel.cuh", "scan.cuh")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        name if name in DELETED else pytest.param(name, marks=pytest.mark.exhaustive)
        for name in sorted({name for name, _ in SITES})
    ],
)
def test_a_barrier_that_is_deleted_from_the_text_is_missed(name, right, tmp_path):
    """The emulator's hook stands for the deletion: here is the deletion itself, on a copy, compiled anew."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    copy = tmp_path / "csrc"
    shutil.copytree(ROOT / "csrc", copy)
    path = copy / "cuda" / name
    path.write_text(SYNC.sub(";", path.read_text(), count=1))
    assert path.read_text() != (CUDA / name).read_text()

    bound = [path.stem.removeprefix("bind_") for path in directory().glob("bind_*.d") if f"/{name}" in path.read_text()]
    includes = subprocess.run(
        [sys.executable, "-m", "pybind11", "--includes"], capture_output=True, text=True, check=True
    ).stdout.split()
    objects = [path for path in directory().glob("*.o") if path.stem not in {f"bind_{op}" for op in bound}]
    compiles = []
    for op in bound:
        objects.append(tmp_path / f"bind_{op}.o")
        command = ["g++", "-O0", "-std=c++20", "-fPIC", "-fvisibility=hidden", *includes]
        compiles.append(subprocess.Popen([*command, "-c", copy / "emu" / f"bind_{op}.cpp", "-o", objects[-1]]))
    assert [process.wait() for process in compiles] == [0] * len(compiles)
    subprocess.run(["g++", "-shared", *objects, "-o", tmp_path / "_emu.so"], check=True)

    torch.save(right, tmp_path / "right.pt")
    folders = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
    ended = subprocess.run(
        [sys.executable, "-c", RUN, *folders, tmp_path / "right.pt", name],
        env={**os.environ, "DEEPCLUST_EMU_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout == "fails\n", ended.stderr
