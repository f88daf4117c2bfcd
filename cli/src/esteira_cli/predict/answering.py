"""Answers a file: reads, asks, writes, each as the others go on."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from esteira_cli.client import Client
from esteira_cli.predict.columns import Layout, PipelineColumns, lay_out
from esteira_cli.predict.outputs import Outputs
from esteira_cli.predict.records import Malformed
from esteira_cli.predict.sending import Answered, Batch, Refusal, Row, ask, in_order
from esteira_cli.predict.sources import Source

Say = Callable[[str], None]


class Report(msgspec.Struct):
    """What became of a file."""

    answered: int = 0
    refused: int = 0
    model_versions: dict[str, int] = {}
    """How many rows each version answered."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked, and how."""

    client: Client
    pipeline: str
    columns: PipelineColumns
    output: Path
    batch: int
    connections: int


def answer_file(job: Job, source: Source, say: Say, advance: Callable[[Report], None]) -> Report:
    """Asks for every row of a file, and writes what came of each.

    Args:
        job: what is asked.
        source: the file.
        say: is told what the file has that the pipeline does not, and the other way round.
        advance: is told after every batch how far it is.

    Raises:
        FileRefused: the file lacks a column that every row needs, or is damaged; no output is written.
        PredictorError: the predictor does not answer, or refuses more than rows; no output is written.
    """
    layout = lay_out(job.columns, source.names)
    _tell(layout, say)
    report = Report()
    batches = _batches(source, layout, job.batch)
    with Outputs(job.output, job.columns.entity, source.unit, source.names) as outputs:
        answers = in_order(lambda batch: ask(job.client, job.pipeline, batch), batches, job.connections)
        with closing(answers) as found:
            for answered in found:
                _write(answered, outputs, source, _entity_places(job.columns, layout))
                _count(report, answered)
                advance(report)
        outputs.commit()
    return report


def _tell(layout: Layout, say: Say) -> None:
    if layout.left_out:
        say(f"left out, for the pipeline does not take them: {', '.join(layout.left_out)}")
    if layout.absent:
        say(f"not in the file, and taken to be missing in every row: {', '.join(layout.absent)}")


def _batches(source: Source, layout: Layout, size: int) -> Iterator[Batch]:
    batch = Batch()
    for record in source.records():
        if isinstance(record, Malformed):
            batch.refusals.append(Refusal(record.line, [record.text], [record.reason]))
        else:
            sent = {column.name: source.value(column, record.values[at]) for at, column in layout.places}
            batch.rows.append(Row(record.line, record.values, sent))
        if len(batch.rows) + len(batch.refusals) == size:
            yield batch
            batch = Batch()
    if batch.rows or batch.refusals:
        yield batch


def _entity_places(columns: PipelineColumns, layout: Layout) -> list[int | None]:
    """Where the file has the entity columns; None for one that it lacks."""
    places = {column.name: at for at, column in layout.places}
    return [places.get(column.name) for column in columns.entity]


def _write(answered: Answered, outputs: Outputs, source: Source, places: list[int | None]) -> None:
    for row, answer in answered.answers:
        entity = ["" if at is None else source.text(row.given[at]) for at in places]
        outputs.answers.write(row, entity, answer)
    for refusal in answered.refusals:
        outputs.refused.write(refusal.line, refusal.reasons, [source.text(value) for value in refusal.given])


def _count(report: Report, answered: Answered) -> None:
    report.answered += len(answered.answers)
    report.refused += len(answered.refusals)
    for _, answer in answered.answers:
        version: Any = answer["model_version"]
        report.model_versions[version] = report.model_versions.get(version, 0) + 1
