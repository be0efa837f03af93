"""run, resume and rerun: what they print where, and how they end."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from stemflow.cli.exits import Refused
from stemflow.cli.inputs import given_inputs
from stemflow.dsl import parse_workflow
from stemflow.model.facts import Ended, Ok
from stemflow.model.records import Node
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.tasks.discovery import find_tasks
from stemflow.store.base import Request, Want
from tests.cli.world import Cli

SCHEMA = json.loads((Path(__file__).parents[2] / "schemas" / "cli.v1.schema.json").read_text("utf-8"))


def follows_schema(name: str, text: str) -> Any:
    value = json.loads(text)
    jsonschema.validate(value, {"$ref": f"#/definitions/{name}", "definitions": SCHEMA["definitions"]})
    return value


def submit(name: str, **recorded: Any) -> str:
    """A run that nobody works on yet: its process died, say. `recorded`: what it says of its file and tasks."""

    path = Path(name).resolve()
    workflow = parse_workflow(path.read_text("utf-8"), name).workflow
    assert workflow is not None
    inputs = {name: schema["default"] for name, schema in workflow.inputs.items()}

    async def ask() -> str:
        async with Stemflow(registry=find_tasks([], path), worker=False) as app:
            return (await app.submit(workflow, inputs=inputs, **{"file": str(path), **recorded})).id

    return asyncio.run(ask())


def newest(cli: Cli) -> str:
    return str(json.loads(cli("runs", "--json").out)[0]["id"])


UNDONE = """\
stemflow: "1"
name: undone
steps:
  a: {task: say, args: {word: one}, compensate: {task: say, args: {word: none}}}
  b: {needs: [a], task: say, args: {word: two}}
on_cancel: {compensate: true}
"""
KEYED = """\
stemflow: "1"
name: keyed
unique: {key: only, for: 1h}
steps:
  a: {task: say, args: {word: one}}
outputs: {a: "${{ steps.a.output }}"}
"""


def test_standard_output_holds_the_outputs_and_nothing_else(project: Path, cli: Cli) -> None:
    # When a workflow is run
    ran = cli("run", "hello.yaml", "-i", "who=7", "-i", "times=3")
    # Then each output is a line, a text stays a text, and the rest is on standard error
    assert (ran.code, ran.out) == (0, 'said: "7"\nsquared: 9\n')
    assert "hello" in ran.err and "succeeded after" in ran.err


PROTECTED = """
from stemflow import GzipEncoder, SigningKeys, TaskPayloadEncoderRegistry

