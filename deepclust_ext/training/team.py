"""The processes that train one run together: each forwards its share of every batch, and all hold the same network."""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from deepclust_ext.distributed import Ranks, ranks_of
from deepclust_ext.runs import RankLostError
from deepclust_ext.training.meeting import meet

_T = TypeVar("_T")

# Until all processes have started: torchrun starts them at once, but a machine may read its packages slowly.
MEETING = timedelta(minutes=10)
# Of one exchange between steps: a process that is gone is noticed at once, a network that is silent after this.
TIMEOUT = timedelta(minutes=30)
# While rank 0 reads images, or writes results.
PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class Team:
    """The processes of a run, from the side of one of them; by default it is the only one.

    Every process makes the same calls in the same order. What rank 0 alone does (reading a checkpoint, writing a file)
    it does within `of_first`, where the others wait.

    Parameters
    ----------
    rank, size : int
        This process, and how many there are.
    ranks, patient : Ranks, optional
        What exchanges tensors within the time-out of a step, and with more patience.
    local_rank : int
        Its place among those of its machine.
    """

    rank: int = 0
    size: int = 1
    ranks: Ranks | None = None
    patient: Ranks | None = None
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which has the run folder."""
        return self.rank == 0

    def bounds(self, n: int) -> list[int]:
        """Where the shares of n rows begin, rank by rank, and n."""
        return [n * rank // self.size for rank in range(self.size + 1)]

    def share(self, n: int) -> slice:
        """The rows of n that are this process's."""
        bounds = self.bounds(n)
        return slice(bounds[self.rank], bounds[self.rank + 1])

    # One speaks, the others listen

    def of_first(self, work: Callable[[], _T]) -> _T:
        """What `work` returns on rank 0, on every rank; it is called there alone.

        Raises
        ------
        RankLostError
            On the others, if it raises on rank 0, in its words.
        """
        if self.size == 1:
            return work()
        if not self.leads:
            failed, found = pickle.loads(self._from_first(b""))
            if failed:
                raise RankLostError(f"rank 0 has ended: {found}")
            return found  # type: ignore[no-any-return]
        try:
            result = work()
        except BaseException as error:
            # Should this fail too, the others see that the connection is closed.
            with contextlib.suppress(RankLostError):
                self._from_first(pickle.dumps((True, str(error) or type(error).__name__)))
            raise
        self._from_first(pickle.dumps((False, result)))
        return result

    def _from_first(self, content: bytes) -> bytes:
        """Rank 0's bytes."""
        with lost():
            assert self.patient is not None
            size = self.patient.from_rank(0, torch.tensor([len(content)]))
            sent = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(int(size)).byte()
            return self.patient.from_rank(0, sent).numpy().tobytes()

    def in_turn(self, work: Callable[[], _T]) -> _T:
        """Work on rank 0, then on one process of every other machine, then on the rest: what one caches others find."""
        turn = 0 if self.leads else 1 if self.local_rank == 0 else 2
        for now in range(3 if self.size > 1 else 1):
            if now == turn:
                found = work()
            if self.size > 1:
                self.wait()
        return found

    def wait(self) -> None:
        """Wait for all."""
        if self.patient is not None:
            with lost():
                self.patient.gather(torch.zeros(1), [1] * self.size)

    # Rows

    def cut(self, rows: Tensor, n: int) -> Tensor:
        """Of rows (A * n, ...), view a of image i at row a * n + i, those of this process's images (A * m, ...)."""
        if self.size == 1:
            return rows
        found: Tensor = rows.unflatten(0, (-1, n))[:, self.share(n)].flatten(0, 1)
        return found

    def whole(self, outputs: Any, n: int) -> Any:
        """The rows (A * n, ...) of all images, of those (A * m, ...) of this process's images: the reverse of `cut`.

        The gradient of a process's rows goes back to it, times the number of processes: so `average` gives the whole
        batch's gradient to weights that act before this, and leaves that of those that act after it.

        Parameters
        ----------
        outputs : Tensor, None or tuple of them
            Each may have a number A of its own.
        n : int
            Images of the batch.
        """
        if self.size == 1 or outputs is None:
            return outputs
        if isinstance(outputs, Tensor):
            return _Whole.apply(outputs, self, n)
        return tuple(self.whole(each, n) for each in outputs)

    def join(self, rows: Tensor, bounds: Sequence[int]) -> Tensor:
        """The rows (N, ...) of all ranks, rank r's at bounds[r] to bounds[r + 1]; without gradients."""
        if self.size == 1:
            return rows
        with lost():
            assert self.ranks is not None
            sizes = [end - begin for begin, end in itertools.pairwise(bounds)]
            return torch.cat(self.ranks.gather(rows[: sizes[self.rank]], sizes))

    def every(self, row: Tensor) -> Tensor:
        """The vector (d,) of each rank, as (ranks, d)."""
        return self.join(row[None], range(self.size + 1))

    # Weights

    @torch.no_grad()
    def average(self, optimizer: torch.optim.Optimizer, stop: bool) -> bool:
        """Average the gradients over the ranks, added in their order; returns whether any of them wants to `stop`."""
        if self.size == 1:
            return stop
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for parameter in (each for group in optimizer.param_groups for each in group["params"]):
            if parameter.grad is not None:
                by_type.setdefault(parameter.grad.dtype, []).append(parameter.grad)
        stops = False
        for gradients in by_type.values():
            # The wish goes along: asked by itself, it would cost an exchange at every step.
            flat = torch.cat([*(each.flatten() for each in gradients), gradients[0].new_tensor([float(stop)])])
            with lost():
                assert self.ranks is not None
                total = self.ranks.sum_ordered(flat)
            stops |= bool(total[-1] > 0)
            parts = (total[:-1] / self.size).split([each.numel() for each in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))
        return stops

    def check_same(self, net: nn.Module, epoch: int) -> None:
        """Refuse to go on with networks that differ, as on machines whose processors round differently."""
        if self.size == 1:
            return
        sums = [each.detach().double().sum() for each in net.state_dict().values()]
        found = self.every(torch.stack([each.cpu() for each in sums]))
        # NaN is for the loss to tell.
        if found.isfinite().all() and found.ne(found[0]).any():
            raise RuntimeError(f"fit: the networks of the {self.size} ranks have come apart in epoch {epoch}")


