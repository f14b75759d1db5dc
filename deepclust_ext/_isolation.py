"""What a caller has set in torch stays outside, and what our code draws stays inside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def own_torch_state(device: torch.device | str = "cpu") -> Iterator[None]:
    """Within the block torch is as it starts up; the caller's settings and random state come back when it ends.

    Inside, new tensors are float32 and on the CPU unless they say otherwise, gradients are recorded, and nothing is
    cast on its own: a default dtype or device, `no_grad`, `inference_mode` or `autocast` that the caller has set would
    change results or stop a run. Modules may draw from the default generators. The number of threads is the caller's:
    torch splits its sums by it, so a run records it.

    Parameters
    ----------
    device : device or str
        Where the block computes: its random state is kept too.
    """
    kind = torch.device(device)
    dtype = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[kind] if kind.type == "cuda" else []))
        # The others cost nothing; a device as context costs a little at every call of torch.
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for each in {"cpu", kind.type}:
            if torch.is_autocast_enabled(each):
                stack.enter_context(torch.autocast(each, enabled=False))
        stack.callback(torch.set_default_dtype, dtype)
        torch.set_default_dtype(torch.float32)
        yield
