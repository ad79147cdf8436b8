"""How work reaches a worker."""

from __future__ import annotations

import pickle
from typing import TypeVar

T = TypeVar("T")


def travelled(value: T) -> T:
    """`value` as a worker gets it: Ray and multiprocessing pickle what we give them.

    The only place in the tests where a pickle is loaded by Python itself, and it is of our own making a moment ago. Pickles of data sets go
    through `adapters/containers/restricted_pickle.py`.
    """
    back: T = pickle.loads(pickle.dumps(value))
    return back
