"""The installed package: schemas, what the library links to, what an import costs and needs."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import deepclust_ext

SCHEMAS = Path(__file__).with_name("schemas.json")
ROOT = Path(__file__).parents[2]
LIBRARY = Path(deepclust_ext.__file__).with_name(deepclust_ext.build_info()["cpu_library"])


def ops() -> list[torch._ops.OpOverload]:
    names = torch._C._dispatch_get_all_op_names()
    return [
        getattr(torch.ops.deepclust, name.split("::")[1].split(".")[0]).default
        for name in sorted(names)
        if name.startswith("deepclust::")
    ]


def test_schemas_are_the_recorded_ones():
    assert [str(op._schema) for op in ops()] == json.loads(SCHEMAS.read_text())


# Known gaps, by op and backend: their public functions say so for a tensor of that backend.
GAPS: set[tuple[str, str]] = {
    ("deepclust::agglomerate", "CUDA"),  # sequential by nature: its tensors are copied to the CPU
}


def test_every_op_has_a_kernel_for_every_backend(capsys):
    """Prints the table: op by backend."""
    cuda = deepclust_ext.build_info()["cuda_library"] is not None
    rows = []
    for op in ops():
        found = {key: torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), key) for key in ("CPU", "CUDA")}
        found["fake"] = torch._library.simple_registry.singleton.find(op.name()).fake_impl.kernel is not None
        rows.append((op.name(), found))
    with capsys.disabled():
        print(f"\n{'op':<34}CPU   CUDA  fake")
        for name, found in rows:
            print(f"{name:<34}" + "  ".join(f"{'yes' if there else 'NO':<4}" for there in found.values()))
    needed = ("CPU", "CUDA", "fake") if cuda else ("CPU", "fake")
    assert {(name, key) for name, found in rows for key in needed if not found[key]} == GAPS & {
        (name, key) for name, _ in rows for key in needed
    }
    if not cuda:
        pytest.skip(f"the CUDA column is empty, _C_cuda is not loaded: {deepclust_ext.build_info()['cuda_reason']}")


@pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="needs the sources")
def test_only_the_ops_of_the_cpu_include_torch():
    """Directly or through another file."""
    needs_torch, waiting = [], sorted((ROOT / "csrc/cpu").rglob("*.[ch]*"))
    for path in waiting:
        if path.parent.name == "ops":
            continue
        seen, found = set(), [path]
        while found:
            file = found.pop().resolve()
            if file in seen or not file.exists():
                continue
            seen.add(file)
            text = file.read_text()
            found += [file.parent / name for name in re.findall(r'#include "([^"]+)"', text)]
            if "#include <torch/" in text:
                needs_torch.append(f"{path.relative_to(ROOT)} through {file.relative_to(ROOT)}")
    assert waiting
    assert needs_torch == []


def undefined(library: Path) -> list[str]:
    """What a library expects from others, versions included: `cudaMalloc@libcudart.so.13`."""
    lines = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True)
    return [line.split()[-1] for line in lines.stdout.splitlines()]


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs binutils")
def test_the_library_needs_only_the_stable_abi():
    """Nothing of Python, and of libtorch only the C shims that stay: one binary for every later version."""
    names = [name.split("@")[0] for name in undefined(LIBRARY)]
    foreign = [name for name in names if re.search(r"^_?Py|N2at|N3c10|5torch", name)]
    assert foreign == []
    assert any(name.startswith("aoti_torch_") for name in names)


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs binutils")
def test_the_cuda_library_needs_only_the_stable_abi_and_cuda():
    info = deepclust_ext.build_info()
    if info["cuda_library"] is None:
        pytest.skip(f"_C_cuda is not loaded: {info['cuda_reason']}")
    library = LIBRARY.with_name(info["cuda_library"])
    known = (
        r"(aoti_torch_|torch_)\w+",  # libtorch's C shims
        r"(__)?cuda[A-Z]\w+@libcudart.*|cublas\w+@libcublas.*",
        r".+@(GLIBC|GLIBCXX|CXXABI|GCC)_.*|_ZT?[VIS]?N?[KRO]*S[a-z].*|_ITM_\w+|__gmon_start__|__cxa_\w+",  # C and C++
    )
    assert [name for name in undefined(library) if not re.fullmatch("|".join(known), name)] == []
    defined = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True)
    ours = [name.split()[-1] for name in defined.stdout.splitlines() if "deepclust" in name]
    assert ours == ["deepclust_cuda_architectures"]


AUDIT = shutil.which("torch-abi-audit", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


@pytest.mark.skipif(AUDIT is None, reason="needs torch-abi-audit")
@pytest.mark.parametrize("name", ["cpu_library", "cuda_library"])
def test_torch_abi_audit_finds_it_stable(name):
    """By its own lists of the stable ABI's symbols, and from the oldest torch that we build for."""
    info = deepclust_ext.build_info()
    if info[name] is None:
        pytest.skip(f"_C_cuda is not loaded: {info['cuda_reason']}")
    command = [AUDIT, "--json", "--check", "torch", LIBRARY.with_name(info[name])]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (found,) = json.loads(ended.stdout)["bundled_libs"]
    assert found["torch"]["stable"]
    assert found["torch"]["unstable_symbols"] == found["torch"]["unknown_shim_symbols"] == []
    floor = re.search(r"torch>=([\d.]+)", " ".join(importlib.metadata.requires("deepclust_ext")))[1]
    assert found["torch"]["min_torch_version"] == f"{floor}.0"


