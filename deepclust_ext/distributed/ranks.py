"""The ranks of a process group, from the side of one of them.

Every rank must make the same calls in the same order. So whatever one rank alone may refuse (an argument, a value that
a kernel finds) is refused by all: `agree` and `together` run such work and exchange how it went before anyone goes on.
Floats are summed in rank order, which no backend promises of its all-reduce: the same bits on every rank, on every run,
with every backend.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Ranks", "digest_of", "kind_of", "ranks_of"]

_T = TypeVar("_T")

# What a rank says of itself: how its work went, a digest of what must be equal, and numbers that may differ.
_COUNTS = 4
_SAME = "group"
_ERRORS = (TypeError, ValueError, IndexError, NotImplementedError, MemoryError)
# From this size on, a sum goes round in pieces: every rank receives twice the tensor and not one of each rank.
_PIECES = 1 << 15


def ranks_of(op: str, group: object) -> Ranks:
    """The ranks of `group`, or an error: a TypeError or ValueError that the other ranks cannot hear of."""
    if dist.is_available() and group is dist.GroupMember.NON_GROUP_MEMBER:
        raise ValueError(f"{op}: 'group' must hold this process, got a group of others")
    if not dist.is_available() or not isinstance(group, dist.ProcessGroup):
        raise TypeError(f"{op}: 'group' must be a torch.distributed process group, got {type(group).__name__}")
    return Ranks(op, group, dist.get_rank(group), dist.get_world_size(group))


def kind_of(x: Tensor, rows: int | None = None) -> str:
    """Shape, dtype and type of device, as `agree` compares them; `rows` is the dimension that ranks may differ in."""
    sizes = [str(size) for size in x.shape]
    if rows is not None:
        sizes[rows] = "n"
    return f"shape ({', '.join(sizes)}) {str(x.dtype).removeprefix('torch.')} on {x.device.type}"


def digest_of(x: Tensor) -> str:
    """A tensor's values, as `agree` compares them."""
    return f"{kind_of(x)} of digest {hashlib.blake2b(_bytes(x).cpu().numpy().tobytes(), digest_size=8).hexdigest()}"


