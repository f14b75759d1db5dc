"""Views of embeddings: the row with some of its numbers dropped, or one of its nearest neighbours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deepclust_ext import _checks as check
from deepclust_ext.data.augment import Augmentation
from deepclust_ext.ops.knn import knn


class RowViews(Augmentation):
    """Views of embeddings (B, d): each number is 0 with a probability, the others are scaled up to make up for it.

    Parameters
    ----------
    image_shape : (int,)
        (d,).
    dropout : float
        The probability, in [0, 1); 0 leaves the rows as they are.

    Raises
    ------
    ValueError
        If the probability is out of its range.
    """

    name = "dropout"

    def __init__(self, image_shape: tuple[int, ...], *, dropout: float = 0.1) -> None:
        (dim,) = image_shape
        self.image_shape: tuple[int, ...] = (int(dim),)
        self.dropout = check.number(self.name, "dropout", dropout, at_least=0, below=1)

    def view(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw what is dropped."""
        rows = images.to(torch.float32)
        if self.dropout == 0:
            return rows
        kept = torch.rand(rows.shape, generator=generator, device=generator.device) >= self.dropout
        return rows * kept.to(rows.device) / (1.0 - self.dropout)

    def plain(self, images: Tensor) -> Tensor:
        """Return the rows (B, d) as float32."""
        self._check(images)
        return images.to(torch.float32)

    def _check(self, images: Tensor) -> None:
        """Refuse rows of another width."""
        if not isinstance(images, Tensor):
            raise TypeError(f"{self.name}: 'images' must be a torch.Tensor, got {type(images).__name__}")
        if tuple(images.shape[1:]) != self.image_shape or images.dim() != 2:
            raise ValueError(f"{self.name}: 'images' must be (B, {self.image_shape[0]}), got {tuple(images.shape)}")


class NeighbourViews(RowViews):
    """Views of embeddings that are the embeddings of others: a row, or one of its k nearest by cosine.

    The neighbours are found once, when `prepare` is given all rows; each view draws one of them, and then dropout.

    Parameters
    ----------
    image_shape : (int,)
        (d,).
    k : int
        Neighbours of a row, of which there must be more.
    own : float
        The probability that the view of a row is the row itself, in [0, 1].
    dropout : float
        As in `RowViews`.
    """

    name = "neighbours"

    def __init__(self, image_shape: tuple[int, ...], *, k: int = 20, own: float = 0.0, dropout: float = 0.0) -> None:
        super().__init__(image_shape, dropout=dropout)
        self.k = check.whole_number(self.name, "k", k, at_least=1)
        self.own = check.number(self.name, "own", own, at_least=0)
        self._check_amount("own", self.own, 1.0)
        self.neighbours: Tensor | None = None

    def check_count(self, n_images: int) -> None:
        """Refuse fewer rows than there are neighbours to find."""
        if self.k >= n_images:
            raise ValueError(f"{self.name}: 'k' must be below the number of embeddings ({n_images}), got {self.k}")

    def prepare(self, images: Tensor) -> None:
        """Find the neighbours of all rows (N, d)."""
        self._check(images)
        self.check_count(len(images))
        self.neighbours = knn(images, self.k, metric="cosine").indices

    def views_of(self, images: Tensor, index: Tensor, *, generator: torch.Generator) -> Tensor:
        """Draw a neighbour for each row, and its view."""
        if self.neighbours is None:
            raise RuntimeError(f"{self.name}: 'prepare' must be called with all rows before views of them are drawn")
        draws = torch.rand(2, len(index), generator=generator, device=generator.device, dtype=torch.float64)
        which = (draws[0] * self.k).long().to(index.device)
        other = self.neighbours[index.to(self.neighbours.device), which.to(self.neighbours.device)].to(index.device)
        chosen = torch.where((draws[1] < self.own).to(index.device), index, other)
        return self(images[chosen], generator=generator)


_ROW_VIEWS: dict[str, tuple[type[RowViews], dict[str, Any]]] = {
    "neighbours": (NeighbourViews, {}),
    "dropout": (RowViews, {}),
    "none": (RowViews, {"dropout": 0.0}),
}
ROW_VIEW_NAMES = tuple(_ROW_VIEWS)


def make_row_views(spec: Any, *, image_shape: tuple[int, ...], **parameters: Any) -> Augmentation:
    """Build the views of embeddings by their name, with parameters as `make_augmentation` takes them.

    Examples
    --------
    >>> make_row_views("dropout", image_shape=(768,), dropout=0.2).output_shape
    (768,)
    """
    if spec not in ROW_VIEW_NAMES:
        raise ValueError(
            f"make_augmentation: 'spec' must be one of {', '.join(ROW_VIEW_NAMES)} for embeddings, got {spec!r}; "
            "a configuration for embeddings has one"
        )
    family, defaults = _ROW_VIEWS[spec]
    try:
        views = family(image_shape, **{**defaults, **parameters})
    except TypeError as error:
        raise TypeError(f"make_augmentation: {spec!r} does not take these parameters: {error}") from error
    views.name = spec
    return views
