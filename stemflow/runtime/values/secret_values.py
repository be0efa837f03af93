"""Which secrets a call reads, where their values are, and the names by which its expressions read them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from stemflow.expr import parse_template
from stemflow.model.plan import LeafPlan
from stemflow.model.records import Node
from stemflow.model.secret_source import SecretSource, input_of
from stemflow.runtime.values.resolver import Values


def secrets_read(leaf: LeafPlan, names: Collection[str]) -> frozenset[str]:
    """The secrets that the arguments and variables of a leaf read; `names`: what exists there besides."""
    tree = [dict(leaf.bind or {}), dict(leaf.env)]
    paths = [one.path for one in parse_template(tree, frozenset(names) | {"secrets"}).references]
    found = {path[1] for path in paths if path[0] == "secrets" and len(path) > 1}
    given = {path[1] if len(path) > 1 else "" for path in paths if path[0] == "inputs"}
    for name in leaf.secrets:
        asked = input_of(name)
        if asked is not None and given & {asked, ""}:
            found.add(name)
    return frozenset(found)


async def sources_of(
    values: Values, node: Node, names: Iterable[str], known: Mapping[str, SecretSource]
) -> dict[str, SecretSource | None]:
    """Where the values of these secrets are: as the file says, or as the inputs of the run do.

    An input that was not given is left out; None: there is no secret of this name.
    """
    found: dict[str, SecretSource | None] = {}
    inputs: Mapping[str, Any] = {}
    for name in sorted(names):
        asked = input_of(name)
        if asked is None:
            found[name] = known.get(name)
            continue
        inputs = inputs or await _inputs(values, node)
        for provider, key in (inputs.get(asked) or {}).items():
            found[name] = SecretSource(provider, key)
    return found


async def with_secrets(values: Values, node: Node, secrets: Mapping[str, str]) -> dict[str, Any]:
    """The names that give expressions these values: `secrets`, and `inputs` if some of them are inputs."""
    given = {asked: value for name, value in secrets.items() if (asked := input_of(name)) is not None}
    names: dict[str, Any] = {"secrets": {name: one for name, one in secrets.items() if input_of(name) is None}}
    if given:
        names["inputs"] = {**await _inputs(values, node), **given}
    return names


async def without_values(values: Values, node: Node, names: Iterable[str]) -> dict[str, Any]:
    """As `with_secrets`, where values must not be: a secret is its name, an input the place of its value."""
    places: dict[str, str] = {name: f"secrets.{name}" for name in names if input_of(name) is None}
    sources = await sources_of(values, node, [name for name in names if input_of(name) is not None], {})
    places |= {name: f"{one.provider}:{one.key}" for name, one in sources.items() if one is not None}
    return await with_secrets(values, node, places)


async def _inputs(values: Values, node: Node) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (await values.env(node, [("inputs",)]))["inputs"]
    return found
