"""The grammar of the command line. It imports no subcommand, so that `--help` costs next to nothing."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

from stemflow.cli.exits import FINE, WRONG_USAGE
from stemflow.errors import UnitError
from stemflow.units import parse_duration_ms

DEFAULT_STORE = "sqlite:"
FORMATS = ("text", "json", "github")
GRAPH_FORMATS = ("mermaid", "dot", "json")
REASONS = (
    "max-retries-exhausted", "unregistered-task", "signature-invalid", "unknown-encoder", "bad-arguments", "poison",
    "lost", "expired",
)  # fmt: skip
"""Why a task may have failed for good."""


class _Parser(argparse.ArgumentParser):
    """argparse, with the exit code of this program for wrong usage and a next step."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(WRONG_USAGE, f"error: {message}; `{self.prog} --help` tells more\n")


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        from stemflow.cli.version import version_text

        print(version_text())
        parser.exit(FINE)


def build_parser() -> argparse.ArgumentParser:
    """All commands with their options; `module` in the answer is the module that carries the command out."""
    parser = _Parser(prog="stemflow", description="Run declarative workflows, durably.", allow_abbrev=False)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and leave")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    _run_commands(commands)
    _worker_commands(commands)
    _store_commands(commands)
    _letter_commands(commands)
    _prune_command(commands)
    _file_commands(commands)
    return parser


def _command(commands: Any, name: str, summary: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False
    )
    command.set_defaults(module=f"stemflow.cli.{name}", command=name)
    return command


def _run_commands(commands: Any) -> None:
    run = _command(commands, "run", "run a workflow file with an embedded worker and show it")
    _given(run)
    resume = _command(commands, "resume", "go on with a run that was interrupted or whose process died")
    rerun = _command(commands, "rerun", "make a new run that keeps results of an old one")
    which = rerun.add_mutually_exclusive_group(required=True)
    which.add_argument("--failed", action="store_true", help="run again only what did not succeed")
    which.add_argument("--from", dest="from_step", metavar="STEP", help="run again this step and what depends on it")
    for command in (resume, rerun):
        command.add_argument("run", metavar="RUN", help="the id of the run, or the beginning of it")
    for command in (run, resume, rerun):
        _tasks(command)
        command.add_argument("--concurrency", type=_positive, default=100, metavar="N", help="tasks at once (100)")
        _store(command)


