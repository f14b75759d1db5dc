"""Optional dependencies: imported where they are used, with one sentence that mends a missing one."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, extra: str = "train") -> ModuleType:
    """Import `module`, or raise an ImportError that names the extra which installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise ImportError(
            f"deepclust_ext: {module.split('.')[0]!r} is not installed; run pip install 'deepclust_ext[{extra}]'"
        ) from error
