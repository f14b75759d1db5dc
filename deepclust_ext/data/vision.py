"""The sets that torchvision reads from a local copy: CIFAR-10, CIFAR-100 by superclass, SVHN, STL-10."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepclust_ext._optional import require
from deepclust_ext.data.arrays import to_images, to_labels

# CIFAR-100's superclasses (Krizhevsky, 2009), in the order of its coarse label numbers.
SUPERCLASSES = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}


def load_vision(name: str, half: str, root: Path) -> tuple[Tensor, Tensor] | None:
    """Load one half of a set through torchvision.

    Parameters
    ----------
    name : {"cifar10", "cifar100-20", "svhn", "stl10"}
        The set.
    half : {"train", "test"}
        Which half.
    root : Path
        The folder below which torchvision looks. Nothing is downloaded.

    Returns
    -------
    (Tensor, Tensor) or None
        Images (N, 3, H, W) uint8 and labels (N,) int64; None if the files are not there or fail torchvision's
        checksum.

    Examples
    --------
    >>> load_vision("cifar10", "test", Path("no-such-folder")) is None
    True
    """
    datasets = require("torchvision.datasets")
    try:
        dataset = _open(datasets, name, half, str(root))
    except (RuntimeError, FileNotFoundError):
        # This is how torchvision says "not found or corrupted"; the caller's message says what to put where.
        return None
    targets = dataset.labels if name in ("svhn", "stl10") else dataset.targets
    if name == "cifar100-20":
        targets = coarse_labels(dataset.classes)[np.asarray(targets)]
    images = to_images(dataset.data, arg=name)
    return images, to_labels(targets, len(images), arg=name)


def _open(datasets: Any, name: str, half: str, root: str) -> Any:
    """Open the set; the four constructors disagree on how a half is called."""
    if name == "cifar10":
        return datasets.CIFAR10(root, train=half == "train", download=False)
    if name == "cifar100-20":
        return datasets.CIFAR100(root, train=half == "train", download=False)
    if name == "svhn":
        return datasets.SVHN(root, split=half, download=False)
    return datasets.STL10(root, split=half, download=False)


def coarse_labels(classes: list[str]) -> Tensor:
    """Return the superclass number of each of CIFAR-100's class names.

    torchvision keeps the fine labels only; names, unlike a table of a hundred numbers, can be read and
    checked.
    """
    number = {name: i for i, names in enumerate(SUPERCLASSES.values()) for name in names}
    return torch.tensor([number[name] for name in classes], dtype=torch.int64)
