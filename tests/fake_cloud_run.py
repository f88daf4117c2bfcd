"""Stands in for `gcloud run` at the boundary: keeps services and jobs in a file, and writes down each call.

It answers in the form of the real one. `plan.json` beside the state says what goes wrong at which call: `fail` (says
no), `fail-after` (does it, and says no), `kill` and `kill-after` (kills the caller before or after), `swap` (another
deploy puts its image into the job before it runs). Addresses lead to a server of the test.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["FAKE_GCLOUD_STATE"])


def load(name: str, default: Any) -> Any:
    file = FOLDER / name
    return json.loads(file.read_text()) if file.exists() else default


def save(name: str, value: Any) -> None:
    part = FOLDER / f"{name}.part"
    part.write_text(json.dumps(value))
    part.replace(FOLDER / name)


def refuse(text: str) -> None:
    sys.stderr.write(f"ERROR: (gcloud.run) {text}\n")
    sys.exit(1)


def main(arguments: list[str]) -> None:
    with Path(os.environ["FAKE_GCLOUD_LOG"]).open("a") as log:
        log.write("\x1f".join(arguments) + "\n")
    number = load("calls", 0) + 1
    save("calls", number)
    trouble = load("plan.json", {}).get(str(number), "")
    if trouble == "fail":
        refuse("INTERNAL: try again")
    if trouble == "kill":
        os.kill(os.getppid(), signal.SIGKILL)
        sys.exit(1)
    words = [word for word in arguments if not word.startswith("--")]
    flags = dict(word[2:].partition("=")[::2] for word in arguments if word.startswith("--"))
    state = load("state.json", {"services": {}, "jobs": {}, "executions": []})
    answer = act(words, flags, state, trouble)
    save("state.json", state)
    if trouble == "kill-after":
        os.kill(os.getppid(), signal.SIGKILL)
    if trouble == "fail-after":
        refuse("DEADLINE_EXCEEDED")
    print(answer)


def act(words: list[str], flags: dict[str, str], state: dict[str, Any], trouble: str) -> str:
    match words:
        case ["auth", "print-identity-token"]:
            return "a-token"
        case ["run", "services", "list"]:
            wanted = flags["filter"].partition("=")[2]
            return json.dumps([seen(service) for name, service in state["services"].items() if name == wanted])
        case ["run", "services", "replace", file]:
            return replace_service(json.loads(Path(file).read_text()), state["services"])
        case ["run", "services", "update-traffic", name]:
            return update_traffic(state["services"][name], flags)
        case ["run", "jobs", "replace", file]:
            job = json.loads(Path(file).read_text())
            state["jobs"][job["metadata"]["name"]] = job
            return ""
        case ["run", "jobs", "execute", name]:
            if trouble == "swap":
                containers(state["jobs"][name])[0]["image"] = "the image of another deploy"
            state["executions"].append(containers(state["jobs"][name])[0]["image"])
            return json.dumps(
                {"metadata": {"name": f"{name}-x"}, "spec": state["jobs"][name]["spec"]["template"]["spec"]}
            )
    refuse(f"unknown command {words}")
    return ""


def containers(job: dict[str, Any]) -> Any:
    return job["spec"]["template"]["spec"]["template"]["spec"]["containers"]


def replace_service(manifest: dict[str, Any], services: dict[str, Any]) -> str:
    name, template = manifest["metadata"]["name"], manifest["spec"]["template"]
    service = services.setdefault(name, {"name": name, "revisions": {}, "traffic": []})
    revision = template["metadata"]["name"]
    if not revision.startswith(f"{name}-"):
        refuse("Revision name must be prefixed by the service's name")
    if service["revisions"].get(revision, template) != template:
        refuse(f"Revision named '{revision}' with different configuration already exists.")
    check_traffic(manifest["spec"]["traffic"], {*service["revisions"], revision})
    service["revisions"][revision] = template
    if "broken" in template["spec"]["containers"][0]["image"]:
        refuse(f"Revision '{revision}' is not ready and cannot serve traffic.")
    service["traffic"] = manifest["spec"]["traffic"]
    return ""


def check_traffic(traffic: list[dict[str, Any]], revisions: set[str]) -> None:
    if sum(target["percent"] for target in traffic) != 100:
        refuse("Traffic percentages must sum to 100")
    tags = [target["tag"] for target in traffic if "tag" in target]
    if len(tags) != len(set(tags)) or not {target["revisionName"] for target in traffic} <= revisions:
        refuse("traffic names a tag twice, or a revision that is not there")


def update_traffic(service: dict[str, Any], flags: dict[str, str]) -> str:
    percent = {
        name: int(share) for name, _, share in (part.partition("=") for part in flags["to-revisions"].split(","))
    }
    tags = [part.partition("=")[::2] for part in flags["set-tags"].split(",")]
    traffic = [{"revisionName": name, "percent": share} for name, share in percent.items()]
    traffic += [{"revisionName": name, "percent": 0, "tag": tag} for tag, name in tags]
    check_traffic(traffic, set(service["revisions"]))
    service["traffic"] = traffic
    return ""


def seen(service: dict[str, Any]) -> dict[str, Any]:
    base = os.environ["FAKE_BASE_URL"]
    traffic = [
        {**target, **({"url": f"{base}/{target['tag']}---{service['name']}"} if "tag" in target else {})}
        for target in service["traffic"]
    ]
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": service["name"], "generation": 3},
        "status": {"url": f"{base}/{service['name']}", "traffic": traffic},
    }


if __name__ == "__main__":
    main(sys.argv[1:])
