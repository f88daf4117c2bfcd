# ruff: noqa: PTH107, PTH110, PTH118, PTH123, PTH208  (pathlib takes longer to import than all else here)
"""Stands in for gcloud at the boundary: remembers each resource as a file, and each call as a line of a log.

It knows verbs, not products: `create` makes what does not exist and fails otherwise, as the real one does; `describe`,
`update`, `patch` and `delete` fail without it; `list` gives what its filter names. It imports next to nothing, for it
is started hundreds of times.
"""

import os
import sys

VERBS = ("describe", "list", "create", "create-oidc", "update", "update-oidc", "patch", "delete", "rm")
SCOPES = ("--instance", "--zone", "--type", "--workload-identity-pool")
"""Flags that are part of a resource's name."""
STATE = os.environ.get("FAKE_GCLOUD_STATE", "")


def path_of(group: list[str], names: list[str], flags: dict[str, str]) -> str:
    name = names[0] if names else flags.get("--display-name") or written_name(flags)
    scope = [
        flags[flag]
        for flag in SCOPES
        if flag in flags and group[-1] in ("databases", "users", "record-sets", "providers")
    ]
    if "--channel-labels" in flags:  # more than one may have the same display name
        name += flags["--channel-labels"].replace("@", "-at-")
    words = "_".join([*group, *scope, name.split("/")[-1].split("@")[0]])
    return os.path.join(STATE, words.replace("/", "-").replace(" ", "-").replace("*", "any"))


def written_name(flags: dict[str, str]) -> str:
    file = flags.get("--config-from-file") or flags["--policy-from-file"]
    with open(file) as stream:
        text = stream.read()
    key = '"name": "' if '"name": "' in text else '"displayName": "'
    return text.partition(key)[2].partition('"')[0]


def main(arguments: list[str]) -> int:
    with open(os.environ["FAKE_GCLOUD_LOG"], "a") as log:
        log.write("\x1f".join(arguments) + "\n")
    words = [word for word in arguments if not word.startswith("--")]
    flags = dict(word.partition("=")[::2] for word in arguments if word.startswith("--"))
    if words[:2] == ["projects", "describe"]:
        print("123456789012")
        return 0
    if words[:3] == ["secrets", "versions", "add"]:
        return act("create", words[:2], ["latest"], flags)
    verb = next((word for word in words if word in VERBS), None)
    if verb is None or words[1:3] == ["services", "identity"]:  # it enables, grants or copies: as often as one likes
        return 0
    at = words.index(verb)
    group, names = words[:at], [word for word in words[at + 1 :] if word != "http"]
    return act(verb, [word for word in group if word not in ("alpha", "beta")], names, flags)


def act(verb: str, group: list[str], names: list[str], flags: dict[str, str]) -> int:
    if group == ["storage"]:
        group = ["storage", "buckets"]
    if verb == "list":
        return listed(group, flags)
    path = path_of(group, names, flags)
    there = os.path.exists(path)
    if there == verb.startswith("create"):
        print(f"ERROR: {path} {'already exists' if there else 'not found'}", file=sys.stderr)
        return 1
    if verb in ("create", "create-oidc", "update"):
        if (text := content(verb, names, flags)) is not None:
            with open(path, "w") as stream:
                stream.write(text)
    elif verb in ("delete", "rm"):
        os.remove(path)
    elif verb == "describe":
        tell(path, flags.get("--format", ""))
    return 0


def content(verb: str, names: list[str], flags: dict[str, str]) -> str | None:
    """What is kept of a resource; of a policy, line by line, whether it is enabled and its channels."""
    if "--policy-from-file" in flags:
        channels = flags.get("--notification-channels", flags.get("--set-notification-channels", ""))
        return f"{'--no-enabled' not in flags}\n{channels}"
    if verb == "update":
        return None
    return flags.get("--topic") or flags.get("--channel-labels") or (names or [""])[0]


def tell(path: str, form: str) -> None:
    if form not in ("value(enabled)", "value(notificationChannels.list())"):
        print("42")
        return
    with open(path) as stream:
        print(stream.read().split("\n")[form != "value(enabled)"])


def listed(group: list[str], flags: dict[str, str]) -> int:
    prefix = "_".join(group) + "_"
    conditions = [part.partition("=")[2].strip('"') for part in flags.get("--filter", "").split(" AND ") if part]
    for name in sorted(os.listdir(STATE)):
        if name.startswith(prefix):
            with open(os.path.join(STATE, name)) as stream:
                text = stream.read()
            if all(wanted.replace(" ", "-") in name or wanted in text for wanted in conditions):
                print(name[len(prefix) :] if conditions else text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