class _Whole(torch.autograd.Function):
    """See `Team.whole`."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, team: Team, n: int) -> Tensor:
        ctx.team, ctx.n = team, n
        bounds = team.bounds(n)
        own = part.unflatten(0, (-1, bounds[team.rank + 1] - bounds[team.rank])).transpose(0, 1)
        return team.join(own, bounds).transpose(0, 1).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.team.cut(grads[0], ctx.n) * ctx.team.size, None, None


@contextlib.contextmanager
def lost() -> Iterator[None]:
    """Turn what a backend says of a closed connection into a sentence."""
    try:
        yield
    except RuntimeError as error:
        raise RankLostError(
            "another process of the run has ended, and this one ends with it; start all again with --resume auto"
        ) from error


_current = Team()


def current() -> Team:
    """The processes that fit together, within a block of `joined`; else this one alone."""
    return _current


@contextlib.contextmanager
def joined(group: Any = None) -> Iterator[Team]:
    """Within the block all processes that `torchrun` has started fit as one: all must call the same.

    Without torchrun the block changes nothing.

    Parameters
    ----------
    group : ProcessGroup, optional
        That of the processes, where there is one already.

    Examples
    --------
    >>> with joined() as team:
    ...     team.size
    1
    """
    global _current
    before, made = _current, False
    if group is None and int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ:
        local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.is_available()
        if gpus:
            torch.cuda.set_device(local)
        with lost():
            store, rank, size = meet(MEETING)
            backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
            group, made = dist.group.WORLD, True
            patient = ranks_of("fit", dist.new_group(backend="gloo", timeout=PATIENCE))
        _current = Team(dist.get_rank(), dist.get_world_size(), ranks_of("fit", group), patient, local)
    elif group is not None:
        ranks = ranks_of("fit", group)
        _current = Team(ranks.rank, ranks.size, ranks, ranks, ranks.rank)
    try:
        yield _current
        if made:
            # Not after an error: a process that waits for the others then would hang.
            dist.destroy_process_group()
    finally:
        _current = before
