"""What the tests of runs share: a method small enough for them, folders of images, one thread."""

from __future__ import annotations

import contextlib
import csv

import numpy as np
import torch
from PIL import Image

SETTINGS = """
n_clusters: 4
n_heads: 2
network: tiny8
width: 0.25
hidden: 16
n_augmentations: 2
augmentation: digits
batch_size: 40
alpha: 0
lr: 0.01
epochs: 8
evaluate_every: 2
checkpoint_every: 2
device: cpu
selection: mi
"""


@contextlib.contextmanager
def single_thread():
    """One thread within the block: labels that are compared must not depend on the machine's number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pictures(n=120, seed=0, size=8):
    """Four kinds of grey images, a bright quarter each, and noise."""
    rng = np.random.default_rng(seed)
    images, kinds, half = rng.integers(0, 90, (n, size, size)), np.arange(n) % 4, size // 2
    for image, kind in zip(images, kinds, strict=True):
        top, left = half * (kind // 2), half * (kind % 2)
        image[top : top + half, left : left + half] += 150
    return images.astype(np.uint8), kinds


def write_folder(path, n=120, seed=0, nested=False, size=8):
    """Save the pictures as PNGs, in a sub-folder a kind if nested; file names do not tell the order of kinds."""
    images, kinds = pictures(n, seed, size)
    for number, (image, kind) in enumerate(zip(images, kinds, strict=True)):
        file = path / (f"kind{kind}" if nested else "") / f"{(number * 37) % n:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return path


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def quarters(n=200):
    """Four kinds of 8x8 images: a bright quarter each, and noise."""
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randint(0, 90, (n, 1, 8, 8), generator=generator)
    for i in range(n):
        top, left = 4 * (i % 4 // 2), 4 * (i % 2)
        pictures[i, :, top : top + 4, left : left + 4] += 150
    return pictures.to(torch.uint8)
