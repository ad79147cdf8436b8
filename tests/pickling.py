"""How work reaches a worker; the only place in the tests where Python itself loads a pickle, and it is of our own making a moment ago.

Pickles of data sets, generated ones too, go through `adapters/containers/restricted_pickle.py`.
"""

from __future__ import annotations

import pickle
from typing import Any, TypeVar

T = TypeVar("T")


def travelled(value: T, protocol: int | None = None) -> T:
    """`value` as a worker gets it: Ray and multiprocessing pickle what we give them, in the newest protocol or an older one."""
    back: T = pickle.loads(pickle.dumps(value, protocol))
    return back


def read_by_its_own_library(data: bytes) -> Any:
    """What the library that a pickle names makes of it. Only for `data` that this process wrote: to load it is to run it."""
    return pickle.loads(data)
