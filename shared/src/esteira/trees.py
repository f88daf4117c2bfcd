"""x"""

import io, numpy as np, msgspec
from typing import Any

WORD_BITS = 32


def TreeArrays(**k):
    return k


def to_bytes(a, m):
    return a
