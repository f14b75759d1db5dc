"""The check of the kernels on a GPU, without one: its driver, what it reads, its page from stand-in figures."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch

import deepclust_ext

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))
from benchmarks.gpu_check import driver, first  # noqa: E402 - beside the package
from benchmarks.gpu_check.calls import Recorder, calls, registered  # noqa: E402
from benchmarks.gpu_check.cases import cases  # noqa: E402
from benchmarks.gpu_check.page import page  # noqa: E402
from benchmarks.gpu_check.parts import PARTS, Part  # noqa: E402
from benchmarks.gpu_check.reading import metrics, report  # noqa: E402
from benchmarks.gpu_check.result import CAPTURED  # noqa: E402
from benchmarks.gpu_check.timing import rates, timed  # noqa: E402

REPORT = """<testsuites><testsuite>
<testcase classname="test_a" name="one"/>
<testcase classname="test_a" name="two"><failure message="AssertionError: 1 != 2&#10;and">trace</failure></testcase>
<testcase classname="test_a" name="three"><skipped message="needs two GPUs"/></testcase>
</testsuite></testsuites>"""

PROFILE = """==PROF== Connected to process 1
knn in lists
==PROF== Disconnected
"ID","Process ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value"
"0","1","nearest_in_chunks","GPU Speed Of Light Throughput","Duration","ns","3,214,567"
"0","1","nearest_in_chunks","Command line profiler metrics","smsp__pcsamp_warps_issue_stalled_math_pipe","","1,234"
"0","1","nearest_in_chunks","Command line profiler metrics","smsp__pcsamp_warps_issue_stalled_barrier","","7"
"""


def stand_in() -> dict:
    """Made-up figures of every kind."""
    build = {"torch": "2.11.0", "version": "0.1.0", "cuda_architectures": ["9.0"]}
    record = {"outcome": "passed", "reason": "", "seconds": 3.0}
    gpu = dict.fromkeys(driver.FIELDS, "7") | {"name": "Stand-in 9000"}
    results = [
        {
            "op": "knn",
            "label": "graph, 9 x 9",
            "disagreement": "",
            "times": {
                "ours": {"median": 2000.0, "fastest": 1900.0, "memory": 3 << 20},
                "torch": {"median": 5000.0, "fastest": 4000.0, "memory": 0},
                CAPTURED: {"median": 20.0, "fastest": 19.0, "memory": 0},
            },
            "gigabytes_per_second": 123.4,
            "teraflops": 5.678,
            "share_of_bound": 0.4321,
            "clocks": "1980 MHz, 2619 MHz",
        },
        {"op": "kmeans", "label": "off", "disagreement": "torch: off by 1", "times": {}},
    ]
    return {
        "rehearsal": False,
        "seconds": 12.0,
        "machine": {"gpus": [gpu], "nvcc": "release 13.0", "python": "3.12.1", "processors": 16},
        "parts": [
            record
            | {
                "name": "first",
                "title": "first look",
                "figures": {
                    "build": build,
                    "problems": [],
                    "calls": 4,
                    "launched": 2,
                    "not_launched": ["sort_runs<float>"],
                },
            },
            record
            | {
                "name": "tests",
                "title": "tests",
                "outcome": "failed",
                "reason": "1 tests failed",
                "tests": {"passed": 8, "failed": [["test_a::two", "a | b"]], "skipped": {"needs two GPUs": 1}},
            },
            record
            | {
                "name": "times",
                "title": "times",
                "figures": {"results": results, "problems": ["kmeans off: torch: off by 1"]},
            },
            record | {"name": "memcheck", "title": "memcheck", "summary": ["ERROR SUMMARY: 0 errors"]},
            record | {"name": "profile", "title": "profile", "metrics": metrics(PROFILE)},
            record | {"name": "endurance", "title": "long", "outcome": "not run", "reason": "the time was used up"},
        ],
    }


def test_the_page_shows_every_figure_and_what_went_wrong():
    text = page(stand_in())
    for words in (
        "Stand-in 9000",
        "torch 2.11.0, deepclust_ext 0.1.0 compiled for 9.0.",
        "| tests | failed | 1 tests failed | 8 passed, 1 failed | 3 |",
        "| long | not run | the time was used up |  | 3 |",
        "- `test_a::two`: a \\| b",
        "- times: kmeans off: torch: off by 1",
        "- 1: needs two GPUs",
        "4 small calls launch 2 of 3 compiled kernels.",
        "`sort_runs<float>`",
        "| `knn` | graph, 9 x 9 | torch 5 ms (2.50x) | 2 ms | 1.9 ms | 20 us | 123 | 5.68 | 43.2% | 3 | 1980 MHz, ",
        "| `kmeans` | off | differs |",
        "ERROR SUMMARY: 0 errors",
        "math_pipe 1234, barrier 7",
        "| 3.21 ms |",
    ):
        assert words in text, words
    assert "rehearsal" not in text
    assert "A rehearsal on a CPU" in page(stand_in() | {"rehearsal": True})
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(columns) == 1, block


def test_a_page_is_made_of_next_to_nothing():
    nothing = {"gpus": [], "nvcc": None, "python": "3", "processors": 1}
    assert "No GPU." in page({"rehearsal": False, "seconds": 0.0, "machine": nothing, "parts": []})


def script(name: str, code: str, seconds: float = 30.0, result: str = "json", tool: str | None = None) -> Part:
    return Part(name, name, seconds, ("{python}", "-c", code, "{result}"), result=result, tool=tool)


FIGURES = "import sys; open(sys.argv[1], 'w').write('{\"problems\": []}')"
HANGS = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('begun', flush=True); time.sleep(60)"


def test_the_driver_goes_on_and_says_how_each_part_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "GRACE", 0.2)
    parts = [
        script("good", FIGURES),
        script("raises", "raise SystemExit('it broke')"),
        script("hangs", HANGS, seconds=1.0),
        script("finds", FIGURES.replace("[]", '[\\"no code for it\\"]')),
        script("lacks", FIGURES, tool="no-such-program"),
        script("tested", f"import sys; open(sys.argv[1], 'w').write({REPORT!r})", result="tests"),
        script("empty", "import sys; open(sys.argv[1], 'w').write('<testsuites/>')", result="tests"),
        script("garbled", "import sys; open(sys.argv[1], 'w').write('{')"),
        script("silent", "print('ERROR SUMMARY: 0 errors')", result="output"),
        script("spoke", "print('=== ERROR SUMMARY: 0 errors'); print('SUMMARY: 3 of 3 calls made')", result="output"),
        script("closed", "raise SystemExit('==ERROR== ERR_NVGPUCTRPERM')", result="metrics"),
        script("unseen", "", result="metrics"),
        script("last", FIGURES),
    ]
    assert driver.check(parts, tmp_path / "out", seconds=60) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["gpu.json", "gpu.log", "gpu.md"]
    data = json.loads((tmp_path / "out" / "gpu.json").read_text())
    found = {part["name"]: (part["outcome"], part["reason"]) for part in data["parts"]}
    assert found.pop("garbled")[1].startswith("its result cannot be read")
    assert found == {
        "good": ("passed", ""),
        "raises": ("failed", "it wrote no result; its output is in gpu.log"),
        "hangs": ("stopped", "not done after 1 s"),
        "finds": ("failed", "no code for it"),
        "lacks": ("left out", "no-such-program is not here: it is part of the CUDA toolkit"),
        "tested": ("failed", "1 tests failed"),
        "empty": ("failed", "no test passed"),
        "silent": ("failed", "the calls were not made; their output is in gpu.log"),
        "spoke": ("passed", ""),
        "closed": ("left out", "the GPU's counters are closed to this user"),
        "unseen": ("failed", "no kernel was profiled; its output is in gpu.log"),
        "last": ("passed", ""),
    }
    assert "it broke" in (tmp_path / "out" / "gpu.log").read_text()
    assert (tmp_path / "out" / "gpu.md").read_text() == page(data)


def test_all_is_well_where_all_parts_passed_and_late_ones_are_not_run(tmp_path):
    assert driver.check([script("good", FIGURES)], tmp_path, seconds=60) == 0
    assert driver.check([script("good", FIGURES)], tmp_path, seconds=driver.LEAST - 1) == 1
    assert json.loads((tmp_path / "gpu.json").read_text())["parts"][0]["outcome"] == "not run"


def test_reports_and_profiles_are_read(tmp_path):
    (tmp_path / "report").write_text(REPORT)
    assert report(tmp_path / "report") == {
        "tests": {
            "passed": 1,
            "failed": [["test_a::two", "AssertionError: 1 != 2"]],
            "skipped": {"needs two GPUs": 1},
        },
        "reason": "1 tests failed",
    }
    rows = metrics(PROFILE)
    assert [row["Metric Value"] for row in rows] == ["3,214,567", "1,234", "7"]
    assert metrics("==ERROR== no counters") == []


def test_every_file_with_tests_of_a_gpu_is_run_by_a_part():
    run = {word for part in PARTS if part.result == "tests" for word in part.words if word.endswith(".py")}
    assert all((ROOT / path).exists() for path in run)
    marked = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "python_tests").glob("*/test_*.py")
        if "mark.cuda" in path.read_text(encoding="utf-8") and path != Path(__file__).resolve()
    }
    with_fixture = {"python_tests/cuda/test_cuda_wide_joints.py"}  # marked by `kernels`
    assert marked | with_fixture == run


def test_the_calls_reach_every_op():
    with Recorder() as recorder:
        for name, call in calls().items():
            if name.endswith("float32") or "," not in name:
                call("cpu")
    assert recorder.seen == registered()


def test_every_public_op_is_timed():
    public = {name for name in deepclust_ext.__all__ if name[0].islower()} - {"build_info", "iic_loss"}
    in_plain_torch, on_the_host = {"dim_jsd_loss", "gmm_kl_loss"}, {"agglomerate", "cut"}
    graph = {"affinity_graph"}  # knn, and the kernel that is timed under its own name
    assert public - in_plain_torch - on_the_host - graph | {"affinity_weights"} == {
        case.op for case in cases(small=True)
    }


def test_the_first_look_says_what_is_missing(monkeypatch):
    build = {"cuda_library": "_C_cuda.so", "cuda_reason": None, "cuda_architectures": ["9.0"]}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert first.problems(build, "cuda") == ["no GPU is visible to torch"]
    assert first.problems(build, "cpu") == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Some GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    assert first.problems(build, "cuda") == []
    assert first.problems(build | {"cuda_library": None, "cuda_reason": "not built"}, "cuda") == [
        "_C_cuda is not loaded: not built"
    ]
    (said,) = first.problems(build | {"cuda_architectures": ["8.0"]}, "cuda")
    assert said.startswith("Some GPU has compute capability 9.0, and _C_cuda is built for 8.0")


def test_instances_are_named_as_the_budget_does():
    names = first.instances()
    assert "products<MiJointProducts<float>, 64, 4>" in names
    full = "void deepclust::cuda::products<deepclust::cuda::MiJointProducts<float>, 64, 4>(deepclust::cuda::Mi)"
    assert first.short_name(full) in names
    assert first.short_name("deepclust::cuda::clear_first_bad(unsigned long long*)") in names


def test_a_call_is_timed_and_weighed():
    found = timed(lambda: torch.ones(3), "cpu")
    assert 0 < found["fastest"] <= found["median"]
    assert found["calls"] >= 2
    assert timed(lambda: None, "cpu", once=True)["calls"] == 1
    assert rates(0.5, 2e9, 3e12, "cpu") == pytest.approx({"gigabytes_per_second": 4.0, "teraflops": 6.0})
