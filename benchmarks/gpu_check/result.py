"""A part's figures on their way to the driver."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

CAPTURED = "ours, captured"  # the name of our call replayed from a CUDA graph, among times


def write(path: Path, data: Any) -> None:
    """Write `data` whole or not at all: the process may be stopped at any time, and keeps what it wrote last."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
