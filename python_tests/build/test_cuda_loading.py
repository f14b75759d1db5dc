"""What the CUDA library says of itself: the GPUs it covers, a failed launch, why it is not loaded. No GPU is needed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.ptxas_budget import ROOT

import deepclust_ext
from deepclust_ext import _cuda
from deepclust_ext.commands import info


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


def test_a_torch_for_another_cuda_skips_the_library():
    build = deepclust_ext.build_info()
    if build["cuda_library"] is None:
        pytest.skip(f"_C_cuda is not loaded: {build['cuda_reason']}")
    assert build["cuda_runtime"] == int(torch.version.cuda.split(".")[0])
    code = "import torch; torch.version.cuda = '11.8'; import deepclust_ext; i = deepclust_ext.build_info(); "
    code += "print(i['cuda_library'], i['cuda_runtime'], i['cuda_reason'])"
    said = imports(code)
    assert said.stderr == ""
    assert said.stdout.startswith(f"None None _C_cuda is built for CUDA {build['cuda_runtime']}, and torch ")
    assert "for CUDA 11.8; rebuild it: DEEPCLUST_CUDA=1 pip install" in said.stdout


def test_the_runtime_of_a_library(tmp_path):
    library = tmp_path / "_C_cuda.so"
    for content, want in ((b"", None), (b"ELF libcudart.so\0", None), (b"ELF\0libcudart.so.12\0libc.so.6\0", 12)):
        library.write_bytes(content)
        assert _cuda.linked_runtime(str(library)) == want


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
