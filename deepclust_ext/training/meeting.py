"""Where processes that `torchrun` has started find each other, and never those of an earlier start."""

from __future__ import annotations

import time
import uuid
from datetime import timedelta

from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

# Between two looks for the others.
_PAUSE = 0.05


def meet(timeout: timedelta) -> tuple[Store, int, int]:
    """A store for `init_process_group` that all processes of this start have and none of another; rank, and how many.

    After `--max-restarts` has started processes anew they are given the store of those before, with the addresses of
    processes that are gone: a rank that is faster than rank 0 would call an old one. So rank 0 draws a token, and gives
    it to each of the others that asks by a name drawn anew; keys begin with the token.
    """
    store, rank, size = next(iter(rendezvous("env://", timeout=timeout)))
    own, end = uuid.uuid4().hex, time.monotonic() + timeout.total_seconds()
    if rank > 0:
        store.set(f"deepclust/asks/{rank}", own)
        token = store.get(f"deepclust/token/{own}").decode()
        store.set(f"deepclust/has/{token}/{rank}", "")
        return PrefixStore(token, store), rank, size
    waiting = set(range(1, size))
    while waiting:
        for other in sorted(waiting):
            if store.check([f"deepclust/asks/{other}"]):
                # Perhaps of an earlier start: then it asks again.
                store.set(f"deepclust/token/{store.get(f'deepclust/asks/{other}').decode()}", own)
            if store.check([f"deepclust/has/{own}/{other}"]):
                waiting.remove(other)
        if waiting and time.monotonic() > end:
            raise RuntimeError(f"ranks {', '.join(map(str, sorted(waiting)))} did not come")
        time.sleep(_PAUSE if waiting else 0)
    return PrefixStore(own, store), rank, size
