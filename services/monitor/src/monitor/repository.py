"""Every statement by which the monitor writes or judges; what people look at is read in `reports.py`.

Which windows wait to be judged is state: a row `window` in `checks`, made with the window's first prediction, whose
verdict is `insufficient` while rows came that no judgement has seen. Whoever stores holds the pipeline's lock shared,
whoever judges holds it alone: so a judgement sees either the rows and clears the mark, or neither.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import Row, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from esteira.database import encode_json
from esteira.events import Outcome, Prediction
from esteira.tables import checks, datasets, profiles, promotions, releases, training_runs
from monitor import statements
from monitor.measures import Check, FeatureCounts, Labelled
from monitor.profiles import Cell, ReleaseRow
from monitor.windows import Window

CONSUMER = "monitor"
WINDOW = "window"
RETRAINING = "retraining"


def lock_shared(session: Session, pipeline: str) -> None:
    """Keeps judgements of the pipeline out until the transaction ends."""
    session.execute(text(statements.LOCK.format(shared="_shared")), {"key": f"monitor/{pipeline}"})


def lock_alone(session: Session, pipeline: str) -> None:
    """Waits for those who store, then keeps them and other judges out until the transaction ends."""
    session.execute(text(statements.LOCK.format(shared="")), {"key": f"monitor/{pipeline}"})


def find_release(session: Session, pipeline: str, version: str) -> ReleaseRow | None:
    """The release, or None."""
    row = session.execute(_releases().where(releases.c.pipeline == pipeline, releases.c.version == version)).first()
    return ReleaseRow(**row._mapping) if row else None


def find_champion(session: Session, pipeline: str) -> ReleaseRow | None:
    """The release of the newest promotion that is no canary, or None before the first."""
    newest = promotions.c.generation.desc()
    promoted = (promotions.c.pipeline == releases.c.pipeline) & (promotions.c.release_version == releases.c.version)
    of_all = (promotions.c.pipeline == pipeline) & (promotions.c.share == 1)
    query = _releases().join(promotions, promoted).where(of_all).order_by(newest).limit(1)
    row = session.execute(query).first()
    return ReleaseRow(**row._mapping) if row else None


def _releases() -> Any:
    columns = ("version", "path", "sha256", "dataset_number", "mlflow_run_id", "metrics")
    return select(*(releases.c[name] for name in columns))


def create_partition(session: Session, day: date) -> None:
    """Makes the partition of `day`, if there is none; raises `IntegrityError` where the default one has such rows."""
    lock_alone(session, "partitions")
    session.execute(text("SET LOCAL lock_timeout = '2s'"))
    name, until = f"predictions_{day:%Y%m%d}", day + timedelta(days=1)
    bounds = f"FROM ('{day.isoformat()}') TO ('{until.isoformat()}')"
    session.execute(text(f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF predictions FOR VALUES {bounds}"))


def has_partition(session: Session, day: date) -> bool:
    """Whether `day` has a partition of its own."""
    return session.execute(select(func.to_regclass(f"predictions_{day:%Y%m%d}"))).scalar() is not None


def store_predictions(session: Session, pipeline: str, version: str, rows: Sequence[Prediction]) -> set[Any]:
    """Stores what is not stored yet, whichever batch brought it; returns the ids of the new ones."""
    kept = [None if row.row is None else encode_json(row.row) for row in rows]
    values = {**as_columns(pipeline, version, rows), "rows": kept}
    return set(session.execute(statements.STORE_PREDICTIONS, values).scalars())


def as_columns(pipeline: str, version: str, rows: Sequence[Prediction]) -> dict[str, Any]:
    """What statements that store predictions are given, whether these were answered or a shadow's: a list a column."""
    return {
        "pipeline": pipeline,
        "version": version,
        "ids": [str(row.id) for row in rows],
        "entities": [row.entity for row in rows],
        "event_times": [row.event_time for row in rows],
        "served_ats": [row.served_at for row in rows],
        "scores": [row.score for row in rows],
        "features": [encode_json(row.features) for row in rows],
    }


def sampled_predictions(session: Session, pipeline: str, version: str, most: int) -> list[Any]:
    """The newest predictions of a release whose raw row was kept: id, row, features and score."""
    values = {"pipeline": pipeline, "version": version, "most": most}
    return list(session.execute(statements.SAMPLED, values))


