"""The build with CUDA: which nvcc, which GPUs, what is said where there is none. Nothing here needs nvcc or a GPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from support.ptxas_budget import ROOT

import setup_cuda

KNOWN = ["7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "11.0", "10.3", "12.0", "12.1"]


@pytest.fixture
def setup_py() -> ModuleType:
    """setup.py as a module: importing it builds nothing."""
    spec = importlib.util.spec_from_file_location("deepclust_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def no_toolkit(monkeypatch, tmp_path):
    """This machine's own CUDA does not matter."""
    monkeypatch.setattr(setup_cuda, "TOOLKIT", str(tmp_path / "none"))
    for name in ("CUDA_HOME", "CUDA_PATH", "DEEPCLUST_CUDA", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.delenv(name, raising=False)


def toolkit_at(home: Path, release: str = "13.0", files: str = "") -> Path:
    """A folder that looks like a CUDA toolkit, with an nvcc that tells its version and where it lies."""
    (home / "bin").mkdir(parents=True)
    nvcc = home / "bin/nvcc"
    nvcc.write_text(f'#!/bin/sh\necho "tools, release {release}, V{release}.88"\necho "#$ TOP={home}/bin/.."\n')
    nvcc.chmod(0o755)
    for file in files.split():
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        (home / file).touch()
    return home


HEADERS = "include/cuda_runtime_api.h include/crt/host_defines.h include/cublas_v2.h"
FULL = f"{HEADERS} lib64/libcudart.so.13 lib64/libcublas.so.13"
LIBRARIES = f"{HEADERS} lib/libcudart.so.13 lib/libcublas.so.13"


@pytest.mark.parametrize(("value", "mode"), [(None, "auto"), ("", "auto"), ("auto", "auto"), ("1", "1"), ("0", "0")])
def test_deepclust_cuda(value, mode):
    assert setup_cuda.mode({} if value is None else {"DEEPCLUST_CUDA": value}) == mode


def test_deepclust_cuda_must_be_known():
    with pytest.raises(setup_cuda.Unfit, match="must be auto, 1 or 0, got 'yes'"):
        setup_cuda.mode({"DEEPCLUST_CUDA": "yes"})


@pytest.mark.parametrize("name", ["CUDA_HOME", "CUDA_PATH"])
def test_a_named_toolkit_is_taken(tmp_path, name):
    home = toolkit_at(tmp_path / "cuda", files=FULL)
    found = setup_cuda.find_toolkit({name: str(home)}, "13.0", [])
    assert (found.home, found.release, found.nvcc) == (str(home), (13, 0), f"{home}/bin/nvcc")
    assert found.include_folders == [f"{home}/include"]
    assert found.libraries == [f"{home}/lib64/libcudart.so.13", f"{home}/lib64/libcublas.so.13"]


def test_a_named_toolkit_without_nvcc_is_an_error_and_not_passed_over(tmp_path):
    other = toolkit_at(tmp_path / "cuda", files=FULL)
    with pytest.raises(setup_cuda.Unfit, match=r"CUDA_HOME is /nowhere, where there is no bin/nvcc"):
        setup_cuda.find_toolkit({"CUDA_HOME": "/nowhere", "PATH": f"{other}/bin"}, "13.0", [])


def test_the_toolkit_behind_a_script_on_the_path(tmp_path):
    home = toolkit_at(tmp_path / "cuda", files=FULL)
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin/nvcc"
    script.write_text(f'#!/bin/sh\nexec {home}/bin/nvcc "$@"\n')
    script.chmod(0o755)
    assert setup_cuda.find_toolkit({"PATH": str(tmp_path / "bin")}, "13.0", []).home == str(home)


def test_the_usual_folder_comes_before_packages(tmp_path, monkeypatch):
    toolkit_at(tmp_path / "site/nvidia/cu12", "12.6", LIBRARIES)  # of no use to this torch
    package = toolkit_at(tmp_path / "site/nvidia/cu13", files=LIBRARIES)
    assert setup_cuda.find_toolkit({}, "13.0", [str(tmp_path / "site")]).home == str(package)
    usual = toolkit_at(
        tmp_path / "usual", files="include/cuda_runtime_api.h include/crt/host_defines.h lib64/libcudart.so"
    )
    monkeypatch.setattr(setup_cuda, "TOOLKIT", str(usual))
    found = setup_cuda.find_toolkit({}, "13.0", [str(tmp_path / "site")])
    assert found.home == str(usual)
    # Its own headers first, a missing one from the package; the libraries that torch runs with.
    assert found.include_folders == [f"{usual}/include", f"{package}/include"]
    assert found.libraries == [f"{package}/lib/libcudart.so.13", f"{package}/lib/libcublas.so.13"]


def test_an_nvcc_of_another_major_version_is_passed_over_or_named(tmp_path):
    old = toolkit_at(tmp_path / "old", "12.6", FULL)
    package = toolkit_at(tmp_path / "site/nvidia/cu13", files=LIBRARIES)
    environ = {"PATH": f"{old}/bin"}
    assert setup_cuda.find_toolkit(environ, "13.0", [str(tmp_path / "site")]).home == str(package)
    with pytest.raises(setup_cuda.Unfit, match=r"torch is built for CUDA 13\.0, nvcc is 12\.6") as error:
        setup_cuda.find_toolkit(environ, "13.0", [])
    assert "pip install 'cuda-toolkit[nvcc,nvvm,crt,cccl]==13.0.*'" in error.value.mend


def test_no_nvcc_no_header_no_cuda_in_torch(tmp_path):
    with pytest.raises(setup_cuda.Unfit, match="no nvcc found") as error:
        setup_cuda.find_toolkit({}, "13.0", [])
    assert "pip install 'cuda-toolkit[nvcc,nvvm,crt,cccl]==13.0.*'" in error.value.mend
    with pytest.raises(setup_cuda.Unfit, match="this torch is built without CUDA"):
        setup_cuda.find_toolkit({}, None, [])
    bare = toolkit_at(tmp_path / "cuda")
    with pytest.raises(setup_cuda.Unfit, match="is missing beside nvcc and torch"):
        setup_cuda.find_toolkit({"CUDA_HOME": str(bare)}, "13.0", [])


def test_a_compiler_that_does_not_work_is_found_before_the_build(tmp_path):
    home = toolkit_at(tmp_path / "cuda")
    (home / "bin/nvcc").write_text("#!/bin/sh\necho 'x.h(3): error: unsupported GNU version!' >&2\nexit 1\n")
    with pytest.raises(setup_cuda.Unfit, match="unsupported GNU version"):
        setup_cuda.try_compile(setup_cuda.Toolkit(str(home), (13, 0), [], []))


@pytest.mark.parametrize(("mode", "output"), [("1", None), ("auto", "building without CUDA"), ("0", "")])
def test_setup_without_nvcc(setup_py, monkeypatch, capsys, mode, output):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_HOME", "/nowhere")
    monkeypatch.setenv("DEEPCLUST_CUDA", mode)
    if output is None:
        with pytest.raises(SystemExit, match=r"no bin/nvcc[^$]*unset CUDA_HOME"):
            setup_py.cuda_toolkit()
        return
    assert setup_py.cuda_toolkit() is None
    said = capsys.readouterr().err
    assert said.count("\n") == (1 if output else 0)
    assert output in said
    assert "unset CUDA_HOME" in said or not output


def test_setup_refuses_an_unknown_mode(setup_py, monkeypatch):
    monkeypatch.setenv("DEEPCLUST_CUDA", "on")
    with pytest.raises(SystemExit, match="DEEPCLUST_CUDA must be auto, 1 or 0, got 'on'"):
        setup_py.cuda_toolkit()


def choose(text: str, known: list[str] = KNOWN, capabilities: tuple[tuple[int, int], ...] = ()) -> str:
    return " ".join(setup_cuda.choose_architectures(text, known, lambda: list(capabilities)))


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("", "7.5 8.0 8.6 9.0 10.0 12.0+PTX"),
        ("8.0;9.0+PTX", "8.0 9.0+PTX"),
        ("8.0 9.0+PTX", "8.0 9.0+PTX"),
        (" 9.0a;;9.0a ", "9.0a"),
        ("Ampere;Hopper", "8.0 8.6+PTX 9.0+PTX"),
        ("Ampere+Tegra", "8.7"),
    ],
)
def test_architectures(text, chosen):
    assert choose(text) == chosen


