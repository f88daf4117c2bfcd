"""Checks `prediction_log.columns` of pipeline.yaml: the form of each rule, and what no rule may withhold."""

from collections.abc import Mapping, Sequence

from esteira.redaction import ColumnRule
from esteira.schema import Column
from esteira.yaml_document import YamlDocument

_ABOVE = ("prediction_log", "columns")


def check_forms(document: YamlDocument) -> None:
    """Holds each rule against its type on its own, so that a mistake is named with its column.

    Raises:
        PipelineInvalid: with file, line, what is wrong and what to do.
    """
    log = document.content.get("prediction_log")
    rules = log.get("columns") if isinstance(log, dict) else None
    for name, rule in rules.items() if isinstance(rules, dict) else ():
        document.convert(rule, ColumnRule, *_ABOVE, str(name))


def check_rules(
    document: YamlDocument,
    rules: Mapping[str, ColumnRule],
    columns: Mapping[str, Column],
    entity: Sequence[str],
    event_time: str | None,
) -> None:
    """Holds the rules against the columns. Names that are no column may be features: `esteira.statement` knows those.

    Raises:
        PipelineInvalid: with file, line, what is wrong and what to do.
    """
    for name, rule in rules.items():
        if problem := _broken(rule, columns.get(name)) or _needed(rule, name, entity, event_time):
            raise document.error(f"prediction_log.columns.{name}: {problem}", *_ABOVE, name)


def _broken(rule: ColumnRule, column: Column | None) -> str | None:
    if (rule.log == "sampled") != (rule.sample is not None):
        return "`log: sampled` needs a `sample` such as 0.01, and no other rule takes one; add it, or remove it"
    if column is not None and column.known == "after":
        return "it is known only after the prediction and never logged with it; remove the rule"
    return None


def _needed(rule: ColumnRule, name: str, entity: Sequence[str], event_time: str | None) -> str | None:
    if rule.log == "always":
        return None
    if name in entity:
        return "outcomes find predictions by the entity, in clear; remove the rule, or identify rows by another column"
    if name == event_time:
        return "predictions are judged by their event_time, in clear; remove the rule, or name another event_time"
    return None
