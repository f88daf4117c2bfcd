"""What becomes of rows that were read, as JSON: their answers, and what is logged of them. See answers.zig."""

import ctypes
import math
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from esteira_kernel.library import find_function
from esteira_kernel.rows import Rows
from esteira_kernel.trees import TreeSums

RANDOM_BYTES: Final = 15
"""Of which the identities of a request are made."""
RECORD_ROWS: Final = 500
"""Whose records are given together: they are never cut, and Pub/Sub takes 10 MB."""
_ROW_BYTES: Final = 400
"""Of an answer and a record together at most, without the row's values and context."""
_SMALL_CONTEXTS: Final = 1 << 12
"""Bytes; for so many there is room where small requests are written."""

Array = npt.NDArray[np.float64]
Score = Callable[[Array], Array]


class Answers(NamedTuple):
    """Of one request, as JSON."""

    rows: int
    answers: bytes
    """An array of `{"prediction_id": …, "score": …}`, with a `label` where there is a threshold."""
    records: list[tuple[int, bytes]]
    """What is to be logged: how many, and objects with commas between them."""


class _Form(ctypes.Structure):
    """`Form` of answers.zig, field by field."""

    _fields_ = (("exp", ctypes.c_void_p), ("threshold", ctypes.c_double))


class _Part(ctypes.Structure):
    """`Part` of answers.zig, field by field."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ("begin", "end")),
        *((name, ctypes.c_void_p) for name in ("sums", "values", "ends")),
        ("contexts", ctypes.c_char_p),
        *((name, ctypes.c_size_t) for name in ("contexts_length", "context_at")),
        ("random", ctypes.c_char_p),
        ("moment", ctypes.c_uint64),
        ("text", ctypes.c_void_p),
        *((name, ctypes.c_size_t) for name in ("capacity", "answers_end", "records_end")),
    )


_write, _write_short = find_function("write_answers", [ctypes.c_void_p, ctypes.c_void_p], ctypes.c_bool)
_score_sums, _ = find_function("score_sums", [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p], None)
_EXP: Final = ctypes.cast(ctypes.CDLL(None).exp, ctypes.c_void_p).value
"""That of the C library, which `math.exp` and SciPy call."""


class Answerer:
    """Answers rows that a `RowReader` has read. Safe to share by threads.

    Args:
        model: trees, of one sum a row; or what scores a matrix otherwise.
        logit: whether the trees' scores are 1 / (1 + exp(-sum)), not the sums.
        threshold: labels say whether the score reaches it; None for no labels.
    """

    def __init__(self, model: TreeSums | Score, threshold: float | None, *, logit: bool) -> None:
        self._model = model
        self._form = _Form(_EXP if logit else None, math.nan if threshold is None else threshold)
        self._address = ctypes.addressof(self._form)
        self._kept = _Kept()

    def answer(self, rows: Rows, random: bytes, moment: int, contexts: bytes | None = None) -> Answers | None:
        """Answers them.

        Args:
            rows: that this thread read last.
            random: `RANDOM_BYTES`.
            moment: microseconds since 1970 in UTC.
            contexts: what is logged of each row beside: a JSON object a line, with `entity` and `event_time`; None
                where there is no entity, and they happen now.

        Returns:
            None where a score is not finite: the rules answer then.
        """
        sums, text = self._sum(rows), self._text(rows, len(contexts or b""))
        part, write = text.part, _write_short if rows.is_small else _write
        part.sums, part.random, part.moment = sums.address, random, moment
        part.values, part.ends = rows.values_address, rows.ends_address
        part.contexts, part.contexts_length, part.context_at = contexts, len(contexts or b""), 0
        answers: list[bytes] = []
        records: list[tuple[int, bytes]] = []
        for begin in range(0, rows.count, RECORD_ROWS):
            part.begin, part.end = begin, min(begin + RECORD_ROWS, rows.count)
            if not write(self._address, text.address):
                return None
            answers.append(text.answers())
            records.append((part.end - begin, text.records()))
        return Answers(rows.count, b"[%b]" % b",".join(answers), records)

    def scores(self, sums: Array) -> Array:
        """The scores of sums, both of shape (rows,), as `answer` makes them."""
        sums, found = np.ascontiguousarray(sums), np.empty(len(sums))
        _score_sums(self._address, sums.ctypes.data, len(sums), found.ctypes.data)
        return found

    def _sum(self, rows: Rows) -> Any:
        """What has the address of the sums, and holds them."""
        if isinstance(self._model, TreeSums):
            return self._model.sum_rows(rows.matrix_address, rows.count)
        return _Scored(self._model(rows.matrix))

    def _text(self, rows: Rows, contexts: int) -> "_Text":
        if not rows.is_small or contexts > _SMALL_CONTEXTS:
            return _Text(rows, contexts)
        if self._kept.text is None:
            self._kept.text = _Text(rows, _SMALL_CONTEXTS)
        return self._kept.text


class _Scored:
    """Scores that were made elsewhere."""

    def __init__(self, scores: Array) -> None:
        self._scores = np.ascontiguousarray(scores, dtype=np.float64)
        self.address = self._scores.ctypes.data


class _Text:
    """Where native code writes answers and records, for as many rows and values as `rows` has room for.

    Args:
        contexts: bytes of what is logged beside.
    """

    def __init__(self, rows: Rows, contexts: int) -> None:
        self._text = np.empty(rows.values_size + rows.most * _ROW_BYTES + contexts, dtype=np.uint8)
        self.part = _Part(text=self._text.ctypes.data, capacity=len(self._text))
        self.address = ctypes.addressof(self.part)

    def answers(self) -> bytes:
        """The part's answers, with commas between them."""
        return self._text[: self.part.answers_end].tobytes()

    def records(self) -> bytes:
        """The part's records, with commas between them."""
        return self._text[self.part.answers_end : self.part.records_end].tobytes()


class _Kept(threading.local):
    """Of each thread, for small bodies."""

    text: _Text | None = None
