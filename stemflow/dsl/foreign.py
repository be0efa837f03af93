"""Words that people bring along from other workflow languages -> how it is written here."""

from __future__ import annotations

from collections.abc import Mapping

_TASK = "write task: NAME, and register a Python function under that name"
_NEEDS = "write needs: [NAME], or refer to steps.NAME.output"
_MAP = "write map: {items: LIST, do: STEP}"
_RETRY = "write retry: {max: N, backoff: {initial: 1s}}"

KEYS: Mapping[str, str] = {
    "with": "write args",
    "parameters": "write args on a task, inputs at the top",
    "params": "write args on a task, inputs at the top",
    "arguments": "write args",
    "kwargs": "write args",
    "input": "write args on a task, inputs at the top",
    "uses": _TASK,
    "run": _TASK,
    "runs": _TASK,
    "script": _TASK,
    "command": _TASK,
    "commands": _TASK,
    "shell": _TASK,
    "image": _TASK,
    "container": _TASK,
    "template": _TASK,
    "operator": _TASK,
    "action": _TASK,
    "call": _TASK,
    "resource": _TASK,
    "runs-on": "write queue: NAME",
    "runs_on": "write queue: NAME",
    "pool": "write queue: NAME, or concurrency: {key, limit}",
    "executor": "write queue: NAME",
    "if": "write when",
    "unless": "write when: not (...)",
    "condition": "write when",
    "depends": _NEEDS,
    "depends_on": _NEEDS,
    "depends-on": _NEEDS,
    "dependsOn": _NEEDS,
    "dependencies": _NEEDS,
    "requires": _NEEDS,
    "after": _NEEDS,
    "runAfter": _NEEDS,
    "upstream": _NEEDS,
    "need": "write needs",
    "continue-on-error": "write on_error: continue",
    "continue_on_error": "write on_error: continue",
    "continueOn": "write on_error: continue",
    "allow_failure": "write on_error: continue",
    "ignore_errors": "write on_error: continue",
    "onError": "write on_error: continue, or a step with run_on: failure",
    "trigger_rule": "write run_on: success, failure, done, any_success or always",
    "always": "write run_on: always",
    "strategy": _MAP,
    "matrix": _MAP,
    "foreach": _MAP,
    "for_each": _MAP,
    "forEach": _MAP,
    "with_items": _MAP,
    "withItems": _MAP,
    "withParam": _MAP,
    "expand": _MAP,
    "parallel": "write group",
    "branches": "write group",
    "sequence": "write chain",
    "retries": _RETRY,
    "max_retries": _RETRY,
    "retry_delay": _RETRY,
    "retryStrategy": _RETRY,
    "attempts": _RETRY,
    "timeout-minutes": "write timeout: 10m",
    "timeout_minutes": "write timeout: 10m",
    "timeout_seconds": "write timeout: 10s",
    "timeoutSeconds": "write timeout: 10s",
    "TimeoutSeconds": "write timeout: 10s",
    "activeDeadlineSeconds": "write timeout: 10s",
    "execution_timeout": "write timeout: 10m",
    "jobs": "write steps",
    "tasks": "write steps",
    "states": "write steps",
    "nodes": "write steps",
    "dag": "write steps",
    "variables": "write vars",
    "schedule": "start the workflow from cron: stemflow submit FILE",
    "output": "write outputs at the top; a step's result is steps.NAME.output",
    "spec": "write its keys at the top of the file",
    "kind": "the key that names the kind is written itself: task, chain, group, ...",
    "type": "the key that names the kind is written itself: task, chain, group, ...",
    "id": "the key of the step in `steps` is its name",
}
"""Key of another language -> what to write."""

KINDS_ELSEWHERE = frozenset(key for key, hint in KEYS.items() if hint in (_TASK, _MAP)) | {
    "parallel",
    "branches",
    "sequence",
}
"""Keys that name the kind of a step in the other format, so that a missing kind is not reported as well."""

_STEP = "write steps.NAME.output, or steps.NAME.state"

NAMES: Mapping[str, str] = {
    "needs": _STEP,
    "jobs": _STEP,
    "tasks": _STEP,
    "nodes": _STEP,
    "outputs": _STEP,
    "matrix": "write the `as` name of a map",
    "github": "give what the workflow must know as an input",
    "workflow": "write run.id, run.name or inputs.NAME",
    "params": "write inputs.NAME",
    "parameters": "write inputs.NAME",
    "input": "write inputs.NAME",
    "var": "write vars.NAME",
    "event": "give what the workflow must know as an input",
    "trigger": "give what the workflow must know as an input",
    "execution": "write run.id",
    "context": "write run.id, run.name or inputs.NAME",
}
"""Name of another language -> what to write; only where the name does not exist."""

CALLS: Mapping[str, str] = {
    "always": "write run_on: always on the step",
    "success": "write run_on: success on the step, which is the default",
    "failure": "write run_on: failure on the step",
    "cancelled": "write run_on: always on the step, and test steps.NAME.state",
    "hashFiles": "do it in a task",
    "fromJSON": "write from_json(text)",
    "fromJson": "write from_json(text)",
    "toJSON": "write json(value)",
    "toJson": "write json(value)",
    "startsWith": "write startswith(text, prefix)",
    "endsWith": "write endswith(text, suffix)",
    "coalesce": "write get(path, default)",
    "default": "write get(path, default)",
    "if": "write A if CONDITION else B",
}
"""Function of another language -> what to write."""
