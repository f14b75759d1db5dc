"""What every op's Python side shares: dtype rules, batching, and the refusal of second derivatives."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

_Result = TypeVar("_Result")

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_floating(op: str, arg: str, value: object) -> Tensor:
    """`value` as a floating-point tensor, or a TypeError that names the argument."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: '{arg}' must be a torch.Tensor, got {type(value).__name__}")
    if value.dtype not in FLOATING:
        raise TypeError(
            f"{op}: '{arg}' must be float16, bfloat16, float32 or float64, got {value.dtype}; convert it with .float()"
        )
    if value.is_nested:
        raise TypeError(f"{op}: '{arg}' must be a dense tensor, got a nested one; pad it with .to_padded_tensor(0)")
    if value.layout != torch.strided:
        raise TypeError(f"{op}: '{arg}' must be a dense tensor, got {value.layout}; convert it with .to_dense()")
    return value


def matched_rows(op: str, first: str, x: Tensor, second: str, other: Tensor) -> tuple[Tensor, Tensor]:
    """Two stacks of rows in one dtype and with the same leading dimensions, or an error about the second.

    `first` and `second` are what the public function calls them.
    """
    if other.device != x.device:
        raise ValueError(
            f"{op}: '{second}' must be on {first}'s device {x.device}, got {other.device}; "
            f"move it with .to({str(x.device)!r})"
        )
    if x.dtype != other.dtype:
        dtype = torch.promote_types(x.dtype, other.dtype)
        x, other = x.to(dtype), other.to(dtype)
    if x.shape[:-2] == other.shape[:-2]:
        return x, other
    try:
        leading = torch.broadcast_shapes(x.shape[:-2], other.shape[:-2])
    except RuntimeError:
        raise ValueError(
            f"{op}: '{second}' must have leading dimensions that broadcast with {first}'s {tuple(x.shape[:-2])}, "
            f"got {tuple(other.shape[:-2])}"
        ) from None
    return x.expand(*leading, *x.shape[-2:]), other.expand(*leading, *other.shape[-2:])


def accumulator_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype sums are kept in: float64 for float64, float32 for everything else."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def all_finite(x: Tensor) -> bool:
    """Whether no entry of x is NaN or infinite: by one sum, which makes no copy, unless it overflows."""
    return bool(x.sum(dtype=accumulator_dtype(x.dtype)).isfinite()) or bool(x.isfinite().all())


def refuse_vmap(op: str, instead: str, value: object) -> None:
    """Refuse a tensor that torch.vmap has hidden a dimension of, where an op decides by values."""
    functorch = torch._C._functorch
    if not torch._C._are_functorch_transforms_active():
        return
    while isinstance(value, Tensor) and functorch.is_functorch_wrapped_tensor(value):
        if functorch.is_batchedtensor(value):
            raise NotImplementedError(f"{op}: torch.vmap is not supported; {instead}")
        value = functorch.get_unwrapped(value)


def wants_gradient(op: str, *inputs: Tensor) -> bool:
    """Whether autograd must see this call; inside torch.func's transforms `requires_grad` does not tell."""
    # A raw op would drop a tangent without a word.
    if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(t).tangent is not None for t in inputs):
        raise NotImplementedError(
            f"{op}: forward-mode derivatives are not implemented; use reverse mode, "
            f"or deepclust_ext.reference.{op}, which is plain torch"
        )
    if torch._C._are_functorch_transforms_active():
        return True
    return torch.is_grad_enabled() and any(t.requires_grad for t in inputs)


def differentiable(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """`function.apply`, by the cheaper road where no transform of torch.func is at work.

    A Function with `setup_context` binds its arguments through `inspect.signature` at every call, which costs more
    than a small loss itself. Its twin, with the older combined `forward`, does not, but is closed to torch.func.
    """

    class Eager(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = function.forward(*inputs)
            function.setup_context(ctx, inputs, output)
            return output

        backward = staticmethod(function.backward)

    Eager.__name__ = Eager.__qualname__ = function.__name__
    eager_apply = Eager.apply

    def apply(*inputs: Any) -> Any:
        if torch._C._are_functorch_transforms_active():
            if torch.compiler.is_compiling():
                # The tracer would inline `forward` and drop `backward`: a gradient of 0, without a word.
                torch._dynamo.graph_break(msg="torch.func inside torch.compile drops custom gradients")
            return function.apply(*inputs)
        return eager_apply(*inputs)

    return apply


def first_derivative_only(op: str, run: Callable[..., Any]) -> type[torch.autograd.Function]:
    """The backward op `run` as a Function whose own derivative refuses instead of silently being zero."""

    class Backward(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(*inputs: Any) -> Any:
            return run(*inputs)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            raise RuntimeError(
                f"{op}: a second derivative is not implemented; use deepclust_ext.reference.{op}, which is plain torch"
            )

    return Backward


def refuse_capture(op: str, x: Tensor) -> None:
    """Raise a RuntimeError where a CUDA graph is being recorded, for an op that waits for values of `x` in Python.

    torch's own error would name a call inside of the op. Where the kernels wait, they say the same (capture.cpp).
    """
    if torch.compiler.is_compiling() or not x.is_cuda or not torch.cuda.is_current_stream_capturing():
        return
    raise RuntimeError(
        f"{op}: a CUDA graph cannot record it, for it waits to hear whether its inputs are finite\n"
        "  call it outside of the capture"
    )


def batch_first(batch_size: int, value: Any, dim: int | None) -> Any:
    """`value` with its vmapped dimension moved to the front, or expanded there when it has none."""
    if not isinstance(value, Tensor):
        return value
    if dim is None:
        return value.unsqueeze(0).expand(batch_size, *value.shape)
    return value.movedim(dim, 0)


def checked_by_value(
    op: str, run: Callable[..., _Result], *inputs: Any, error: type[Exception] = ValueError, **names: str
) -> _Result:
    """`run(*inputs)`, where the kernel's complaint about an argument's values becomes an `error` of `op`.

    Looking at the values here would cost a pass over them; a compiled graph keeps the kernel's RuntimeError. `names`
    says what the public function calls an argument of the kernel.
    """
    if torch.compiler.is_compiling():
        return run(*inputs)
    try:
        return run(*inputs)
    except RuntimeError as complaint:
        found = re.search(r"\w+: '(\w+)' (must be .*)", str(complaint))
        if found is None:
            raise
        name = names.get(found.group(1), found.group(1))
        raise error(f"{op}: '{name}' {found.group(2)}") from None
