"""The methods by the name that the command line and configurations know them by."""

from __future__ import annotations

from deepclust_ext.methods.affinity import Affinity
from deepclust_ext.methods.deepcluster import DeepCluster
from deepclust_ext.methods.dhog import DHOG
from deepclust_ext.methods.fitting import Clusterer
from deepclust_ext.methods.jule import JULE
from deepclust_ext.methods.kmeans import KMeans
from deepclust_ext.methods.super_and import SuperAND
from deepclust_ext.methods.vcami import VCAMI

METHODS: dict[str, type[Clusterer]] = {
    "affinity": Affinity,
    "deepcluster": DeepCluster,
    "dhog": DHOG,
    "jule": JULE,
    "kmeans": KMeans,
    "super-and": SuperAND,
    "vcami": VCAMI,
}


def key_of(method: str | type) -> str:
    """The key of a class, or of its name; a key, and what is none, in lower case."""
    name = method if isinstance(method, str) else method.__name__
    return next((key for key, kind in METHODS.items() if kind.__name__.lower() == name.lower()), name.lower())
