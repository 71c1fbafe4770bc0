"""Fewer points of a series that still show every peak.

Time is cut into buckets; of each bucket the rows stay where a column has its minimum or maximum. Rows stay whole, so
that the owners of a peak belong to that peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    Array = NDArray[Any]


def kept(length: int, columns: Sequence[Array], max_points: int) -> Array:
    """Sorted indices of the rows to keep: at most ``max_points``, but at least 2 per column and the ends.

    NaN is no reading and never an extreme.
    """
    import numpy as np

    if length <= max_points:
        return np.arange(length)
    live = [c for c in columns if not np.isnan(c).all()] or [np.arange(length, dtype=float)]
    buckets = max(1, (max_points - 2) // (2 * len(live)))
    per = -(-length // buckets)
    keep = {0, length - 1}
    for column in live:
        # Whole buckets of one size, filled up with what is never an extreme.
        filled = np.full(buckets * per, np.nan)
        filled[:length] = column
        table = filled.reshape(buckets, per)
        rows = np.flatnonzero(~np.isnan(table).all(axis=1))
        keep.update((rows * per + np.nanargmin(table[rows], axis=1)).tolist())
        keep.update((rows * per + np.nanargmax(table[rows], axis=1)).tolist())
    return np.array(sorted(keep))
