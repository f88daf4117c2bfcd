"""The first champion, kept aside: what its AUC would have been on the same requests."""

from pathlib import Path

import msgspec

from esteira.bucket import Bucket
from esteira.features import FeatureQuery
from esteira.metrics import roc_auc
from esteira.pipeline import LoadedPipeline
from esteira.release import Pointer, pointer_path
from esteira.release_files import fetch_release
from esteira.runtime import ReleaseRuntime
from esteira.schema import Row


class FrozenChampion:
    """The release that the pointer names now, scored offline from now on."""

    def __init__(self, bucket: Bucket, pipeline: LoadedPipeline, cache: Path) -> None:
        data = bucket.read(pointer_path(pipeline.name))
        pointer = msgspec.json.decode(data, type=Pointer)
        self._runtime = ReleaseRuntime(fetch_release(bucket, pointer.path, pointer.sha256, cache), pointer.sha256)
        self._labels = label_query(pipeline)

    def auc(self, rows: list[Row]) -> float | None:
        """Its AUC on those of the rows whose label is known; None where they are all alike."""
        labels = self._labels.run(rows)["label"]
        scores = self._runtime.score(self._runtime.features(rows))
        known = [(label, score) for label, score in zip(labels, scores.tolist(), strict=True) if label is not None]
        return roc_auc([float(label) for label, _ in known], [score for _, score in known])


def label_query(pipeline: LoadedPipeline) -> FeatureQuery:
    """The pipeline's label over whole raw rows, those columns included that are known only after."""
    columns = [msgspec.structs.replace(column, known="before") for column in pipeline.columns]
    return FeatureQuery(f"SELECT _row, ({pipeline.spec.label.sql}) AS label FROM raw", columns, {})  # noqa: S608
