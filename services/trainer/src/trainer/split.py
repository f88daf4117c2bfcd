"""Which rows are held out: decided by a hash, for ever, whoever asks.

A row is held out by its own key alone, so the old champion and the new one were both fitted without it, however many
files arrived in between. A greater share holds out the same rows and more.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]

_SALT = b"esteira-holdout|"
_RANGE = 2**64


def held_out(keys: Iterable[str], share: float) -> Mask:
    """Says for each key whether its rows are held out.

    Args:
        keys: entity keys, or days in ISO form.
        share: of all keys, between 0 and 1.
    """
    limit = int(share * _RANGE)
    return np.fromiter((_position(key) < limit for key in keys), dtype=np.bool_)


def held_out_days(days: npt.NDArray[np.datetime64], share: float) -> Mask:
    """Says for each event time whether its whole day (UTC) is held out."""
    unique, inverse = np.unique(days.astype("datetime64[D]"), return_inverse=True)
    chosen = held_out((str(day) for day in unique), share)
    return chosen[inverse]


def _position(key: str) -> int:
    return int.from_bytes(hashlib.sha256(_SALT + key.encode()).digest()[:8], "big")
