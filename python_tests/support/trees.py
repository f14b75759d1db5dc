"""Trees of files for tests of folders."""

from __future__ import annotations

import numpy as np
from PIL import Image


def save_png(path, seed=0, size=8):
    """Save a grey PNG of noise, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # By a file: Pillow goes by the name's ending, which a test may want to be odd.
    with open(path, "wb") as file:
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size), np.uint8)).save(file, "png")
    return path


def content(folder):
    """Paths and bytes of all files below, hidden ones left out."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