@dataclass(frozen=True)
class Ranks:
    """A process group at work on one operation.

    Parameters
    ----------
    op : str
        The public function, for errors.
    group : ProcessGroup or None
        None for one process by itself.
    rank, size : int
        This process's place in the group, and the number of processes.
    """

    op: str
    group: dist.ProcessGroup | None
    rank: int
    size: int

    # Agreement

    def agree(
        self, prepare: Callable[[], tuple[_T, Mapping[str, object], Sequence[int]]]
    ) -> tuple[_T, list[tuple[int, ...]]]:
        """Run `prepare` on every rank, and go on where all ranks came through it with the same facts.

        Parameters
        ----------
        prepare : callable
            Checks this rank's arguments. It returns a result, facts that must be equal on all ranks (the name of an
            argument and what describes it), and up to four whole numbers that may differ.

        Returns
        -------
        result, numbers
            What `prepare` returned, and the numbers of every rank in rank order.

        Raises
        ------
        Exception
            Of a rank's own type and words, on every rank, where `prepare` raised on one.
        ValueError
            On every rank, where facts differ; it names the argument.
        """
        error: Exception | None = None
        facts: dict[str, str] = {_SAME: self.op}
        numbers: list[int] = []
        result: _T | None = None
        try:
            # One process by itself works as a group does where it reads rows by blocks.
            refused = f"{self.op}: '{'max_memory' if self.group is None else 'group'}' must be None"
            if torch.compiler.is_compiling():
                raise RuntimeError(f"{refused} under torch.compile; call it outside of the graph")
            if torch._C._are_functorch_transforms_active():
                raise NotImplementedError(f"{refused} inside torch.func's transforms")
            result, own, counts = prepare()
            facts.update((name, str(fact)) for name, fact in own.items())
            numbers = [int(count) for count in counts]
        except Exception as problem:
            error = problem
        digest = hashlib.blake2b(repr(facts).encode(), digest_size=8).digest()
        header = [int(error is not None), int.from_bytes(digest, "big", signed=True)]
        heads = self._heads([*header, *numbers, *[0] * (_COUNTS - len(numbers))])
        if any(head[0] for head in heads):
            self._refuse(error)
        if len({head[1] for head in heads}) > 1:
            self._differ(facts)
        return cast(_T, result), [tuple(head[2 : 2 + len(numbers)]) for head in heads]

    def together(self, work: Callable[[], _T]) -> _T:
        """Run `work` on every rank; where it raises on one, it raises on all, in the same words."""
        return self.agree(lambda: (work(), {}, ()))[0]

    def _heads(self, head: list[int]) -> list[list[int]]:
        rows = self.gather(torch.tensor([head], dtype=torch.int64, device="cpu"), [1] * self.size)
        return torch.cat(rows).tolist()

    def _objects(self, value: object) -> list[Any]:
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.group)
        return found

    def _refuse(self, error: Exception | None) -> NoReturn:
        """The first rank's error, on every rank."""
        said = None
        if error is not None:
            kind = next((known.__name__ for known in _ERRORS if isinstance(error, known)), "RuntimeError")
            said = (kind, str(error))
        everyone: list[tuple[str, str] | None] = self._objects(said)
        rank, first = next((rank, each) for rank, each in enumerate(everyone) if each is not None)
        known = {each.__name__: each for each in _ERRORS}.get(first[0], RuntimeError)
        where = "" if all(each == first for each in everyone) else f" (on rank {rank})"
        raise known(f"{first[1]}{where}") from error

    def _differ(self, facts: Mapping[str, str]) -> NoReturn:
        """A sentence about the first argument that ranks describe differently."""
        everyone: list[dict[str, str]] = self._objects(dict(facts))
        first = everyone[0]
        for name in [name for each in everyone for name in each]:
            for rank, each in enumerate(everyone):
                if each.get(name) != first.get(name):
                    a, b = first.get(name, "none"), each.get(name, "none")
                    raise ValueError(
                        f"{first[_SAME]}: '{name}' must be the same on every rank, got {a} on rank 0 and {b} on "
                        f"rank {rank}"
                    )
        raise ValueError(f"{self.op}: 'group' must be used with the same arguments on every rank")

    # Rows and sums

    def gather(self, x: Tensor, rows: Sequence[int]) -> list[Tensor]:
        """Every rank's `x`, in rank order; `rows` is the first dimension of each, the others are equal."""
        if self.size == 1:
            return [x.detach()]
        home = self._home(x.device)
        row = x[:0].numel() if x.dim() == 1 else x.shape[1:].numel()
        size = (1 if x.dim() == 1 else row) * x.element_size()
        most = max(rows)
        own = torch.zeros(most * size, dtype=torch.uint8, device=home)
        if x.numel():
            own[: x.shape[0] * size] = _bytes(x.detach()).to(home)
        parts = [torch.empty_like(own) for _ in rows]
        if most * size:
            dist.all_gather(parts, own, group=self.group)
        return [
            part[: count * size].to(x.device).view(x.dtype).view(count, *x.shape[1:])
            for part, count in zip(parts, rows, strict=True)
        ]

    def sum_whole(self, x: Tensor) -> Tensor:
        """The sum of every rank's whole numbers: exact, so that its order does not matter."""
        assert not x.dtype.is_floating_point
        if self.size == 1:
            return x.clone()
        total = x.to(self._home(x.device), copy=True)
        dist.all_reduce(total, group=self.group)
        return total.to(x.device)

    def sum_ordered(self, x: Tensor) -> Tensor:
        """The sum of every rank's floats, of one shape, added in rank order."""
        flat = x.detach().reshape(-1)
        if self.size == 1:
            return x.detach().clone()
        if flat.numel() < _PIECES:
            return _added(self.gather(flat, [flat.numel()] * self.size)).view(x.shape)
        # Each rank adds up a piece and hands it round: the same sums, whatever is cut.
        piece = -(-flat.numel() // self.size)
        padded = torch.nn.functional.pad(flat, (0, piece * self.size - flat.numel()))
        own = self.sum_rows(padded, [piece] * self.size)
        return torch.cat(self.gather(own, [piece] * self.size))[: flat.numel()].view(x.shape)

    def sum_rows(self, x: Tensor, rows: Sequence[int]) -> Tensor:
        """The rows of this rank in the sum of every rank's `x` (sum(rows), ...), added in rank order."""
        assert x.shape[0] == sum(rows)
        if self.size == 1:
            return x.detach().clone()
        home = self._home(x.device)
        size = (1 if x.dim() == 1 else x.shape[1:].numel()) * x.element_size()
        sent = torch.zeros(x.shape[0] * size, dtype=torch.uint8, device=home)
        if sent.numel():
            sent.copy_(_bytes(x.detach()))
        own = rows[self.rank]
        received = torch.empty(self.size * own * size, dtype=torch.uint8, device=home)
        if sent.numel():
            dist.all_to_all_single(received, sent, [own * size] * self.size, [n * size for n in rows], group=self.group)
        return _added(list(received.to(x.device).view(x.dtype).view(self.size, own, *x.shape[1:])))

    def from_rank(self, rank: int, x: Tensor) -> Tensor:
        """`x` of that rank; on the others it says shape and dtype alone."""
        if self.size == 1 or x.numel() == 0:
            return x.detach()
        home = self._home(x.device)
        assert self.group is not None
        sent = _bytes(x.detach()).to(home, copy=True)
        dist.broadcast(sent, dist.get_global_rank(self.group, rank), group=self.group)
        return sent.to(x.device).view(x.dtype).view(x.shape)

    def _home(self, device: torch.device) -> torch.device:
        """Where the group's backend takes tensors of `device`: NCCL takes a GPU's, and gloo the CPU's."""
        assert self.group is not None
        kinds = {each.type for each in self.group._device_types}
        if device.type == "cuda" and "cuda" in kinds and dist.get_backend(self.group) != "gloo":
            return device
        return torch.device("cpu") if "cpu" in kinds else torch.device("cuda", torch.cuda.current_device())


def _bytes(x: Tensor) -> Tensor:
    """As bytes, which every backend takes; halves and Booleans not all do."""
    # A single element is contiguous at any stride, which a view as bytes is not.
    return x.contiguous().as_strided((x.numel(),), (1,)).view(torch.uint8)


def _added(parts: list[Tensor]) -> Tensor:
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total