def test_architectures_are_cut_to_what_nvcc_knows():
    assert choose("", ["5.0", "7.5", "8.0", "9.0"]) == "7.5 8.0 9.0+PTX"
    assert choose("", ["13.0"]) == "13.0+PTX"


def test_native_architectures():
    assert choose("native", capabilities=((9, 0), (8, 6), (9, 0))) == "8.6 9.0"
    with pytest.raises(setup_cuda.Unfit, match="no GPU is visible"):
        choose("native")


@pytest.mark.parametrize("word", ["6.1", "sm_80", "8", "8.0+ptx", "Tesla", "9.0x"])
def test_an_unknown_architecture_is_named(word):
    with pytest.raises(setup_cuda.Unfit, match="TORCH_CUDA_ARCH_LIST must list architectures") as error:
        choose(f"8.0;{word}")
    assert f"got '{word}'" in error.value.problem
    assert "9.0" in error.value.mend


def test_gencode_flags():
    assert setup_cuda.gencode_flags(["8.6", "9.0a", "12.0+PTX"]) == [
        "-gencode=arch=compute_86,code=sm_86",
        "-gencode=arch=compute_90a,code=sm_90a",
        "-gencode=arch=compute_120,code=sm_120",
        "-gencode=arch=compute_120,code=compute_120",
    ]
    assert setup_cuda.gencode_flags(["8.0", "8.6", "9.0", "8.9+PTX"]) == [
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_80,code=sm_86",
        "-gencode=arch=compute_90,code=sm_90",
        "-gencode=arch=compute_89,code=sm_89",
        "-gencode=arch=compute_89,code=compute_89",
    ]


@pytest.mark.parametrize(("processors", "gib", "jobs"), [(2, 24, 2), (64, 24, 12), (64, 3, 1), (8, 0, 1)])
def test_job_limit(processors, gib, jobs):
    assert setup_cuda.job_limit(processors, gib << 30) == jobs
    assert setup_cuda.available_memory() > 1 << 20
