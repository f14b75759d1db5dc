"""What is run, in this order: the question of each part, its command, and how long it may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TESTS = "python_tests"
# Each test by name as it ends, and where one is that hangs: a killed process leaves no report.
TOLD = ("-vv", "-o", "faulthandler_timeout=40", "-p", "no:cacheprovider", "--durations=8", "--tb=short")


@dataclass(frozen=True)
class Part:
    """A command and its limit in seconds.

    In `words`, {python}, {device}, {size} and {result} are filled in; `result` is "json" where the command
    writes its figures to {result}, "tests" where it is pytest, which writes its report there, "metrics" where its
    output is Nsight Compute's. `tool` is the program without which the part is left out. `workers`: pytest's, where it
    can have several.
    """

    name: str
    title: str
    seconds: float
    words: Sequence[str]
    result: str = "json"
    tool: str | None = None
    workers: int = 0
    on_gpu_only: bool = False


def _module(name: str, *words: str) -> tuple[str, ...]:
    return ("{python}", "-m", f"benchmarks.gpu_check.{name}", "--device", "{device}", *words)


def _tests(mark: str, *files: str) -> tuple[str, ...]:
    paths = (f"{TESTS}/{name}" for name in files)
    return ("{python}", "-m", "pytest", "-m", mark, *TOLD, "--junitxml={result}", *paths)


def _sanitizer(tool: str, seconds: int, *words: str) -> Part:
    """No call begins after `seconds`, and the last ones have half a minute to end."""
    made = _module("calls", "--seconds", str(seconds))
    return Part(
        tool,
        f"compute-sanitizer {tool}: every kernel once",
        seconds + 30,
        ("compute-sanitizer", "--tool", tool, *words, "--error-exitcode", "1", *made),
        result="output",
        tool="compute-sanitizer",
        on_gpu_only=True,
    )


SECTIONS = ("SpeedOfLight", "SchedulerStats", "WarpStateStats", "MemoryWorkloadAnalysis", "Occupancy", "LaunchStats")
HEAVIEST = "regex:^(filter_candidates|tighten_limits|limit_points|products)"
PROFILE = (
    "ncu", "--clock-control", "none", "--csv", "--page", "details",
    *(word for section in SECTIONS for word in ("--section", section)),
    "--metrics", "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum,group:smsp__pcsamp_warp_stall_reasons",
    "--kernel-name-base", "function", "--kernel-name", HEAVIEST, "--launch-count", "12",
)  # fmt: skip

PARTS = (
    Part(
        "first",
        "the CUDA library is loaded and has code for this GPU; every op runs",
        60,
        _module("first", "--json", "{result}"),
    ),
    Part(
        "tests",
        "the ops' tests on a GPU",
        130,
        _tests(
            "cuda and not slow",
            "ops/test_ops.py",
            "cuda/test_cuda_gpu.py",
            "cuda/test_cuda_gpu_search.py",
            "cuda/test_cuda_bank.py",
            "cuda/test_cuda_kmeans_filter.py",
            "cuda/test_cuda_knn_filter.py",
            "data/test_augment.py",
        ),
        result="tests",
        workers=6,
    ),
    Part(
        "paths",
        "paths that no sample of an op reaches; an epoch of each trainer",
        75,
        _tests("cuda", "cuda/test_cuda_wide_joints.py", "cuda/test_cuda_search_paths.py", "cuda/test_cuda_trainers.py"),
        result="tests",
        workers=4,
    ),
    Part(
        "float32",
        "cuBLAS: views, TF32; what CUDA graphs record and refuse",
        45,
        _tests("cuda", "cuda/test_cuda_blas.py", "cuda/test_cuda_graphs.py"),
        result="tests",
    ),
    Part("large", "beyond 2^31 elements", 50, _tests("cuda", "cuda/test_cuda_large.py"), result="tests"),
    Part("times", "times beside plain torch", 130, _module("times", "--json", "{result}", "{size}")),
    Part("compiled", "times beside torch.compile", 70, _module("times", "--compiled", "--json", "{result}", "{size}")),
    _sanitizer("memcheck", 45, "--report-api-errors", "no"),  # torch asks the driver for what it may not have
    _sanitizer("racecheck", 90),
    _sanitizer("synccheck", 45),
    Part(
        "profile",
        "Nsight Compute on the heaviest kernels",
        60,
        (*PROFILE, *_module("calls", "--heavy")),
        result="metrics",
        tool="ncu",
        on_gpu_only=True,
    ),
    Part(
        "endurance",
        "dhog_loss 10,000 times beside a busy stream",
        40,
        _tests("cuda", "cuda/test_cuda_endurance.py"),
        result="tests",
    ),
)
