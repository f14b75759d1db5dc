"""Embeddings of images by a pretrained network: `load_backbone`, then `embed`."""

from deepclust_ext.embed.backbone import Backbone, load_backbone
from deepclust_ext.embed.embedding import embed
from deepclust_ext.embed.preprocessing import Preprocessing
from deepclust_ext.embed.rows import EmbeddedImages, load_embedded, write_embedded

__all__ = [
    "Backbone",
    "EmbeddedImages",
    "Preprocessing",
    "embed",
    "load_backbone",
    "load_embedded",
    "write_embedded",
]
