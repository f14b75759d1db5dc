"""Work that the ranks of a `torch.distributed` process group share: agreement, ordered sums, rows that change place."""

from deepclust_ext.distributed.ranks import Ranks, digest_of, kind_of, ranks_of

__all__ = ["Ranks", "digest_of", "kind_of", "ranks_of"]