def add_counts(session: Session, pipeline: str, version: str, cells: Mapping[Cell, int]) -> None:
    """Adds to the live histograms; always in the order of the cells, so that no two writers deadlock."""
    hours, features, bins = zip(*cells, strict=True) if cells else ((), (), ())
    counts = {"hours": list(hours), "features": list(features), "bins": list(bins), "counts": list(cells.values())}
    session.execute(statements.ADD_COUNTS, {"pipeline": pipeline, "version": version, **counts})


def store_outcomes(session: Session, pipeline: str, source: str, rows: Iterable[Outcome]) -> set[str]:
    """Stores outcomes; an entity keeps its first. Returns the entities whose outcome is new."""
    first = {row.entity: row for row in reversed(list(rows))}
    values = {
        "pipeline": pipeline,
        "source": source,
        "entities": list(first),
        "labels": [row.label for row in first.values()],
        "event_times": [row.event_time for row in first.values()],
    }
    return set(session.execute(statements.STORE_OUTCOMES, values).scalars())


def mark_windows(session: Session, pipeline: str, stored: Mapping[Window, int]) -> None:
    """Says that so many predictions came into each window, which is to be judged (again)."""
    windows = sorted(stored)
    values = {
        "starts": [window.start for window in windows],
        "ends": [window.end for window in windows],
        "stored": [stored[window] for window in windows],
    }
    session.execute(statements.MARK, {"pipeline": pipeline, **values})


def mark_touched(session: Session, pipeline: str, first: datetime, last: datetime) -> int:
    """Marks the windows with predictions between the two times, inclusive."""
    return _mark_known(session, statements.TOUCHED, pipeline=pipeline, first=first, last=last)


def mark_predicted(session: Session, pipeline: str, entities: Collection[str]) -> int:
    """Marks the windows in which these entities were predicted."""
    return _mark_known(
        session,
        statements.PREDICTED_ENTITIES,
        pipeline=pipeline,
        entities=list(entities),
    )


def mark_by_source(session: Session, pipeline: str, source: str) -> int:
    """Marks the windows in which entities were predicted whose outcomes came from `source`."""
    return _mark_known(session, statements.BY_SOURCE, pipeline=pipeline, source=source)


def mark_unseen_outcomes(session: Session, pipeline: str, span: str, since: datetime) -> int:
    """Marks the windows with outcomes, observed after `since`, that came after their judgement."""
    return _mark_known(session, statements.UNSEEN_OUTCOMES, pipeline=pipeline, span=span, since=since)


def mark_newer_data(session: Session, pipeline: str, champion: str, dataset: int) -> int:
    """Marks the champion's newest judged window if it asked for retraining in vain and there is newer data by now."""
    return _mark_known(
        session,
        statements.NEWER_DATA,
        pipeline=pipeline,
        champion=champion,
        dataset=dataset,
    )


def waiting_windows(
    session: Session, pipelines: Collection[str], settle: timedelta, patience: timedelta, most: int
) -> list[tuple[str, Window]]:
    """Windows to be judged: undisturbed for `settle`, or waiting for longer than `patience`."""
    values = {"pipelines": list(pipelines), "settle": settle, "patience": patience, "most": most}
    rows = session.execute(statements.WAITING, values)
    return [(row.pipeline, Window(_utc(row.window_start), _utc(row.window_end))) for row in rows]


def take_window(session: Session, pipeline: str, window: Window) -> bool:
    """Clears the window's mark, for it is judged in this transaction; False if another judged it."""
    return session.execute(statements.TAKE, {"pipeline": pipeline, "start": window.start}).first() is not None


def requests_by_version(session: Session, pipeline: str, window: Window) -> dict[str, int]:
    """How many predictions each model version made in the window."""
    rows = session.execute(statements.SERVED, {"pipeline": pipeline, "start": window.start, "end": window.end})
    return {row.model_version: row.requests for row in rows}


def labelled_by_version(session: Session, pipeline: str, window: Window) -> dict[str, Labelled]:
    """The labels and scores of each model version; of an entity predicted twice, the last prediction."""
    rows = session.execute(statements.LABELLED, {"pipeline": pipeline, "start": window.start, "end": window.end}).all()
    versions = np.array([row.model_version for row in rows], dtype=object)
    labels = np.array([row.label for row in rows], dtype=np.float64)
    scores = np.array([row.score for row in rows], dtype=np.float64)
    return {name: Labelled(labels[versions == name], scores[versions == name]) for name in set(versions.tolist())}


