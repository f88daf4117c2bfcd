"""The story of the demo: history → first champion → months of requests, labels, judgement and retraining."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from esteira.bucket import Bucket
from esteira.exceptions import PermanentError
from esteira.metrics import roc_auc
from esteira.schema import Row
from esteira_cli.demo.frozen import FrozenChampion, label_query
from esteira_cli.demo.narrator import Narrator
from esteira_cli.demo.report import DemoReport, Month, month_line
from esteira_cli.demo.services import Services
from esteira_cli.demo.source import DemoSource, Span

CLIENTS = 8
FINISHED = ("promoted", "approved", "rejected", "failed")
AGREEING_ANSWERS = 12
"""Equal answers in a row after which all workers of the predictor are taken to serve the same release."""


class DemoFailed(PermanentError):
    """The demo cannot go on."""


class Story:
    """Plays one pipeline's demo against a running stack.

    Args:
        source: the raw data; `prepare` was called.
        services: the stack's services.
        bucket: the stack's bucket.
        requests: rows of each month that are sent as requests.
        cache: a folder for the frozen champion.
    """

    def __init__(
        self, source: DemoSource, services: Services, bucket: Bucket, narrator: Narrator, requests: int, cache: Path
    ) -> None:
        self._source = source
        self._services = services
        self._bucket = bucket
        self._narrator = narrator
        self._requests = requests
        self._cache = cache
        self._pipeline = source.pipeline
        self._labels = label_query(source.pipeline)
        self._sent = 0

    def play(self, months: Span) -> DemoReport:
        """Plays the history and then each month.

        Raises:
            DemoFailed: a file was refused, or there is no first champion.
            Unavailable: a service stayed away.
        """
        self._raise_first_champion()
        first_prediction_s = self._first_prediction(months[0])
        frozen = FrozenChampion(self._bucket, self._pipeline, self._cache)
        played = [self._play_month(month, frozen) for month in range(months[0], months[1] + 1)]
        return DemoReport(
            months=played,
            retrainings=sum(month.retrained for month in played),
            first_prediction_s=first_prediction_s,
            total_s=self._narrator.elapsed(),
        )

    def _raise_first_champion(self) -> None:
        with self._narrator.stage("history: checking rows, making features"):
            ingested = self._upload(self._source.history())
        self._narrator.say(f"history: {ingested['accepted']} rows accepted, {ingested['quarantined']} set aside")
        with self._narrator.stage("training the first champion"):
            run = self._finished_run(self._newest_dataset())
        if run["status"] != "promoted":
            raise DemoFailed(f"no first champion: {run['verdict']}; see `{self._services.logs_command('trainer')}`")
        self._wait_for_release(run["release_version"])

    def _first_prediction(self, month: int) -> float:
        """Serves one row, apart from the replay, and says when that was."""
        row = self._source.sample(month, 1)[0]
        answer = self._predict(row)
        self._sent += 1
        seconds = self._narrator.elapsed()
        score = answer["predictions"][0]["score"]
        self._narrator.say(f"first prediction: {score:.3f} by model {answer['model_version']}")
        return seconds

    def _play_month(self, month: int, frozen: FrozenChampion) -> Month:
        rows = self._source.sample(month, self._requests)
        labels = self._labels.run(rows)["label"]
        answers = self._replay(month, rows)
        with self._narrator.stage(f"month {month}: storing predictions"):
            self._wait_until_stored()
        with self._narrator.stage(f"month {month}: labels arrive"):
            self._upload(self._source.path(month))
        with self._narrator.stage(f"month {month}: judging"):
            window = self._judged_window(rows, sum(label is not None for label in labels))
        played = self._month(month, rows, labels, answers, window, frozen)
        self._narrator.say(month_line(played))
        return played

    def _month(
        self,
        month: int,
        rows: Sequence[Row],
        labels: Sequence[Any],
        answers: Sequence[Any],
        window: dict[str, Any],
        frozen: FrozenChampion,
    ) -> Month:
        run = self._retraining(month) if window["decision"] == "requested" else None
        known = [(float(label), score) for label, (_, score) in zip(labels, answers, strict=True) if label is not None]
        return Month(
            month=month,
            requests=len(rows),
            model_version=Counter(version for version, _ in answers).most_common(1)[0][0],
            auc_live=roc_auc([label for label, _ in known], [score for _, score in known]),
            auc_frozen=frozen.auc(list(rows)),
            max_psi=window.get("max_psi"),
            retrained=run is not None and run["status"] == "promoted",
            reason=window["reason"]
            if run is None or run["status"] == "promoted"
            else f"{run['status']}: {run['verdict']}",
        )

    def _retraining(self, month: int) -> dict[str, Any]:
        with self._narrator.stage(f"month {month}: retraining"):
            run = self._finished_run(self._newest_dataset())
            if run["status"] == "promoted":
                self._wait_for_release(run["release_version"])
        return run

    def _replay(self, month: int, rows: Sequence[Row]) -> list[tuple[str, float]]:
        """Sends each row as one request; gives version and score of each answer."""
        with self._narrator.bar(f"month {month}: requests", len(rows)) as bar, ThreadPoolExecutor(CLIENTS) as pool:

            def send(row: Row) -> tuple[str, float]:
                answer = self._predict(row)
                bar.advance()
                return answer["model_version"], answer["predictions"][0]["score"]

            answers = list(pool.map(send, rows))
        self._sent += len(rows)
        return answers

    def _predict(self, row: Row) -> Any:
        """The answer to one row; a worker that was just started again may not have its release yet."""
        path, body = f"/pipelines/{self._pipeline.name}/predict", {"rows": [self._source.request(row)]}
        return self._services.wait_for("a prediction", lambda: self._services.post("predictor", path, body))

    def _upload(self, file: Path) -> dict[str, Any]:
        """Uploads a raw file and waits until etl is done with it."""
        path = f"raw/{self._pipeline.name}/{file.name}"
        self._bucket.upload_once(path, file, "text/csv")
        done = self._services.wait_for(f"the ingestion of {path}", lambda: self._ingestion(path))
        if done["status"] != "done":
            raise DemoFailed(f"{path} was refused: {done['reason']}")
        return done

    def _ingestion(self, path: str) -> dict[str, Any] | None:
        found = self._get("etl", "ingestions")["ingestions"]
        return next((row for row in found if row["object"] == path and row["status"] in ("done", "failed")), None)

    def _newest_dataset(self) -> int:
        def look() -> int | None:
            known = self._get("monitor", "")
            return int(known["dataset"]["number"]) if known and known["dataset"] else None

        return self._services.wait_for("the dataset", look)

    def _finished_run(self, dataset_number: int) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            runs = self._get("trainer", "runs")["runs"]
            return next((r for r in runs if r["dataset_number"] == dataset_number and r["status"] in FINISHED), None)

        return self._services.wait_for("the training run", look)

    def _wait_for_release(self, version: str) -> None:
        def look() -> bool | None:
            return all(self._served_version() == version for _ in range(AGREEING_ANSWERS)) or None

        self._services.wait_for(f"release {version} to serve", look)

    def _served_version(self) -> str | None:
        served = self._services.get_afresh("predictor", f"/pipelines/{self._pipeline.name}")
        return served["champion"]["version"] if served else None

    def _wait_until_stored(self) -> None:
        """A killed worker may have taken answers with it that it had not flushed: those are waited for in vain."""
        seen = [-1, 0]

        def look() -> bool | None:
            stored = self._get("monitor", "")["predictions"]
            seen[:] = [stored, seen[1] + 1 if stored == seen[0] else 0]
            return stored >= self._sent or seen[1] > 100 or None

        self._services.wait_for("the predictions to be stored", look)

    def _judged_window(self, rows: Sequence[Row], labelled: int) -> dict[str, Any]:
        """The monitor's judgement of the month: the window that holds the middle of it, once its labels count."""
        times = sorted(self._event_time(row) for row in rows)
        middle = times[len(times) // 2]

        def look() -> dict[str, Any] | None:
            windows = self._get("monitor", "windows")["windows"]
            found = next((window for window in windows if _holds(window, middle)), None)
            return found if found and found.get("decision") and found.get("labelled", 0) > labelled / 2 else None

        return self._services.wait_for("the judgement", look)

    def _event_time(self, row: Row) -> datetime:
        value = row[self._pipeline.spec.event_time or ""]
        assert isinstance(value, datetime)  # noqa: S101  the pipeline's checks say so
        return value

    def _get(self, service: str, what: str) -> Any:
        path = f"/pipelines/{self._pipeline.name}"
        return self._services.get(service, f"{path}/{what}" if what else path)


def _holds(window: dict[str, Any], moment: datetime) -> bool:
    start, end = (datetime.fromisoformat(window[name]) for name in ("window_start", "window_end"))
    return start <= moment < end
