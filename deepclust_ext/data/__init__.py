"""Images or embeddings in (`load_items`), random views out (`make_augmentation`)."""

from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.embeddings import EmbeddingData
from deepclust_ext.data.images import ImageData, as_float
from deepclust_ext.data.items import Items
from deepclust_ext.data.load import KNOWN_NAMES, has_split, holds_embeddings, load_data, load_items
from deepclust_ext.data.presets import PRESET_NAMES, make_augmentation

__all__ = [
    "KNOWN_NAMES",
    "PRESET_NAMES",
    "Augmentation",
    "EmbeddingData",
    "ImageData",
    "Items",
    "as_float",
    "has_split",
    "holds_embeddings",
    "load_data",
    "load_items",
    "make_augmentation",
]