def feature_counts(session: Session, pipeline: str, version: str, window: Window) -> FeatureCounts:
    """The live histogram of each feature in the window."""
    c = profiles.c
    query = (
        select(c.feature, c.bin, func.sum(c.count).label("rows"))
        .where(c.pipeline == pipeline, c.model_version == version, c.hour >= window.start, c.hour < window.end)
        .group_by(c.feature, c.bin)
    )
    found: dict[int, dict[int, int]] = {}
    for row in session.execute(query):
        found.setdefault(row.feature, {})[row.bin] = int(row.rows)
    return {feature: _dense(bins) for feature, bins in found.items()}


def _dense(bins: Mapping[int, int]) -> Any:
    counts = np.zeros(max(bins) + 1, dtype=np.int64)
    counts[list(bins)] = list(bins.values())
    return counts


def save_checks(session: Session, pipeline: str, window: Window, version: str, found: Sequence[Check]) -> None:
    """Writes figures over those of an earlier judgement; what changed is to be tracked again."""
    head = {"pipeline": pipeline, "window_start": window.start, "window_end": window.end, "model_version": version}
    fields = ("name", "subject", "value", "threshold", "verdict", "details")
    rows = [{**head, **{name: getattr(check, name) for name in fields}} for check in found]
    statement = insert(checks).values(rows)
    new = statement.excluded
    same = checks.c.tracked & checks.c.value.is_not_distinct_from(new.value)
    changed = {name: new[name] for name in fields[2:]} | {"tracked": same, "measured_at": func.clock_timestamp()}
    keys = ["pipeline", "window_start", "model_version", "name", "subject"]
    session.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed))


def find_decision(session: Session, pipeline: str, window: Window, version: str) -> str | None:
    """What was decided on this window of this champion before."""
    c = checks.c
    query = select(c.details["decision"].astext).where(
        c.pipeline == pipeline, c.window_start == window.start, c.model_version == version, c.name == RETRAINING
    )
    return session.execute(query).scalar()


def requested_dataset(session: Session, pipeline: str, version: str) -> int | None:
    """The newest dataset version for which retraining was requested because of this champion."""
    c = checks.c
    number = func.max(c.details["evidence"]["dataset_number"].as_integer())
    requested = c.details["decision"].astext == "requested"
    query = select(number).where(c.pipeline == pipeline, c.model_version == version, c.name == RETRAINING, requested)
    return session.execute(query).scalar()


def newest_dataset(session: Session, pipeline: str) -> Any | None:
    """Number and labelled rows of the newest dataset version."""
    c = datasets.c
    query = select(c.number, c.labelled).where(c.pipeline == pipeline).order_by(c.number.desc()).limit(1)
    return session.execute(query).first()


def labelled_rows(session: Session, pipeline: str, number: int) -> int:
    """The labelled rows of a dataset version; 0 if there is none of that number."""
    c = datasets.c
    return session.execute(select(c.labelled).where(c.pipeline == pipeline, c.number == number)).scalar() or 0


def blocking_run(session: Session, pipeline: str, dataset_number: int) -> Any | None:
    """The newest training run that is unfinished, or was on that dataset version and not promoted."""
    c = training_runs.c
    unfinished = c.status.in_(("requested", "running"))
    in_vain = (c.dataset_number == dataset_number) & (c.status != "promoted")
    query = select(c.number, c.status, c.verdict).where(c.pipeline == pipeline, unfinished | in_vain)
    return session.execute(query.order_by(unfinished.desc(), c.number.desc()).limit(1)).first()


def try_lock(session: Session, name: str) -> bool:
    """Takes the lock `name` until the transaction ends, unless someone has it."""
    return bool(session.execute(select(func.pg_try_advisory_xact_lock(func.hashtextextended(name, 0)))).scalar())


def untracked(session: Session, pipelines: Collection[str], most: int) -> Sequence[Row[Any]]:
    """Figures that MLflow does not have yet, by model version, the oldest window first."""
    c = checks.c
    wanted = select(checks).where(~c.tracked, c.value.is_not(None), c.pipeline.in_(pipelines))
    return session.execute(wanted.order_by(c.pipeline, c.model_version, c.window_start, c.id).limit(most)).all()


def mark_tracked(session: Session, rows: Sequence[Row[Any]]) -> None:
    """Remembers what MLflow has; a figure measured anew meanwhile stays to be tracked."""
    values = {"ids": [row.id for row in rows], "measured": [row.measured_at for row in rows]}
    session.execute(statements.MARK_TRACKED, values)


def _mark_known(session: Session, condition: str, **values: Any) -> int:
    result = session.execute(text(statements.MARK_KNOWN.format(condition=condition)), values)
    return int(result.rowcount)  # type: ignore[attr-defined]


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)
