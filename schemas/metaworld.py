"""What a recording of Meta-World's Sawyer and its simulator agree on: how far the jaws are open.

Joint ranges 0.04 and 0.03 m leave 0.03 of the 0.10 m between the claws. Source: `Farama-Foundation/Metaworld:metaworld/assets/objects/
assets/xyz_base.xml` (3.1.1), and what its simulator did here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schemas.geometry import Array

OPEN_GAP_M, SHUT_GAP_M = 0.10, 0.03


def opening_of(gap_m: npt.ArrayLike) -> Array:
    """0 shut to 1 open, of any shape, from the gap between the claws."""
    gap = np.asarray(gap_m, dtype=np.float64)
    return np.clip((gap - SHUT_GAP_M) / (OPEN_GAP_M - SHUT_GAP_M), 0.0, 1.0)
