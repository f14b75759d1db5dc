"""The build with CUDA: which nvcc, which GPUs, what is said where there is none. Nothing here needs nvcc or a GPU."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from ptxas_budget import ROOT

import deepclust_ext
import setup_cuda
from deepclust_ext import _cuda
from deepclust_ext.commands import info

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
        ("", "7.5 8.0 8.6 8.9 9.0 10.0 12.0+PTX"),
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


@pytest.mark.parametrize(("processors", "gib", "jobs"), [(2, 24, 2), (64, 24, 12), (64, 3, 1), (8, 0, 1)])
def test_job_limit(processors, gib, jobs):
    assert setup_cuda.job_limit(processors, gib << 30) == jobs
    assert setup_cuda.available_memory() > 1 << 20


@pytest.mark.parametrize(
    ("capability", "architectures", "covered"),
    [
        ((8, 6), "8.6", True),
        ((8, 9), "8.6", True),  # machine code runs on later minor versions
        ((8, 0), "8.6", False),
        ((9, 0), "8.6", False),  # but on no other major one
        ((9, 0), "8.6+PTX", True),
        ((12, 0), "7.5 8.0+PTX", True),
        ((8, 0), "9.0+PTX", False),
        ((9, 0), "9.0a", True),
        ((12, 0), "9.0a+PTX", False),
        ((10, 3), "10.0a", False),
        ((10, 3), "10.0f", True),
        ((11, 0), "10.0f+PTX", False),
        ((9, 0), "", False),
    ],
)
def test_covers(capability, architectures, covered):
    assert _cuda.covers(capability, architectures.split()) is covered


def test_covers_refuses_what_is_no_architecture():
    with pytest.raises(ValueError, match=r"'architectures' must hold words such as .* got 'sm_80'"):
        _cuda.covers((8, 0), ["sm_80"])


MESSAGES = """
#include <cstdio>
#include "launch_error.h"
int main() {
  using namespace deepclust::cuda;
  std::puts(no_code_message("mi_loss", 6, 1, "7.5 8.0+PTX").c_str());
  std::puts(cuda_error_message("mi_loss", "cudaErrorInvalidValue", "invalid argument").c_str());
}
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_launch_errors_name_the_mend(tmp_path):
    (tmp_path / "messages.cpp").write_text(MESSAGES)
    subprocess.run(
        ["g++", "-std=c++20", "-I", ROOT / "csrc/cuda", tmp_path / "messages.cpp", "-o", tmp_path / "messages"],
        check=True,
    )
    assert subprocess.run([tmp_path / "messages"], capture_output=True, text=True, check=True).stdout == (
        "mi_loss: the GPU must be one that deepclust_ext is built for (7.5 8.0+PTX), got compute capability 6.1\n"
        "  TORCH_CUDA_ARCH_LIST=6.1 pip install --force-reinstall --no-deps --no-cache-dir deepclust_ext\n"
        "mi_loss: CUDA error cudaErrorInvalidValue: invalid argument\n"
    )


def test_build_info_tells_of_the_cuda_library():
    build = deepclust_ext.build_info()
    if build["cuda_library"] is None:
        assert build["cuda_architectures"] == []
        assert "CUDA" in build["cuda_reason"]
    else:
        assert build["cuda_library"].startswith("_C_cuda.")
        assert build["cuda_reason"] is None
        assert any(_cuda.covers((major, 9), build["cuda_architectures"]) for major in range(5, 20))


def test_info_warns_of_a_gpu_without_code(monkeypatch, capsys):
    build = {**deepclust_ext.build_info(), "cuda_library": "_C_cuda.so", "cuda_reason": None}
    build["cuda_architectures"] = ["8.0", "9.0"]
    gpus = [SimpleNamespace(name=name, major=n, minor=0, total_memory=2**34) for name, n in (("Old", 6), ("New", 9))]
    monkeypatch.setattr(deepclust_ext, "build_info", lambda: dict(build))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpus[index])
    info.run([])
    said = capsys.readouterr().out
    assert "cuda_architectures  8.0, 9.0\n" in said
    assert "warning: Old has compute capability 6.0, and _C_cuda is built for 8.0 9.0: TORCH_CUDA_ARCH_LIST=6.0" in said
    assert said.count("warning") == 1
    build |= {"cuda_library": None, "cuda_reason": "not built", "cuda_architectures": []}
    info.run([])
    said = capsys.readouterr().out
    assert "cuda_reason" in said
    assert "not built" in said
    assert "warning" not in said


def imports(code: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = f"import sys; sys.path.insert(0, {str(folder)!r}); " if folder else ""
    return subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True, check=False)


def test_a_torch_without_cuda_skips_the_library():
    code = "import torch; torch.version.cuda = None; import deepclust_ext; i = deepclust_ext.build_info(); "
    code += "print(i['cuda_library'], i['cuda_architectures'], i['cuda_reason'])"
    said = imports(code)
    assert said.stderr == ""
    assert said.stdout.startswith("None [] torch ")
    assert "is built without CUDA; install a torch for CUDA" in said.stdout


@pytest.mark.skipif(torch.version.cuda is None, reason="this torch loads no CUDA library")
def test_a_broken_library_is_an_error(tmp_path):
    installed = Path(deepclust_ext.__file__).parent
    package = tmp_path / "deepclust_ext"
    shutil.copytree(
        installed, package, ignore=shutil.ignore_patterns("_C_cuda.*", "__pycache__", "methods", "data", "nn")
    )
    (package / "_C_cuda.so").write_text("no library")
    said = imports("import deepclust_ext", tmp_path)
    assert "ImportError: deepclust_ext: _C_cuda.so does not load with torch" in said.stderr
    assert "pip install --no-build-isolation --force-reinstall" in said.stderr
