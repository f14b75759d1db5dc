"""PCA whitening, as DeepCluster prepares features for k-means."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deepclust_ext import _checks as check
from deepclust_ext.ops._common import accumulator_dtype, check_floating, refuse_capture, refuse_vmap
from deepclust_ext.ops.ordered_product import on_one_thread, ordered_product

__all__ = ["PCAWhitening", "pca_whiten"]

# Rows whose products are added up at a time: the centred copy of all of x would double the memory.
_ROWS = 4096
# Numbers at a time on a GPU, which few rows do not fill: 128 MB in float64.
_NUMBERS_ON_A_GPU = 2**24


@dataclass(frozen=True)
class PCAWhitening:
    """The map that `pca_whiten` found; call it on new rows."""

    mean: Tensor
    """(d,)."""
    components: Tensor
    """(n_components, d): orthonormal rows, by falling variance."""
    scale: Tensor
    """(n_components,): what a projection is multiplied by; 0 where there is no variance at all."""
    l2: bool
    """Whether mapped rows are brought to unit length."""

    def __call__(self, x: Tensor) -> Tensor:
        """Map rows (N, d) to features (N, n_components).

        Parameters
        ----------
        x : Tensor, shape (N, d), float16, bfloat16, float32 or float64

        Returns
        -------
        Tensor, shape (N, n_components), float32 (float64 for float64 in either the map or `x`)
        """
        x = check_floating("pca_whiten", "x", x).detach()
        if x.dim() != 2 or x.shape[1] != self.mean.shape[0]:
            raise ValueError(f"pca_whiten: 'x' must have shape (N, {self.mean.shape[0]}), got {tuple(x.shape)}")
        if x.device != self.mean.device:
            raise ValueError(
                f"pca_whiten: 'x' must be on the map's device {self.mean.device}, got {x.device}; "
                f"move it with .to({str(self.mean.device)!r})"
            )
        if not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active():
            refuse_capture("pca_whiten", x)
            _check_finite(x)
        return self._map(x)

    def _map(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(accumulator_dtype(x.dtype), self.mean.dtype)
        mean, components, scale = self.mean.to(dtype), self.components.to(dtype), self.scale.to(dtype)
        with torch.autocast(x.device.type, enabled=False):  # it would multiply in half precision
            turned = components.T.contiguous()
            projections = (ordered_product((rows.to(dtype) - mean).T, turned) for rows in _pieces(x))
            features = torch.cat([projection * scale for projection in projections])
        if not self.l2:
            return features
        norm = features.square().sum(1, keepdim=True).sqrt()
        return features / torch.where(norm == 0, torch.ones_like(norm), norm)


def pca_whiten(x: Tensor, n_components: int, *, eps: float = 1e-5, l2: bool = True) -> tuple[Tensor, PCAWhitening]:
    r"""Project on the leading principal components and bring each to unit variance.

    With the covariance :math:`\frac{1}{n-1} \sum_i (x_i - \mu)(x_i - \mu)^\top = V \Lambda V^\top`:

    .. math:: f_i = (\Lambda + \epsilon \lambda_1 I)^{-1/2} V^\top (x_i - \mu)

    over the `n_components` largest eigenvalues, then :math:`f_i / \lVert f_i \rVert` where `l2`. A component without
    variance is damped by eps rather than blown up, and constant features give zeros. The eigenvectors are those of
    the d x d covariance, or of the n x n Gram matrix where n < d. Signs: the largest entry of a component is positive.
    Eigenvectors are computed in float64, by LAPACK on one thread, and products are summed in index order: the same bits
    for any number of threads. On a GPU float32 stays float32, whatever torch's switches for TF32 say. Not
    differentiable: the results are detached.

    Parameters
    ----------
    x : Tensor, shape (n, d), float16, bfloat16, float32 or float64
        Features, n >= 2 rows.
    n_components : int
        Between 1 and min(n, d).
    eps : float, default 1e-5
        Added to the eigenvalues, relative to the largest one.
    l2 : bool, default True
        Bring rows of the result to unit length. A zero row stays zero.

    Returns
    -------
    features : Tensor, shape (n, n_components), float32 (float64 for float64)
    transform : PCAWhitening
        `mean`, `components` and `scale`; calling it maps new rows.

    Raises
    ------
    TypeError
        `x` is not a floating-point tensor, an option not of its type.
    ValueError
        `x` has no shape (n, d) with n >= 2, holds NaN or infinity (new rows too, but under torch.compile and vmap),
        its variances leave the range of floats, or an option is out of range.
    RuntimeError
        A CUDA graph is being recorded.

    References
    ----------
    Caron et al., "Deep clustering for unsupervised learning of visual features", ECCV 2018, section 3.3.

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext import pca_whiten
    >>> x = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 7.0)
    >>> features, transform = pca_whiten(x, 3, eps=0.0, l2=False)
    >>> torch.allclose(features.T.cov(), torch.eye(3), atol=1e-4)
    True
    >>> torch.equal(transform(x[:5]), features[:5])
    True
    """
    refuse_vmap("pca_whiten", "call it for each matrix of the batch", x)
    x = check_floating("pca_whiten", "x", x).detach()
    if x.dim() != 2 or x.shape[0] < 2 or x.shape[1] < 1:
        raise ValueError(f"pca_whiten: 'x' must have shape (n, d) with n >= 2 and d >= 1, got {tuple(x.shape)}")
    n_components = check.whole_number("pca_whiten", "n_components", n_components, at_least=1)
    if n_components > min(x.shape):
        raise ValueError(f"pca_whiten: 'n_components' must be at most min(n, d) = {min(x.shape)}, got {n_components}")
    eps = check.number("pca_whiten", "eps", eps)
    if eps < 0:
        raise ValueError(f"pca_whiten: 'eps' must be at least 0, got {eps}")
    check.flag("pca_whiten", "l2", l2)
    refuse_capture("pca_whiten", x)

    mean = torch.stack([rows.double().sum(0) for rows in _pieces(x)]).sum(0) / len(x)
    if not mean.isfinite().all():
        _check_finite(x)
        raise _out_of_range(x)
    variances, components = _leading(x, mean, n_components)
    largest = variances[0]
    # Nothing of the rounding of the largest counts as variance.
    floor = largest * max(x.shape) * torch.finfo(torch.float64).eps
    damped = variances + eps * largest
    scale = torch.where(damped > floor, damped.clamp_min(torch.finfo(torch.float64).tiny).rsqrt(), 0.0)
    dtype = accumulator_dtype(x.dtype)
    transform = PCAWhitening(mean.to(dtype), components.to(dtype), scale.to(dtype), l2)
    if not transform.scale.isfinite().all():
        raise _out_of_range(x)
    return transform._map(x), transform


def _pieces(x: Tensor) -> tuple[Tensor, ...]:
    """The rows of `x`, some at a time."""
    pieces: tuple[Tensor, ...] = x.split(max(_ROWS, _NUMBERS_ON_A_GPU // x.shape[1]) if x.is_cuda else _ROWS)
    return pieces


def _check_finite(x: Tensor) -> None:
    for first, rows in enumerate(x.split(_ROWS)):
        bad = (~rows.isfinite()).any(1)
        if bad.any():
            row = first * _ROWS + int(bad.int().argmax())
            raise ValueError(
                f"pca_whiten: 'x' must be finite, got NaN or infinity in row {row}; drop or mend such rows"
            )


def _out_of_range(x: Tensor) -> ValueError:
    return ValueError(
        f"pca_whiten: 'x' must have variances within the range of {accumulator_dtype(x.dtype)}, got values up to "
        f"{x.abs().max():.3g}; scale it by a constant"
    )


def _leading(x: Tensor, mean: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest eigenvalues of the covariance, and their eigenvectors as rows."""
    n, d = x.shape
    if n < d:
        centred = x.double() - mean
        gram = ordered_product(centred.T, centred.T) / (n - 1)
        values, vectors = on_one_thread(torch.linalg.eigh, _in_range(gram, x))
        # From X X^T u = s u to X^T X (X^T u) = s (X^T u). Where s is 0 the product is nothing, and QR fills in any
        # direction that is orthogonal to those before.
        columns = ordered_product(centred, vectors.flip(1)[:, :count])
        components = on_one_thread(torch.linalg.qr, columns).Q.T
    else:
        covariance = x.new_zeros(d, d, dtype=torch.float64)
        for rows in _pieces(x):
            centred = rows.double() - mean
            covariance += ordered_product(centred, centred)
        values, vectors = on_one_thread(torch.linalg.eigh, _in_range(covariance / (n - 1), x))
        components = vectors.flip(1)[:, :count].T
    largest = components.abs().argmax(1, keepdim=True)
    sign = torch.where(components.gather(1, largest) < 0, -1.0, 1.0)
    return values.flip(0)[:count].clamp_min(0), components * sign


def _in_range(matrix: Tensor, x: Tensor) -> Tensor:
    """`matrix`, or an error: eigh would only say that it did not converge."""
    if not matrix.isfinite().all():
        raise _out_of_range(x)
    return matrix
