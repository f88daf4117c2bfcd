"""A worker's releases and the keeper's pointers in one process, without the time between them."""

from collections.abc import Mapping
from pathlib import Path

from esteira.bucket import Bucket
from predictor.pointers import Pointers
from predictor.serving import Servings
from predictor.state import StateFolder


class Following:
    """Both, over a bucket; `folder` holds the cache and what one tells the other."""

    def __init__(self, bucket: Bucket, folder: Path, pinned: Mapping[str, str] | None = None) -> None:
        state = folder / "state"
        state.mkdir(parents=True, exist_ok=True)
        self.pointers = Pointers(bucket, folder / "cache", StateFolder(state), pinned)
        self.servings = Servings(state)

    def refresh(self) -> None:
        """Looks at the pointers, and brings in what they name."""
        self.pointers.refresh()
        self.servings.apply()
