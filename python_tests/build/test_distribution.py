"""What a source archive and a wheel hold. The libraries are stand-ins: building them is the installation's affair."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# setup.py with compilers that leave empty files, and a toolkit that is there.
DRIVER = """
import sys
import setup, setup_cuda
from torch.utils.cpp_extension import BuildExtension

def build(self):
    for extension in self.extensions:
        path = self.get_ext_fullpath(extension.name)
        self.mkpath(path.rsplit("/", 1)[0])
        open(path, "w").close()

BuildExtension.build_extensions = build
setup.build_command = lambda: BuildExtension.with_options(use_ninja=False, no_python_abi_suffix=True)
setup.cuda_toolkit = lambda: setup_cuda.Toolkit("/nowhere", (13, 0), [], [])
setup_cuda.known_architectures = lambda nvcc: ["8.0"]
setup.main()
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the sources: setuptools writes beside them."""
    target = tmp_path_factory.mktemp("tree")
    for name in ("csrc", "deepclust_ext"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, target)
    return target


def run(tree: Path, *command: str) -> None:
    environ = {**os.environ, "PYTHONPATH": str(tree)}
    environ.pop("TORCH_CUDA_ARCH_LIST", None)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *command], cwd=tree, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_source_archive_holds_all_that_a_build_needs(tree, tmp_path):
    run(tree, "-q", "sdist", "--dist-dir", str(tmp_path))
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.split("/", 1)[1] for name in file.getnames() if "/" in name}
    needed = {path.relative_to(tree).as_posix() for path in (tree / "csrc").rglob("*") if path.is_file()}
    assert needed | {"setup.py", "setup_cuda.py", "pyproject.toml", "README.md", "LICENSE"} <= names
    assert "csrc/cuda/architectures.cpp" in names
    assert not [name for name in names if name.endswith((".so", ".o"))]


def test_the_wheel_holds_both_libraries_and_no_source(tree, tmp_path):
    run(tree, "-q", "bdist_wheel", "--dist-dir", str(tmp_path))
    (wheel,) = tmp_path.glob("*.whl")
    assert "-cp310-abi3-" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    assert {"deepclust_ext/_C.so", "deepclust_ext/_C_cuda.so", "deepclust_ext/py.typed"} <= set(names)
    assert {f"deepclust_ext/report/template/page.{kind}" for kind in ("html", "css")} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"deepclust_ext"}
    assert not [name for name in names if name.endswith((".cpp", ".h", ".cu", ".cuh")) or "csrc" in name]
