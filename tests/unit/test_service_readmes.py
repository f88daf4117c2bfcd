"""The READMEs of services and shared code, held against what is served, pushed and read."""

import re

import msgspec
import pytest
from flask import Flask

from apps import APPS, SERVICES, SETTINGS
from esteira.settings import ServiceSettings
from esteira.topology import SUBSCRIPTIONS
from pages import read, section, table_rows, ticked


def anonymous(path: str) -> str:
    """A path with its parameters unnamed, and Swagger UI's own files left out."""
    return "/docs/" if path.startswith("/docs") else re.sub(r"<[^>]*>", "<>", path)


def served(app: Flask) -> set[str]:
    return {
        f"{method} {anonymous(rule.rule)}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


@pytest.mark.parametrize("service", SERVICES)
def test_a_readme_lists_exactly_the_endpoints_that_are_served(service: str) -> None:
    text = section(read(f"services/{service}/README.md"), "Endpoints", "HTTP")
    written = {f"{method} {anonymous(path)}" for method, path in re.findall(r"`(GET|POST) (/[^`?\s]*)`", text)}
    assert written == served(APPS[service]())


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_takes_exactly_the_events_that_are_pushed_to_it(service: str) -> None:
    taken = {path.removeprefix("POST ") for path in served(APPS[service]()) if path.startswith("POST /events/")}
    assert taken == {subscription.path for subscription in SUBSCRIPTIONS if subscription.hearer == service}


def variables(text: str) -> set[str]:
    return set(re.findall(r"`([A-Z]+(?:_[A-Z]+)*)`", text))


def variables_of(*structs: type[msgspec.Struct]) -> set[str]:
    return {field.name.upper() for struct in structs for field in msgspec.structs.fields(struct)}


@pytest.mark.parametrize("service", SERVICES)
def test_a_readme_lists_exactly_the_environment_that_is_read(service: str) -> None:
    written = variables(section(read(f"services/{service}/README.md"), "Environment"))
    foreign = {"WEB_CONCURRENCY", "THREADS", "MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"}
    assert written - foreign == variables_of(*SETTINGS[service])


def test_the_shared_readme_lists_what_every_service_reads() -> None:
    written = variables(section(read("shared/README.md"), "Running a service"))
    assert written == variables_of(ServiceSettings) | {"WEB_CONCURRENCY", "THREADS"}


def test_the_command_lines_readme_lists_what_the_stack_runs() -> None:
    written = {name for row in table_rows(section(read("cli/README.md"), "The local stack")) for name in ticked(row[0])}
    assert written == {"postgres", "pubsub", "bucket", "mlflow", "tick", *SERVICES}
