"""`deepclust info`: what is installed and what it runs on, without importing any of the trainers' packages."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from typing import Any

from deepclust_ext.commands._parser import Parser

# What decides which commands work, and the extra that brings it.
PACKAGES = {
    "numpy": "core",
    "torchvision": "train",
    "scikit-learn": "train",
    "scipy": "train",
    "pillow": "train",
    "jsonargparse": "train",
    "tqdm": "train",
    "timm": "backbones",
    "matplotlib": "report",
}


def run(words: list[str]) -> int:
    """Run `deepclust info` on the words after it."""
    parser = Parser(prog="deepclust info", description="Versions, devices, processor features.")
    parser.add_argument("--json", action="store_true", help="as JSON, for bug reports and scripts")
    found = parser.parse_args(words)
    facts = collect()
    if found.json:
        print(json.dumps(facts, indent=2))
        return 0
    width = max(map(len, facts))
    warnings = facts.pop("warnings")
    for name, value in facts.items():
        if name != "cuda_reason" or value is not None:
            print(f"{name.ljust(width)}  {_text(value)}")
    for warning in warnings:
        print(f"warning: {warning}")
    return 0


def collect() -> dict[str, Any]:
    """Everything `info` shows: the build, the devices, the packages."""
    import torch

    import deepclust_ext
    from deepclust_ext import _cuda

    build = deepclust_ext.build_info()
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        "deepclust_ext": build.pop("version"),
        "python": platform.python_version(),
        **build,
        "cpu": platform.machine(),
        "cuda": torch.version.cuda,
        "devices": [
            f"{properties.name} (compute capability {properties.major}.{properties.minor}, "
            f"{properties.total_memory / 2**30:.0f} GiB)"
            for properties in devices
        ],
        **{name: _version(name, extra) for name, extra in PACKAGES.items()},
        "warnings": _cuda.uncovered(
            [properties.name for properties in devices],
            [(properties.major, properties.minor) for properties in devices],
            build["cuda_architectures"],
        )
        if build["cuda_library"]
        else [],
    }


def _version(name: str, extra: str) -> str:
    """A package's version, or how to get it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"not installed; pip install 'deepclust_ext[{extra}]'"


def _text(value: Any) -> str:
    """One line for a value."""
    if value is None or value == []:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
