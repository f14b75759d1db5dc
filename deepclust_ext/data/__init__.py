"""Images in (`load_data`), random views out (`make_augmentation`)."""

from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.images import ImageData, as_float
from deepclust_ext.data.load import KNOWN_NAMES, has_split, load_data
from deepclust_ext.data.presets import PRESET_NAMES, make_augmentation

__all__ = [
    "KNOWN_NAMES",
    "PRESET_NAMES",
    "Augmentation",
    "ImageData",
    "as_float",
    "has_split",
    "load_data",
    "make_augmentation",
]
