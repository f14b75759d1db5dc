"""Embeddings in two dimensions: PCA of all of them, t-SNE of some, and UMAP where it is asked for."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch

from deepclust_ext._isolation import own_torch_state
from deepclust_ext._optional import require
from deepclust_ext.ops.pca_whiten import pca_whiten
from deepclust_ext.report.run import Floats, Labels
from deepclust_ext.training.seeds import derive_generator, seed_default_generators

# t-SNE takes some ten seconds for so many.
MAX_PLACED = 2_000
# Dimensions that t-SNE and UMAP see.
DIMENSIONS = 50
# Beyond so many dimensions, components are those of the rows that are placed, found by a randomised decomposition.
WIDE = 1_024
# Coordinates are whole numbers from 0 to this.
SCALE = 9_999


@dataclass(frozen=True)
class Places:
    """A map.

    Parameters
    ----------
    name : str
        How it was made.
    members : ndarray of int64, shape (M,)
        Places in `Shown.rows`.
    points : ndarray of int64, shape (M, 2)
        From 0 to 9,999, x to the right and y up; one unit is as long in both directions.
    """

    name: str
    members: Labels
    points: Labels


@own_torch_state()
def place(embeddings: Floats, rows: Labels, seed: int, *, umap: bool = False) -> list[Places]:
    """Make every map that can be made.

    Parameters
    ----------
    embeddings : ndarray of float32, shape (N, d)
        PCA is of all of them.
    rows : ndarray of int64, shape (P,)
        Those that are placed.
    seed : int
        Draws those that t-SNE and UMAP place, where they are more than 2,000.
    umap : bool
        Make one by UMAP, too: the compilation in its package takes longer than the rest of the page.

    Raises
    ------
    ImportError
        If UMAP is asked for and not installed.
    """
    everyone = np.arange(len(rows))
    shown = _components(embeddings, rows, min(DIMENSIONS, embeddings.shape[1], len(embeddings)))
    plane = shown[:, :2] if shown.shape[1] > 1 else np.pad(shown, ((0, 0), (0, 1)))
    maps = [Places("PCA", everyone, _scaled(plane))]
    order = torch.randperm(len(rows), generator=derive_generator(seed, "map")).numpy()
    members = np.sort(order[:MAX_PLACED])
    some = shown[members]
    if len(np.unique(some, axis=0)) < 6:
        # Copies of a few points are no neighbourhoods.
        return maps
    tsne = require("sklearn.manifold").TSNE(
        init="pca" if some.shape[1] > 1 else "random", perplexity=min(30.0, (len(some) - 1) / 4), random_state=seed
    )
    maps.append(Places("t-SNE", members, _scaled(tsne.fit_transform(some))))
    if umap:
        with warnings.catch_warnings():
            # That a seed means one thread.
            warnings.simplefilter("ignore", UserWarning)
            model = require("umap", "report").UMAP(n_neighbors=min(15, len(some) - 1), random_state=seed)
            maps.append(Places("UMAP", members, _scaled(model.fit_transform(some))))
    return maps


def _components(embeddings: Floats, rows: Labels, count: int) -> Floats:
    """Principal components (P, count) of the rows, with their lengths."""
    if embeddings.shape[1] <= WIDE:
        found = pca_whiten(torch.from_numpy(embeddings), count, l2=False)[1]
        mean, components = found.mean, found.components.T
    else:
        # All eigenvectors of so large a covariance would take longer than the rest of the page.
        seed_default_generators(0, torch.device("cpu"))
        sample = torch.from_numpy(embeddings[rows])
        mean = sample.mean(0)
        components = torch.pca_lowrank(sample - mean, count, center=False, niter=4)[2]
    return np.asarray(((torch.from_numpy(embeddings[rows]) - mean) @ components).numpy(), dtype=np.float32)


def _scaled(points: Floats) -> Labels:
    """Whole numbers from 0 to SCALE, the shorter direction in the middle."""
    low, high = points.min(0), points.max(0)
    extent = max(float((high - low).max()), 1e-30)
    centred = (points.astype(np.float64) - (low + high) / 2) / extent + 0.5
    whole: Labels = np.rint(centred.clip(0, 1) * SCALE).astype(np.int64)
    return whole
