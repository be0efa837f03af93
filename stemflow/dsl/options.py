"""Modifiers of a task as written in the file -> options under their `TaskOptions` names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stemflow.dsl.expressions import FAILURE, SUBMITTED, WHOLE_RUN, Expressions, Names
from stemflow.dsl.findings import Findings, shorten
from stemflow.dsl.source import Node
from stemflow.dsl.task_defaults import Layer, by_precision, fits
from stemflow.errors import StemflowError, UnitError
from stemflow.model.policy import Concurrency, RetryPolicy, normalise
from stemflow.model.rates import RateLimit
from stemflow.units import Duration, format_duration, parse_duration_ms

_BACKOFF = {"kind": "backoff", "initial": "initial", "factor": "factor", "max": "max", "jitter": "jitter"}
"""Keys of `backoff` -> parameters of RetryPolicy.of."""


_NO_DEFAULTS = Layer()


def _computed(node: Node | None) -> bool:
    """Whether a value holds an expression."""
    return node is not None and isinstance(node.value, str) and "${{" in node.value


@dataclass(slots=True)
class OptionReader:
    """Reads modifiers. `every` are the defaults of all tasks; `by_task` those of some, by pattern, whose own values are
    completed by the less precise ones already."""

    findings: Findings
    expressions: Expressions
    every: Layer = _NO_DEFAULTS
    by_task: dict[str, Layer] = field(default_factory=dict)

    def defaults(self, node: Node | None) -> dict[str, Any]:
        """`defaults.task`; from now on its `retry` is completed by those of the tasks."""
        if node is None:
            return {}
        self.every = self._layer(node, _NO_DEFAULTS)
        options, self.every = self.every.options, self.every._replace(options={})
        return dict(options)

    def defaults_by_task(self, node: Node | None) -> None:
        """`defaults.tasks`; from now on they are the defaults of the tasks whose names fit."""
        for pattern in by_precision({} if node is None else node.members):
            assert node is not None
            one = node.get(pattern)
            if one is not None and isinstance(one.value, dict):
                self.by_task[pattern] = self._layer(one, self.layer_of(pattern.removesuffix("*")))

    def layer_of(self, task: str) -> Layer:
        """The defaults of a task, without those options that every task has."""
        found = self.every
        for pattern, layer in self.by_task.items():
            if fits(pattern, task):
                found = found.under(layer)
        return found

    def _layer(self, node: Node, below: Layer) -> Layer:
        options, retry = self.read(node, SUBMITTED, "", below), node.get("retry")
        listed = retry is not None and isinstance(retry.value, list)
        policy = {} if retry is None or listed else {**below.retry, **self._policy(retry, SUBMITTED & {"inputs"}, "")}
        values = {}
        for key in ("args", "env"):
            given = node.get(key)
            self.expressions.template(given, WHOLE_RUN | {"secrets"}, "")
            values[key] = {} if given is None else given.value
        return Layer(options, policy, listed, **values)

    def read(self, node: Node, names: Names, path: str, below: Layer) -> dict[str, Any]:
        """The options that a step gives; `below` are the defaults of its task."""
        options: dict[str, Any] = {**below.options, **self.placement(node)}
        options |= self._timeout(node, path)
        options |= self._retry(node.get("retry"), names & {"inputs", "params"}, path, below)
        options |= self._unique(node.get("unique"), names, path)
        options |= self._cache(node, names, path)
        concurrency = self.concurrency(node, names | {"args"}, path)
        if concurrency is not None:
            options["concurrency"] = concurrency
        expires = self.duration(node, "expires")
        if expires is not None:
            options["expires"] = expires
        return options | self._rates(node, names | {"args", "headers"}, path)

    def placement(self, node: Node) -> dict[str, Any]:
        """`queue` and `priority` of a task, or those that a composite or the file gives its tasks."""
        options: dict[str, Any] = {}
        for key in ("queue", "priority"):
            given = node.get(key)
            if given is not None:
                self.expressions.refuse(given, key)
                options[key] = given.value
        return options

    def concurrency(self, parent: Node, names: Names, path: str) -> Concurrency | None:
        """`concurrency: {key, limit}` of a step or of the file."""
        node = parent.get("concurrency")
        key = None if node is None else node.text("key")
        if node is None or key is None:
            return None
        self.expressions.template(node.get("key"), names, path)
        limit = node.get("limit")
        return Concurrency(key, 1 if limit is None else limit.value)

    # -- values

    def duration(self, parent: Node, key: str) -> Duration | None:
        """The duration under `key` as it is written, once it is known to be one."""
        return None if self.duration_ms(parent, key) is None else parent.value[key]

    def duration_ms(self, parent: Node, key: str) -> int | None:
        """The duration under `key` in ms; None if there is none or it cannot be read."""
        node = parent.get(key)
        if node is None:
            return None
        try:
            return parse_duration_ms(node.value)
        except UnitError as error:
            self.findings.error("SF501", f"{key}: {error}", node.place)
            return None

    def hard_limit(self, parent: Node, names: Names, path: str) -> str | None:
        """The template of the hard limit of a step, if it holds an expression."""
        node = parent.get("timeout")
        node = node.get("hard") if node is not None and isinstance(node.value, dict) else node
        if not _computed(node):
            return None
        assert node is not None
        self.expressions.template(node, names, path)
        return str(node.value)

    def _timeout(self, parent: Node, path: str) -> dict[str, Any]:
        """Both limits, as a task's timeout replaces that of the defaults as a whole."""
        node = parent.get("timeout")
        if node is None:
            return {}
        limit = node.get("hard") if isinstance(node.value, dict) else node
        if _computed(limit):
            if not path:
                self.expressions.refuse(limit, "timeout")
            soft = self.duration(node, "soft") if isinstance(node.value, dict) else None
            return {"soft_time_limit": soft, "hard_time_limit": None}
        if not isinstance(node.value, dict):
            return {"soft_time_limit": None, "hard_time_limit": self.duration(parent, "timeout")}
        soft, hard = self.duration_ms(node, "soft"), self.duration_ms(node, "hard")
        if soft is not None and hard is not None and soft >= hard:
            given = f"{format_duration(soft)} and {format_duration(hard)}"
            self.findings.error("SF502", f"timeout: expected the soft limit below the hard one, got {given}",
                                node.members["soft"].place, "the soft limit leaves time to clean up")  # fmt: skip
        return {
            "soft_time_limit": self.duration(node, "soft"),
            "hard_time_limit": self.duration(node, "hard"),
        }

    def _retry(self, node: Node | None, names: Names, path: str, below: Layer) -> dict[str, Any]:
        if node is None:
            return {}
        if isinstance(node.value, list):
            return self._retry_rules(node, names, path)
        options: dict[str, Any] = {}
        most = node.get("max")
        if most is not None:
            options["max_retries"] = most.value
        given = self._policy(node, names, path)
        if given or below.listed:
            try:
                options["retry"] = RetryPolicy.of(**{**below.retry, **given})
            except StemflowError as error:
                self.findings.error("SF011", f"retry: {error}", node.place)
        return options

    def _retry_rules(self, node: Node, names: Names, path: str) -> dict[str, Any]:
        """A list: a policy for each kind of error, each with a number of retries of its own."""
        rules = []
        for one in node.items:
            given, most = self._policy(one, names, path), one.get("max")
            if one.flawed or most is None or most.flawed:
                continue
            try:
                rules.append(RetryPolicy.of(max_retries=most.value, **given))
            except StemflowError as error:
                self.findings.error("SF011", f"retry: {error}", one.place)
        return {"retry": tuple(rules)} if rules else {}

    def _policy(self, node: Node, names: Names, path: str) -> dict[str, Any]:
        """Parameters of RetryPolicy.of that a `retry` gives; `names`: what its condition reads besides the failure."""
        given: dict[str, Any] = {}
        backoff = node.get("backoff")
        if backoff is not None and isinstance(backoff.value, str):
            given["backoff"] = backoff.value
        elif backoff is not None:
            for key, parameter in _BACKOFF.items():
                value = self._backoff_value(backoff, key)
                if value is not None:
                    given[parameter] = value
        for key in ("on", "retry_on", "never_retry_on"):
            classes = node.get(key)
            if classes is not None:
                given["retry_on" if key == "on" else key] = self.class_names(classes, key)
        when = self.expressions.condition(node.get("when"), FAILURE | names, path)
        if when is not None:
            given["when"] = when
        budget = self.duration(node, "budget")
        if budget is not None:
            given["budget"] = budget
        return given

    def class_names(self, node: Node, key: str) -> tuple[str, ...]:
        """A list of names of exception classes."""
        return tuple(one.value for one in node.items if not one.flawed and self._is_class(one, key))

    def _is_class(self, node: Node, key: str) -> bool:
        """Whether the text names a class of exceptions, with or without its module."""
        parts = node.value.replace(".<locals>", "").split(".")
        if all(part.isidentifier() for part in parts):
            return True
        self.findings.error("SF404", f"{key}: expected the name of an exception class, got {shorten(node.value)}",
                            node.place, f"write {node.value.replace(':', '.')}" if ":" in node.value else
                            "write its simple name, or module.Name")  # fmt: skip
        return False

    def _backoff_value(self, backoff: Node, key: str) -> Any:
        given = backoff.get(key)
        if key in ("initial", "max"):
            return self.duration(backoff, key)
        return None if given is None else given.value

    def _rates(self, parent: Node, names: Names, path: str) -> dict[str, Any]:
        """Limits of the task's own, and those of its group."""
        options: dict[str, Any] = {}
        for option in ("rate_limit", "group_rate_limit"):
            node = parent.get(option)
            if node is not None:
                each = node.items if isinstance(node.value, list) else [node]
                read = (self._rate(one, option, names, path) for one in each)
                options[option] = tuple(one for one in read if one is not None)
        key, header = parent.get("group_rate_key"), parent.get("group_rate_key_header")
        if key is not None:
            self.expressions.template(key, names, path)
            options["group_rate_key"] = key.value
        mode = parent.text("group_rate_limiter_failure_mode")
        if mode is not None:
            options["group_rate_limiter_failure_mode"] = mode
        if header is not None:
            self.expressions.refuse(header, "group_rate_key_header")
            options["group_rate_key_header"] = header.value
        return options

    def _rate(self, node: Node, option: str, names: Names, path: str) -> RateLimit | None:
        mapped = isinstance(node.value, dict)
        if mapped:
            self.expressions.template(node.get("key"), names, path)
            if not ("rate" in node.members or {"limit", "per"} <= node.members.keys()):
                return None
        if any(one.flawed for one in (node, *node.members.values())):
            return None
        try:
            found = RateLimit.of(node.value)
            normalise({option: found}, path)
            return found
        except StemflowError as error:
            what = str(error).removeprefix(f"{path}: {option}: ")
            wrong = node.get(what.partition(":")[0]) or node.get("rate") if mapped else None
            self.findings.error("SF503", f"{option}: {what}", (wrong or node).place)
            return None

    def _cache(self, parent: Node, names: Names, path: str) -> dict[str, Any]:
        """A duration, `{ttl, key}`, or false against a cache of the task's own."""
        node = parent.get("cache")
        if node is None:
            return {}
        if "unique" in parent.members and node.value is not False:
            self.findings.error("SF524", "expected `cache` or `unique`, got both", parent.key_place("cache"),
                                "a cached task is unique while it runs: keep `cache`")  # fmt: skip
            return {}
        if not isinstance(node.value, dict):
            ttl = None if node.value is False else self.duration(parent, "cache")
            return {} if ttl is None and node.value is not False else {"cache": ttl}
        key, ttl = node.text("key"), self.duration(node, "ttl")
        self.expressions.template(node.get("key"), names | {"args"}, path)
        return {} if ttl is None else {"cache": {"ttl": ttl, **({} if key is None else {"key": key})}}

    def _unique(self, node: Node | None, names: Names, path: str) -> dict[str, Any]:
        if node is None:
            return {}
        if not isinstance(node.value, dict):
            return {"unique": node.value}
        options: dict[str, Any] = {"unique": True}
        key = node.text("key")
        if key is not None:
            self.expressions.template(node.get("key"), names | {"args"}, path)
            options["unique_by"] = key
        window = self.duration(node, "for")
        if window is not None:
            options["unique_for"] = window
        mode = node.text("on_conflict")
        if mode is not None:
            options["unique_mode"] = mode
        return options