def _given(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE")
    command.add_argument("-i", "--input", metavar="NAME=VALUE", action="append", default=[], help="may be repeated")
    command.add_argument("--inputs", metavar="FILE", help="a JSON or YAML file of inputs; -i wins over it")
    command.add_argument("--again", action="store_true", help="run although a finished run holds the same unique key")


def _worker_commands(commands: Any) -> None:
    worker = _command(commands, "worker", "serve the queues of a store until it is told to stop")
    worker.add_argument("--queues", type=_names, metavar="A,B", help="leased from (default: every queue)")
    worker.add_argument("--concurrency", type=_positive, default=100, metavar="N", help="tasks at once (100)")
    worker.add_argument("--processes", type=_positive, default=1, metavar="P", help="so many worker processes (1)")
    worker.add_argument("--name", metavar="NAME", help="how the worker is listed (default: host and process id)")
    worker.add_argument(
        "--grace", type=_duration, default=30_000, metavar="TIME",
        help="how long tasks may go on after SIGTERM or Ctrl-C before they are handed back (30s)",
    )  # fmt: skip
    worker.add_argument(
        "--unroutable-after", type=_duration, default=60_000, metavar="TIME",
        help="a task that no worker has declared for so long fails (60s)",
    )  # fmt: skip
    worker.add_argument("-v", "--verbose", action="store_true", help="a line for each task that starts and ends well")
    submit = _command(commands, "submit", "store a run of a workflow file for workers, and print its id")
    _given(submit)
    submit.add_argument("--allow-unknown", action="store_true", help="also with tasks that no worker has declared")
    for command in (worker, submit):
        _tasks(command)
        _store(command, json=command is submit)


def _store_commands(commands: Any) -> None:
    workers = _command(commands, "workers", "list the workers of a store, with what they serve and when they last told")
    _store(workers)
    doctor = _command(commands, "doctor", "say how safe a store is, who works on it and what stands still in it")
    _store(doctor)
    acl = _command(commands, "acl", "print users for a server's ACL file, with no more rights than they need")
    acl.add_argument(
        "--store", metavar="URL", default="redis://localhost:6379/0", help="whose prefix the keys begin with (sf)"
    )
    runs = _command(commands, "runs", "list the runs of a store, newest first")
    runs.add_argument("--limit", type=_positive, default=20, metavar="N", help="at most so many (default 20)")
    _store(runs)
    for name, summary in (
        ("show", "show a run: its tree, results, errors and attempts"),
        ("cancel", "stop everything of a run that has not ended"),
    ):
        command = _command(commands, name, summary)
        command.add_argument("run", metavar="RUN", help="the id of the run, or the beginning of it")
        if name == "cancel":
            command.add_argument("--force", action="store_true", help="end it now: wait for nothing, cut off hooks too")
        _store(command)


def _letter_commands(commands: Any) -> None:
    dlq = _command(commands, "dlq", "list, show, replay or purge the tasks that failed for good")
    actions = dlq.add_subparsers(title="actions", metavar="ACTION", required=True, parser_class=_Parser)
    for name, summary in (
        ("list", "list dead letters, the newest first"),
        ("show", "tell the whole story of a dead letter, and what to do about it"),
        ("replay", "run again what failed, in a new run that keeps the results of the old one"),
        ("purge", "throw dead letters away"),
    ):
        action = _command(actions, name, summary)
        action.set_defaults(module="stemflow.cli.dlq", command="dlq", action=name)
        if name == "show":
            action.add_argument("letter", metavar="RUN[/PATH]", help="a run or a task of it")
        else:
            _letter_filters(action)
        if name in ("replay", "purge"):
            action.add_argument("letters", metavar="RUN[/PATH]", nargs="*", help="these alone")
            action.add_argument("--all", action="store_true", help="every dead letter that fits")
            action.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
        if name == "replay":
            action.add_argument("--delay", type=_duration, default=0, metavar="TIME", help="start nothing before")
            action.add_argument("--allow-unknown", action="store_true", help="also tasks that no worker has declared")
            _tasks(action)
        _store(action)


def _prune_command(commands: Any) -> None:
    prune = _command(commands, "prune", "delete what is past its time now, as every worker does each minute")
    prune.add_argument("--dry-run", action="store_true", help="say what would be deleted, and change nothing")
    _store(prune)


def _letter_filters(command: argparse.ArgumentParser) -> None:
    command.add_argument("--queue", metavar="NAME", help="of this queue")
    command.add_argument("--task", metavar="NAME", help="of this task")
    command.add_argument("--reason", choices=REASONS, metavar="REASON", help=", ".join(REASONS))
    command.add_argument("--since", type=_since, metavar="TIME", help="not older: 2h, or 2026-01-31T03:00")
    command.add_argument("--run", metavar="RUN", help="of this run; the beginning of its id will do")
    command.add_argument("--limit", type=_positive, metavar="N", help="the newest N (list: 50)")


def _file_commands(commands: Any) -> None:
    validate = _command(commands, "validate", "check workflow files without running anything")
    validate.add_argument("paths", metavar="PATH", nargs="+", help="a workflow file, or a folder of them")
    validate.add_argument("--format", choices=FORMATS, default="text")
    validate.add_argument("--strict", action="store_true", help="warnings count as errors")
    _tasks(validate)
    graph = _command(commands, "graph", "print the steps of a workflow and what they wait for")
    graph.add_argument("file", metavar="FILE")
    graph.add_argument("--format", choices=GRAPH_FORMATS, default="mermaid")
    schema = _command(commands, "schema", "print the JSON Schema of workflow files")
    schema.add_argument(
        "--tasks", metavar="MODULE[:REGISTRY]", action="append", default=[],
        help="with these tasks: their names, and the schema of the arguments of each; may be repeated",
    )  # fmt: skip
    explain = _command(commands, "explain", "explain a finding of validate")
    explain.add_argument("code", metavar="CODE", nargs="?", help="such as SF101; without it all codes are listed")


def _store(command: argparse.ArgumentParser, json: bool = True) -> None:
    command.add_argument(
        "--store", metavar="URL", default=DEFAULT_STORE,
        help="sqlite:PATH, sqlite: for .stemflow/stemflow.db (the default), redis://HOST:PORT/DB, or memory:",
    )  # fmt: skip
    if json:
        command.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def _tasks(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--tasks", metavar="MODULE[:REGISTRY]", action="append", default=[],
        help="where the tasks are; may be repeated (default: pyproject.toml, else tasks.py beside the file)",
    )  # fmt: skip


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not all(names):
        raise argparse.ArgumentTypeError(f"expected names with commas between them, got {text!r}")
    return names


def _duration(text: str) -> int:
    try:
        return parse_duration_ms(text)
    except UnitError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _since(text: str) -> Any:
    """How long ago, or an instant; one without a zone is local time."""
    if text[:4].isdecimal() and "-" in text:
        from datetime import datetime

        try:
            return datetime.fromisoformat(text).astimezone()
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected an instant such as 2026-01-31T03:00, got {text!r}") from None
    _duration(text)
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)