@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs binutils")
@pytest.mark.skipif("-g" in os.environ.get("CFLAGS", ""), reason="CFLAGS asks for debug symbols")
@pytest.mark.parametrize("name", ["cpu_library", "cuda_library"])
def test_the_libraries_hold_no_debug_symbols(name):
    """Most Pythons compile extensions with -g: ten times the size. Names of functions stay."""
    info = deepclust_ext.build_info()
    if info[name] is None:
        pytest.skip(f"_C_cuda is not loaded: {info['cuda_reason']}")
    command = ["readelf", "--wide", "--sections", LIBRARY.with_name(info[name])]
    sections = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert ".dynsym" in sections
    assert ".debug_info" not in sections


@pytest.mark.parametrize("name", ["cpu_library", "cuda_library"])
def test_the_libraries_name_no_folder_of_the_machine_that_built_them(name):
    """Errors name a source as the project has it, `csrc/torch/mi_loss_checks.h`."""
    info = deepclust_ext.build_info()
    if info[name] is None:
        pytest.skip(f"_C_cuda is not loaded: {info['cuda_reason']}")
    held = LIBRARY.with_name(info[name]).read_bytes()
    assert re.search(rb"csrc/[\w./-]+\.(?:h|cpp)", held)
    assert re.findall(rb"(?<![\w./-])/[\w./ +-]*/csrc/[\w./-]+\.(?:h|cpp)", held) == []


def run(code: str) -> str:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True).stdout


def test_import_needs_torch_and_numpy_alone():
    blocked = ("sklearn", "scipy", "torchvision", "PIL", "tqdm", "yaml", "jsonargparse", "matplotlib")
    code = f"""
import sys
for name in {blocked!r}:
    sys.modules[name] = None
import torch, deepclust_ext
p = torch.eye(3)
assert deepclust_ext.mi_loss(p, p) < -1
try:
    from deepclust_ext.methods import DHOG
except ImportError as error:
    print(error)
"""
    assert "pip install 'deepclust_ext[train]'" in run(code)


@pytest.mark.timing
def test_import_costs_little_beside_torch():
    code = """
import time, torch, numpy
start = time.process_time()
import deepclust_ext
print(time.process_time() - start)
"""
    run(code)  # writes the bytecode, which an installed package comes with
    assert min(float(run(code)) for _ in range(5)) < 0.1


def test_build_info_and_version():
    info = deepclust_ext.build_info()
    assert info["version"] == deepclust_ext.__version__
    assert info["cpu_library"].startswith("_C.")
    assert re.fullmatch(r"\d+\.\d+\.\d+", deepclust_ext.__version__)


def test_a_missing_library_says_how_to_build_it(tmp_path):
    package = tmp_path / "deepclust_ext"
    shutil.copytree(
        LIBRARY.parent, package, ignore=shutil.ignore_patterns("*.so", "__pycache__", "methods", "data", "nn", "runs")
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import deepclust_ext"
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install --no-build-isolation -e ." in failed.stderr


def test_a_checkout_that_hides_the_installed_package_says_where_that_is(tmp_path):
    package, installed = tmp_path / "checkout" / "deepclust_ext", tmp_path / "site" / "deepclust_ext"
    package.mkdir(parents=True)
    installed.mkdir(parents=True)
    for path in LIBRARY.parent.glob("_*.py"):
        shutil.copy(path, package)
    (installed / "_C.so").touch()
    code = f"import sys; sys.path[:0] = {[str(package.parent), str(installed.parent)]!r}; import deepclust_ext"
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"{package}, which is not built, hides the installed package {installed}\n" in failed.stderr
    assert f"run Python in another folder than {package.parent}" in failed.stderr
