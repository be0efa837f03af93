"""Commands on workflow files alone, and those that print something about stemflow itself."""

from __future__ import annotations

import click

from stemflow.cli.grammar.options import OrderedGroup, command, store_url, tasks
from stemflow.cli.grammar.types import Code, RunId

FORMATS = ("text", "json", "jsonl", "sarif", "github", "gitlab", "junit")
COLOURS = ("auto", "always", "never")
GRAPH_FORMATS = ("mermaid", "dot", "svg", "json")
SHELLS = ("bash", "zsh", "fish")


def _as_list(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> list[str]:
    return list(value)


VALIDATE = command(
    "validate", "check workflow files without running anything",
    click.Argument(
        ["paths"], metavar="PATH...", nargs=-1, required=True, type=click.Path(allow_dash=True),
        help="A workflow file, a folder, or - for standard input.",
    ),
    click.Option(["--format"], type=click.Choice(FORMATS), default="text", help="The format of the findings (text)."),
    click.Option(["--strict"], is_flag=True, help="Treat warnings as errors."),
    click.Option(["--fix"], is_flag=True, help="Write the fixes that are certain; comments and layout stay."),
    click.Option(["--select"], multiple=True, metavar="CODES", help="Only these findings: SF2,SF505; may be repeated."),
    click.Option(["--ignore"], multiple=True, metavar="CODES", help="Not these findings; may be repeated."),
    click.Option(["--include"], multiple=True, metavar="PATTERN", help="In folders, only these files; repeatable."),
    click.Option(["--exclude"], multiple=True, metavar="PATTERN", help="Of folders, not these files; may be repeated."),
    click.Option(["--changed-since"], metavar="REV", help="Only files that differ from this git revision."),
    click.Option(["--color"], type=click.Choice(COLOURS), default="auto", help="Colours in the text format (auto)."),
    tasks("Look up tasks, their arguments and results here; may be repeated (default: nothing is imported)."),
)  # fmt: skip
TEST = command(
    "test", "run the test cases of workflow files in virtual time",
    click.Argument(
        ["paths"], metavar="PATH...", nargs=-1, required=True, type=click.Path(), callback=_as_list,
        help="A workflow file, a file of tests (NAME.test.yaml), or a folder.",
    ),
    click.Option(["--case"], metavar="TEXT", help="Only cases with this text in their names; no coverage is counted."),
    click.Option(["--format"], type=click.Choice(("text", "junit")), default="text", help="The report (text)."),
    click.Option(
        ["--min-coverage"], type=click.FloatRange(0, 100), default=0.0, metavar="PERCENT",
        help="Fail when fewer branches of a file are covered (0).",
    ),
    click.Option(["--watch"], is_flag=True, help="Run again after each change of the files, until Ctrl-C."),
    tasks("Tasks without a mock run these handlers; may be repeated (default: each task needs a mock)."),
)  # fmt: skip
PLAN = command(
    "plan", "print what a workflow would do: order, conditions, fan-outs, and what a failure would skip",
    click.Argument(["file"], metavar="FILE", type=click.Path(), help="The workflow file."),
    click.Option(["-i", "--input"], multiple=True, metavar="NAME=VALUE", help="An input; may be repeated."),
    click.Option(["--inputs"], metavar="FILE", help="A JSON or YAML file of inputs; -i wins over it."),
    click.Option(["--fail"], metavar="STEP", help="Show what happens when this step fails."),
    click.Option(["--json"], is_flag=True, help="Print JSON on standard output."),
)  # fmt: skip
GRAPH = command(
    "graph", "print the steps of a workflow and their dependencies",
    click.Argument(["file"], metavar="FILE", type=click.Path(), help="The workflow file."),
    click.Option(
        ["--format"], type=click.Choice(GRAPH_FORMATS), default="mermaid", help="The format of the graph (mermaid)."
    ),
    click.Option(["--run"], metavar="RUN", type=RunId(), help="Show the states of this run of the workflow."),
    click.Option(["--all"], is_flag=True, help="In svg, draw each of many similar steps."),
    store_url(),
)  # fmt: skip
SCHEMA = command(
    "schema", "print the JSON Schema of workflow files",
    tasks("Include these tasks: their names, and the schema of each one's arguments; may be repeated."),
)  # fmt: skip
EXPLAIN = command(
    "explain", "explain a finding of validate",
    click.Argument(
        ["code"], metavar="[CODE]", required=False, type=Code(), help="Such as SF101; without it, all codes are listed."
    ),
)  # fmt: skip
LSP = command(
    "lsp", "serve editors over the language server protocol, on standard input and output",
    tasks("Where the tasks are; may be repeated (default: the nearest lock file; nothing is imported)."),
)  # fmt: skip
EXPORT = command(
    "export", "print a canvas or workflow of a program as a workflow file",
    click.Argument(["object"], metavar="MODULE:NAME", help="A signature or a workflow."),
    click.Option(["--name"], metavar="NAME", help="The name of the workflow (that of the object)."),
    click.Option(["--output"], metavar="FILE", type=click.Path(), help="Write this file."),
    tasks("Where the tasks are, if not in the same module; may be repeated."),
)  # fmt: skip
DIFF = command(
    "diff", "print what two versions of a workflow do differently",
    click.Argument(["old"], metavar="A", type=click.Path(), help="A workflow file, or REV:FILE in git."),
    click.Argument(["new"], metavar="B", type=click.Path(), help="The same, to compare with."),
    click.Option(["--json"], is_flag=True, help="Print JSON on standard output."),
)  # fmt: skip
FMT = command(
    "fmt", "write workflow files in the standard layout; comments and values stay",
    click.Argument(
        ["paths"], metavar="PATH...", nargs=-1, required=True, type=click.Path(allow_dash=True), callback=_as_list,
        help="A workflow file, a folder, or - for standard input.",
    ),
    click.Option(["--check"], is_flag=True, help="Write nothing; exit code 1 when a file would change."),
    click.Option(["--diff"], is_flag=True, help="Write nothing; print what would change."),
)  # fmt: skip
LOCK = command(
    "lock", "write a lock file of the tasks, so that validate checks arguments without importing them",
    click.Option(["--check"], is_flag=True, help="Write nothing; exit code 1 when the file is out of date."),
    click.Option(["--output"], metavar="FILE", type=click.Path(), help="The file (stemflow.tasks.lock.json)."),
    tasks("Where the tasks are; may be repeated (default: pyproject.toml)."),
    module="tasks",
)  # fmt: skip
TASKS = OrderedGroup(
    "tasks", commands=[LOCK], help="Write down what is known of the tasks.",
    short_help="write a lock file of the tasks, or check it",
)  # fmt: skip
COMPLETION = command(
    "completion", "print a script that completes stemflow's commands and options in a shell",
    click.Argument(["shell"], metavar="SHELL", type=click.Choice(SHELLS), help="bash, zsh or fish."),
)  # fmt: skip
