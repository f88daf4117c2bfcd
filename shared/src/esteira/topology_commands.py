"""The declared topics and subscriptions as gcloud commands, for `infra/bootstrap.sh` and `infra/destroy.sh`.

`python -m esteira.topology_commands apply --project P --project-number N --region R` writes one step a line: three
commands between tabs, each quoted for a shell: what tells whether the resource exists, what creates it, what brings it
up to date. Where the first is empty, the third is run always; where the third is empty, there is nothing to update.
`… remove --project P` writes steps whose second command is empty, subscriptions before topics.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from esteira.topology import SUBSCRIPTIONS, TOPICS, Subscription, dead_letter_topic

PUBLISHERS: Mapping[str, tuple[str, ...]] = {
    "dataset-prepared": ("etl",),
    "outcomes-observed": ("etl", "predictor"),
    "retrain-requested": ("monitor",),
    "model-approved": ("trainer",),
    "model-promoted": ("trainer", "monitor"),
    "predictions-served": ("predictor",),
}
"""Which services may publish to a topic; the bucket's own agent publishes to `raw-data-uploaded`."""
UPLOADS = "raw-data-uploaded"
RETENTION = "7d"
"""How long a dead letter is kept."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where the resources are, and who owns them."""

    project: str
    project_number: str = ""
    region: str = ""

    def endpoint(self, service: str) -> str:
        """The address that Cloud Run gives a service before it exists.

        https://cloud.google.com/run/docs/triggering/https-request#deterministic
        """
        return f"https://esteira-{service}-{self.project_number}.{self.region}.run.app"

    def account(self, name: str) -> str:
        """The e-mail address of a service account of ours."""
        return f"esteira-{name}@{self.project}.iam.gserviceaccount.com"

    @property
    def pubsub_agent(self) -> str:
        """Pub/Sub's own service account in the project."""
        return f"service-{self.project_number}@gcp-sa-pubsub.iam.gserviceaccount.com"

    @property
    def storage_agent(self) -> str:
        """Cloud Storage's own service account in the project."""
        return f"service-{self.project_number}@gs-project-accounts.iam.gserviceaccount.com"


class Step(msgspec.Struct, frozen=True):
    """Three commands: tell whether it exists, create it, update it."""

    exists: Sequence[str] = ()
    create: Sequence[str] = ()
    update: Sequence[str] = ()

    def line(self) -> str:
        """The step as the scripts read it."""
        return "\t".join(shlex.join(command) for command in (self.exists, self.create, self.update))


def apply_steps(place: Place) -> Iterator[Step]:
    """What makes topics, subscriptions and the rights to publish and to move dead letters."""
    for topic in (*TOPICS, *map(dead_letter_topic, TOPICS)):
        yield Step(_gcloud(place, "topics", "describe", topic), _gcloud(place, "topics", "create", topic))
    for topic in TOPICS:
        yield _keeper(place, dead_letter_topic(topic))
    for subscription in SUBSCRIPTIONS:
        yield _push(place, subscription)
    yield from _rights(place)


def remove_steps(place: Place) -> Iterator[Step]:
    """What removes all of it."""
    names = [*(subscription.name for subscription in SUBSCRIPTIONS), *map(dead_letter_topic, TOPICS)]
    for name in names:
        yield _removal(place, "subscriptions", name)
    for topic in (*TOPICS, *map(dead_letter_topic, TOPICS)):
        yield _removal(place, "topics", topic)


def _gcloud(place: Place, kind: str, verb: str, name: str, *flags: str) -> Sequence[str]:
    return ("gcloud", "pubsub", kind, verb, name, *flags, f"--project={place.project}")


def _keeper(place: Place, name: str) -> Step:
    flags = (f"--message-retention-duration={RETENTION}", "--expiration-period=never")
    return Step(
        _gcloud(place, "subscriptions", "describe", name),
        _gcloud(place, "subscriptions", "create", name, f"--topic={name}", *flags),
        _gcloud(place, "subscriptions", "update", name, *flags),
    )


def _push(place: Place, subscription: Subscription) -> Step:
    base = place.endpoint(subscription.hearer)
    flags = (
        f"--push-endpoint={base}{subscription.path}",
        f"--push-auth-service-account={place.account('push')}",
        f"--push-auth-token-audience={base}",
        f"--ack-deadline={subscription.ack_deadline_s}",
        f"--min-retry-delay={subscription.min_backoff_s}s",
        f"--max-retry-delay={subscription.max_backoff_s}s",
        f"--dead-letter-topic={dead_letter_topic(subscription.topic)}",
        f"--max-delivery-attempts={subscription.max_attempts}",
        "--expiration-period=never",
    )
    return Step(
        _gcloud(place, "subscriptions", "describe", subscription.name),
        _gcloud(place, "subscriptions", "create", subscription.name, f"--topic={subscription.topic}", *flags),
        _gcloud(place, "subscriptions", "update", subscription.name, *flags),
    )


def _rights(place: Place) -> Iterator[Step]:
    """Pub/Sub moves a dead letter by itself: its agent publishes it and acknowledges the original."""
    for topic in TOPICS:
        yield _grant(place, "topics", dead_letter_topic(topic), place.pubsub_agent, "roles/pubsub.publisher")
    for subscription in SUBSCRIPTIONS:
        yield _grant(place, "subscriptions", subscription.name, place.pubsub_agent, "roles/pubsub.subscriber")
    yield _grant(place, "topics", UPLOADS, place.storage_agent, "roles/pubsub.publisher")
    for topic, services in PUBLISHERS.items():
        for service in services:
            yield _grant(place, "topics", topic, place.account(service), "roles/pubsub.publisher")


def _grant(place: Place, kind: str, name: str, account: str, role: str) -> Step:
    flags = (f"--member=serviceAccount:{account}", f"--role={role}")
    return Step(update=_gcloud(place, kind, "add-iam-policy-binding", name, *flags))


def _removal(place: Place, kind: str, name: str) -> Step:
    return Step(_gcloud(place, kind, "describe", name), (), _gcloud(place, kind, "delete", name, "--quiet"))


def main(arguments: Sequence[str]) -> int:
    """Writes the steps; gives the exit code."""
    options = _parser().parse_args(arguments)
    place = Place(project=options.project, project_number=options.project_number, region=options.region)
    steps = apply_steps(place) if options.what == "apply" else remove_steps(place)
    sys.stdout.writelines(f"{step.line()}\n" for step in steps)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m esteira.topology_commands", description=__doc__)
    parser.add_argument("what", choices=("apply", "remove"))
    parser.add_argument("--project", required=True, metavar="ID")
    parser.add_argument("--project-number", default="", metavar="NUMBER", help="needed by apply")
    parser.add_argument("--region", default="", help="needed by apply")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
