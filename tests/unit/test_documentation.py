"""The pages that people read, held against the code."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from esteira.events import EVENTS, DatasetPrepared, Event, Outcome, Prediction, decode
from esteira.fields import FALSE, TRUE
from esteira.pipeline import Training, load_pipeline
from esteira.pushes import parse_push
from esteira.schema import MAX_STRING, check_row
from esteira.tables import metadata
from esteira.topology import SUBSCRIPTIONS, Subscription
from esteira_cli.main import SUBCOMMANDS
from etl.settings import EtlSettings
from etl.workbench import Workbench
from pages import ROOT, code, fences, find_pages, read, section, table_rows, ticked
from predictor.decoding import MAX_ROWS
from predictor.limits import MAX_REQUEST_BYTES
from predictor.problems import MAX_PROBLEMS
from predictor.publishing import BATCH_ROWS
from predictor.spool import SPOOL_BYTES
from value_tables import marked, tables

SERVICES = ("etl", "trainer", "predictor", "monitor")
FLIGHTS = ROOT / "pipelines" / "flights"


# -- events ----------------------------------------------------------------------------------------------------------


def documented_fields(text: str) -> list[str]:
    return [ticked(row[0])[0] for row in table_rows(text) if ticked(row[0])]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_each_event_is_described_with_its_fields(event: type[Event]) -> None:
    text = section(read("docs/events.md"), event.__name__)
    carried = [kind for kind in (Outcome, Prediction) if any(kind in get_args(f.type) for f in fields_of(event))]
    own, *others = re.split(r"^An? `\w+`:$", text, flags=re.MULTILINE)
    assert documented_fields(own) == [field.name for field in fields_of(event)]
    assert [documented_fields(other) for other in others] == [[f.name for f in fields_of(kind)] for kind in carried]


def fields_of(struct: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(struct)


def overview() -> dict[str, tuple[str, set[str], set[str]]]:
    """Topic → class, who says it, who hears it, as the first table of docs/events.md has it."""
    rows = [row for row in table_rows(read("docs/events.md")) if len(row) == 4 and ticked(row[0])]
    return {ticked(row[0])[0]: (ticked(row[1])[0], set(row[2].split(", ")), set(row[3].split(", "))) for row in rows}


def test_the_overview_names_every_event_and_its_hearers() -> None:
    heard: dict[str, set[str]] = {}
    for subscription in SUBSCRIPTIONS:
        heard.setdefault(subscription.topic, set()).add(subscription.hearer)
    assert {topic: name for topic, (name, _, _) in overview().items()} == {e.topic: e.__name__ for e in EVENTS}
    assert {topic: hearers for topic, (_, _, hearers) in overview().items()} == heard


@pytest.mark.parametrize("service", SERVICES)
def test_the_overview_names_who_says_an_event(service: str) -> None:
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "services" / service / "src").rglob("*.py"))
    made = {event.topic for event in EVENTS if re.search(rf"\b{event.__name__}\(", source)}
    if re.search(r"\bpromote\(", source):
        made.add("model-promoted")
    assert {topic for topic, (_, speakers, _) in overview().items() if service in speakers} == made


def test_subscriptions_are_listed_with_their_deadlines() -> None:
    rows = [row for row in table_rows(section(read("docs/events.md"), "Delivery")) if ticked(row[0])]
    assert {ticked(row[0])[0]: row[1] for row in rows} == {s.name: f"{s.ack_deadline_s} s" for s in SUBSCRIPTIONS}


def test_the_example_of_a_push_is_one() -> None:
    (example,) = fences(read("docs/events.md"), "json")
    delivery = parse_push(example.encode())
    assert decode(DatasetPrepared, delivery.data, delivery.attributes).pipeline == "flights"
    assert base64.b64encode(delivery.data).decode() == json.loads(example)["message"]["data"]


# -- figures ---------------------------------------------------------------------------------------------------------


def default_of(struct: type[msgspec.Struct], name: str) -> Any:
    return next(field.default for field in msgspec.structs.fields(struct) if field.name == name)


FIGURES = [
    ("docs/events.md", f"up to {BATCH_ROWS} predictions"),
    ("docs/events.md", f"After {Subscription(topic='t', hearer='h').max_attempts} deliveries"),
    ("docs/architecture.md", f"up to {SPOOL_BYTES >> 20} MiB of predictions"),
    ("docs/architecture.md", f"at most {MAX_ROWS:,} rows and {MAX_REQUEST_BYTES >> 20} MiB"),
    ("docs/architecture.md", f"`MAX_FILE_BYTES` is {default_of(EtlSettings, 'max_file_bytes') >> 20} MiB"),
    ("README.md", f"The first {Training().min_rows} labelled rows"),
]


@pytest.mark.parametrize("page, phrase", FIGURES, ids=[phrase for _, phrase in FIGURES])
def test_limits_are_told_as_they_are(page: str, phrase: str) -> None:
    assert phrase in re.sub(r"\s+", " ", read(page))


def test_every_table_of_the_database_is_in_the_walk() -> None:
    written = {name for line in code(read("docs/architecture.md")) for name in re.findall(r"^\w+$", line)}
    assert set(metadata.tables) - written == set()


# -- the README's examples -------------------------------------------------------------------------------------------


def test_the_readmes_pipeline_loads_and_compiles(tmp_path: Path) -> None:
    text = section(read("README.md"), "Your own pipeline")
    (specification,), (statement,) = fences(text, "yaml"), fences(text, "sql")
    folder = tmp_path / "deliveries"
    folder.mkdir()
    (folder / "pipeline.yaml").write_text(specification)
    (folder / "features.sql").write_text(statement)
    workbench = Workbench(load_pipeline(folder))
    found = {feature.name: feature.kind for feature in workbench.statement.features}
    workbench.close()
    assert found == {
        "carrier": "categorical",
        "weight_kg": "numeric",
        "ordered_hour": "numeric",
        "weekday": "numeric",
    }


def posted(path: str) -> Any:
    """The body that the README posts to a path of the predictor."""
    text = section(read("README.md"), "Going on")
    found = re.search(rf"\$PREDICTOR/pipelines/flights/{path}\".*?-d '(.*?)'\n", text, re.DOTALL)
    assert found, f"README.md posts nothing to {path}"
    return json.loads(found[1])


def test_the_readmes_request_fits_the_pipeline() -> None:
    columns = load_pipeline(FLIGHTS).columns
    (row,) = posted("predict")["rows"]
    assert check_row(columns, row, "rows[0]")[1] == []


def test_the_readmes_feedback_names_the_entity_of_its_request() -> None:
    (row,), (outcome,) = posted("predict")["rows"], posted("feedback")["outcomes"]
    assert outcome["entity"] == {name: row[name] for name in load_pipeline(FLIGHTS).spec.entity}


# -- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tables())
def test_the_page_of_values_shows_the_rules_that_are_tested(name: str) -> None:
    assert marked(name, tables()[name]) in read("docs/values.md"), "run `python tests/value_tables.py`"


def test_the_page_of_values_has_the_bounds() -> None:
    text = read("docs/values.md")
    for told in (f"up to {MAX_PROBLEMS};", f"1 to {MAX_ROWS:,} rows", f"at most {MAX_STRING:,} characters"):
        assert told in text
    for words in (TRUE, FALSE):
        assert ", ".join(f"`{word}`" for word in words[1:]) in text


# -- all pages -------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def broken_links(page: Path) -> Iterator[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / target) if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            yield link


@pytest.mark.parametrize("page", find_pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*##", read("Makefile"), re.MULTILINE))


@pytest.mark.parametrize("page", find_pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_is_mentioned_exists(page: Path) -> None:
    lines = "\n".join(code(page.read_text("utf-8")))
    assert set(re.findall(r"(?:^|\$ |/)make ([a-z-]+)", lines, re.MULTILINE)) <= make_targets()
    commands = set(re.findall(r"(?:^|\$ |bin/)esteira ([a-z]+)", lines, re.MULTILINE))
    assert commands - {"new"} <= set(SUBCOMMANDS)


def test_every_make_target_is_explained() -> None:
    text = section(read("CONTRIBUTING.md"), "Set up")
    assert {target for target in make_targets() if f"make {target}" in text} == make_targets()


def test_what_the_readme_calls_missing_is_missing() -> None:
    text = section(read("README.md"), "Not there yet")
    assert "`esteira new`" in text
    assert "new" not in SUBCOMMANDS


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "adr").glob("*.md")), ids=lambda page: page.stem)
def test_every_decision_ends_with_what_would_violate_it(page: Path) -> None:
    last = page.read_text("utf-8").strip().split("\n\n")[-1]
    assert last.startswith("**A change violates this when**")


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [int(page.name[:4]) for page in sorted((ROOT / "docs" / "adr").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))