registry.encoders = TaskPayloadEncoderRegistry(GzipEncoder(), args="gzip", results="gzip")
registry.signing = SigningKeys({"key": b"0123456789abcdef"}, "key")
"""


def test_the_encoders_and_keys_of_the_registry_are_those_of_the_command(cli: Cli, project: Path) -> None:
    # Given tasks whose registry encodes and signs
    tasks = project / "tasks.py"
    tasks.write_text(tasks.read_text() + PROTECTED)
    ran = cli("run", "--json", "hello.yaml")
    assert ran.code == 0, ran.err
    run = json.loads(ran.out)["run_id"]

    # Then what the command has stored is encoded and signed
    async def stored() -> tuple[bytes, bool]:
        async with Stemflow(worker=False) as app:
            (node,) = await app.store.read([(run, "greet")])
            assert isinstance(node, Node) and node.result is not None
            return node.result, node.seal is not None

    result, sealed = asyncio.run(stored())
    assert b"gzip" in result and sealed
    # And a command that continues it can read it
    assert cli("rerun", run, "--from", "greet").code == 0


def test_json_is_one_object(project: Path, cli: Cli) -> None:
    ran = cli("run", "hello.yaml", "--json")
    told = follows_schema("run", ran.out)
    assert (told["state"], told["outputs"], told["error"]) == ("succeeded", {"said": "world", "squared": 1}, None)


def test_a_failed_run_exits_with_one_and_names_the_step_and_the_next_step(project: Path, cli: Cli) -> None:
    # When a step fails
    ran = cli("run", "flaky.yaml", "--json")
    # Then the object holds the error, and the summary how to go on
    told = follows_schema("run", ran.out)
    assert (ran.code, told["state"], told["outputs"]) == (1, "failed", None)
    assert (told["error"]["type"], told["error"]["step"], told["error"]["attempt"]) == ("Reject", "second", 1)
    assert "second failed: Reject: not mended yet" in ran.err
    assert f"`stemflow rerun {told['run_id']} --failed`" in ran.err


def test_the_next_command_names_the_store_that_was_named(project: Path, cli: Cli) -> None:
    ran = cli("run", "flaky.yaml", "--store", "sqlite:my runs.db")
    assert "--failed --store 'sqlite:my runs.db'`" in ran.err


def test_what_a_task_prints_does_not_reach_standard_output(project: Path, cli: Cli) -> None:
    (project / "demo.yaml").write_text('stemflow: "1"\nname: demo\nsteps:\n  a: {task: prints}\n')
    ran = cli("run", "demo.yaml", "--store", "memory:")
    assert ran.out == ""
    assert "a task prints\n" in ran.err


def test_a_workflow_without_named_outputs_gives_its_value(project: Path, cli: Cli) -> None:
    (project / "demo.yaml").write_text('stemflow: "1"\nname: demo\nchain:\n  - {task: each, args: {n: 4}}\n')
    assert cli("run", "demo.yaml", "--store", "memory:").out == "16\n"


def test_inputs_come_from_a_file_and_the_command_line_wins(project: Path, cli: Cli) -> None:
    (project / "in.yaml").write_text("who: file\ntimes: 2\n")
    ran = cli("run", "hello.yaml", "--inputs", "in.yaml", "-i", "who=line", "--store", "memory:")
    assert ran.out == 'said: "line"\nsquared: 4\n'


def test_inputs_are_read_by_the_rules_of_workflow_files(project: Path) -> None:
    # Given words that other readers of YAML turn into dates, truth values and octal numbers
    (project / "in.yaml").write_text("a: no\nb: 2026-01-01\nc: on\nd: 1_000\ne: [1, 1.5, true, null]\n")
    assert given_inputs({}, (), "in.yaml") == {
        "a": "no", "b": "2026-01-01", "c": "on", "d": "1_000", "e": [1, 1.5, True, None]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("in.yaml", "who: 1\nwho: 2\n", "the key `who` is already set"),
        ("in.yaml", "who: !!python/object/apply:os.system [ls]\n", "is not allowed"),
        ("in.yaml", "who: &a [*a]\n", "inside its own anchor"),
        ("in.yaml", "who: " + "[" * 5_000 + "]" * 5_000, "nesting depth"),
        ("in.json", '{"who": ' + "[" * 50_000 + "]" * 50_000 + "}", "nested too deeply"),
        ("in.json", '{"who": NaN}', "NaN is no JSON"),
        ("/dev/zero", "", "larger than the limit of 10,000,000 bytes"),
    ],
)
def test_a_file_of_inputs_that_is_none_is_refused(project: Path, name: str, text: str, told: str) -> None:
    if text:
        (project / name).write_text(text)
    with pytest.raises(Refused, match=f"--inputs {name}: expected .*{told}"):
        given_inputs({}, (), name)


@pytest.mark.parametrize("data", ["[" * 50_000, "NaN", '{"a": -Infinity}'])
def test_data_of_an_event_that_is_no_json_is_refused(cli: Cli, project: Path, data: str) -> None:
    ran = cli("event", "send", "paid", "--data", data)
    assert ran.code == 3 and "--data: expected JSON, got" in ran.err


def test_a_device_is_read_no_further_than_a_file_may_be_long(cli: Cli, project: Path) -> None:
    (project / "flows").mkdir()
    (project / "flows" / "zero.yaml").symlink_to("/dev/zero")
    os.mkfifo(project / "flows" / "pipe.yaml")
    assert "SF003" in cli("validate", "/dev/zero").out
    assert "expected workflow files in this folder, found none" in cli("validate", "flows").err
    assert cli("runs", "--store", "@/dev/zero").code == 3


def test_resume_ends_a_run_that_nobody_works_on(project: Path, cli: Cli) -> None:
    # Given a run whose process is gone
    run = submit("hello.yaml")
    assert json.loads(cli("runs", "--json").out)[0]["state"] == "active"
    # When it is resumed, named by its beginning, from another folder
    ran = cli("resume", run[:-2])
    # Then it ends, with its tasks found next to its file
    assert (ran.code, ran.out) == (0, 'said: "world"\nsquared: 1\n')


def test_resume_of_a_run_that_has_ended_shows_it(project: Path, cli: Cli) -> None:
    cli("run", "flaky.yaml")
    ran = cli("resume", newest(cli))
    assert ran.code == 1
    assert "has ended already; nothing was started" in ran.err


def test_resume_elsewhere_says_how_to_name_the_tasks_and_imports_nothing_that_the_store_names(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a run of a file in one folder, and the user in another
    run = submit("hello.yaml")
    (project / "elsewhere").mkdir()
    monkeypatch.chdir(project / "elsewhere")
    store = ("--store", f"sqlite:{project / '.stemflow' / 'stemflow.db'}")
    # When it is resumed, the tasks next to its file are named and not loaded; and repeated by the user they are
    ran = cli("resume", run, *store)
    assert ran.code == 3 and f"--tasks {project / 'tasks.py'}: repeat that if it is code you trust" in ran.err
    assert cli("resume", run, "--tasks", str(project / "tasks.py"), *store).code == 0


@pytest.mark.parametrize("words", [("resume",), ("rerun", "--failed")])
def test_a_module_that_a_run_has_recorded_is_never_imported(
    words: tuple[str, ...], project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a run in the store that names a module and a file, both of which would leave a trace
    trace = f"import pathlib\npathlib.Path({str(project / 'trace')!r}).touch()\n"
    (project / "canary_module.py").write_text(trace)
    (project / "flows").mkdir()
    (project / "flows" / "tasks.py").write_text(trace)
    run = submit("hello.yaml", file=str(project / "flows" / "hello.yaml"), tasks=("canary_module",))
    (project / "empty").mkdir()
    monkeypatch.chdir(project / "empty")
    store = ("--store", f"sqlite:{project / '.stemflow' / 'stemflow.db'}")
    # When an operator goes on with it
    ran = cli(words[0], *words[1:], run, *store)
    # Then nothing was imported, and the words to repeat are there
    assert not (project / "trace").exists()
    assert ran.code != 0
    assert "the store says that it was started with --tasks canary_module" in ran.err


def test_the_next_command_names_tasks_that_are_not_found_from_here(project: Path, cli: Cli) -> None:
    (project / "flows").mkdir()
    for name in ("tasks.py", "flaky.yaml"):
        (project / name).rename(project / "flows" / name)
    ran = cli("run", "flows/flaky.yaml")
    assert "--failed --tasks flows/tasks.py`" in ran.err
    assert "is run again" not in ran.err
    assert "expected its tasks" not in cli("rerun", newest(cli), "--failed", "--tasks", "flows/tasks.py").err


def test_rerun_failed_keeps_what_succeeded(project: Path, cli: Cli) -> None:
    # Given a run that failed in the middle, and the cause fixed
    cli("run", "flaky.yaml")
    old = newest(cli)
    (project / "mended").touch()
    # When what failed is run again
    ran = cli("rerun", old, "--failed", "--json")
    # Then a new run succeeds, without running the first step once more
    told = follows_schema("run", ran.out)
    assert (ran.code, told["outputs"]) == (0, {"second": "well"})
    shown = follows_schema("show", cli("show", told["run_id"], "--json").out)
    assert shown["rerun_of"] == old
    assert shown["nodes"][1]["path"] == "first" and shown["nodes"][1]["started_at_ms"] is None


def test_rerun_from_a_step_that_does_not_exist_names_those_that_do(project: Path, cli: Cli) -> None:
    cli("run", "hello.yaml")
    ran = cli("rerun", newest(cli), "--from", "gret")
    assert ran.code == 3
    assert "there is no step 'gret'; steps are greet, again" in ran.err


def test_a_key_held_by_a_finished_run_shows_what_it_gave(project: Path, cli: Cli) -> None:
    # Given a workflow that runs once an hour, and has
    (project / "keyed.yaml").write_text(KEYED)
    first = json.loads(cli("run", "keyed.yaml", "--json").out)["run_id"]
    # When it is run again
    ran = cli("run", "keyed.yaml")
    # Then its outputs are shown, and how to run it nevertheless
    assert (ran.code, ran.out) == (0, 'a: "one"\n')
    assert f"already ran as {first} (succeeded)" in ran.err
    assert "`stemflow run keyed.yaml --again`" in ran.err
    assert len(json.loads(cli("runs", "--json").out)) == 1


def test_again_runs_although_the_key_is_held_by_a_finished_run(project: Path, cli: Cli) -> None:
    (project / "keyed.yaml").write_text(KEYED)
    cli("run", "keyed.yaml")
    assert cli("run", "keyed.yaml", "--again").code == 0
    assert len(json.loads(cli("runs", "--json").out)) == 2


@pytest.mark.parametrize("words", [(), ("--again",)])
def test_a_key_held_by_an_unfinished_run_says_resume(words: tuple[str, ...], project: Path, cli: Cli) -> None:
    # Given an unfinished run under the key
    (project / "keyed.yaml").write_text(KEYED)
    held = submit("keyed.yaml")
    # When the workflow is run, nothing is started
    ran = cli("run", "keyed.yaml", *words)
    assert ran.code == 3
    assert f"run {held} is unfinished" in ran.err and f"`stemflow resume {held}`" in ran.err
    assert len(json.loads(cli("runs", "--json").out)) == 1


def test_two_runs_with_the_same_beginning_are_not_guessed_between(project: Path, cli: Cli) -> None:
    cli("run", "hello.yaml")
    cli("run", "hello.yaml")
    ran = cli("show", "01")
    assert ran.code == 3
    assert "got that of several" in ran.err


def test_cancel_ends_a_run_and_is_harmless_twice(project: Path, cli: Cli) -> None:
    run = submit("hello.yaml")
    done = follows_schema("cancel", cli("cancel", run, "--json").out)
    assert done == {"id": run, "state": "cancelled", "was": "active"}
    assert "had ended already (cancelled)" in cli("cancel", run).err
    assert "had ended already (cancelled)" in cli("cancel", run, "--force").err
    assert follows_schema("runs", cli("runs", "--json").out)[0]["state"] == "cancelled"


def test_cancel_says_what_to_do_about_a_run_that_goes_on_stopping(project: Path, cli: Cli) -> None:
    # Given a run whose task another machine has taken
    run = submit("hello.yaml")
    asyncio.run(taken(run))
    # When it is cancelled, then it learns what is waited for, and again that it was stopping already
    ran = cli("cancel", run)
    assert (ran.code, ran.out) == (0, "")
    assert f"run {run} is stopping: 1 task asked to end\n" in ran.err
    assert f"still stopping after 30.0s, its worker is dead; `stemflow cancel {run}` takes over" in ran.err
    assert f"`stemflow cancel --force {run}` ends it at once" in ran.err
    assert f"run {run} was stopping already: 1 task asked to end\n" in cli("cancel", run).err
    # And by force it ends
    assert cli("cancel", run, "--force").err == f"run {run} is cancelled\n"


def test_cancel_says_that_compensation_needs_a_worker_and_cuts_it_off_by_force(project: Path, cli: Cli) -> None:
    # Given a run that undoes its first step when it is cancelled, which nobody works on any more
    (project / "undone.yaml").write_text(UNDONE)
    run = submit("undone.yaml")
    asyncio.run(taken(run, ok=True))
    # When it is cancelled, then it says who could run the compensation
    told = cli("cancel", run).err
    assert f"run {run} is stopping: 1 task of its hooks, compensation or `run_on: always` to run\n" in told
    assert f"`stemflow resume {run}` does; `stemflow cancel --force {run}` cuts them off" in told
    assert cli("cancel", run, "--force").err == f"run {run} is cancelled\n"


async def taken(run: str, ok: bool = False) -> None:
    """A worker elsewhere has leased the first task of the run; with `ok` it has ended well."""
    async with Stemflow(worker=False) as app:
        answer = await app.store.exchange(Request("elsewhere", 1), [], Want(owner="elsewhere", limit=1, only_run=run))
        (lease,) = answer.leases
        if ok:
            await app.parts.committer.commit([Ended(lease.node.key, lease.node.delivery, Ok(b'"one"'))])


def test_show_prints_results_and_errors(project: Path, cli: Cli) -> None:
    cli("run", "flaky.yaml")
    out = cli("show", newest(cli)).out
    assert '= "one"' in out
    assert "Reject: not mended yet" in out
    assert "because of what it waited for" in out
