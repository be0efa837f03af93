"""Records become workflow files that say the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemflow.dsl import parse_workflow
from stemflow.model.signature import StepsSig, TaskSig
from tests.dags import convert
from tests.dags.convert import from_name, to_name, to_yaml
from tests.dags.dag import DATA, FILES, Dag, read_record

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,127}")


@given(st.text(max_size=10))
def test_any_text_becomes_a_name_and_the_name_the_text_again(recorded: str) -> None:
    name = to_name(recorded)
    assert NAME.fullmatch(name)
    assert from_name(name) == recorded


@pytest.mark.parametrize(
    ("recorded", "name"),
    [
        ("mProject_ID0000001", "mProject_ID0000001"),
        ("NFCORE.GUNZIP_3", "NFCORE-2eGUNZIP_3"),
        ("fasterq-dump_ID2", "fasterq-2ddump_ID2"),
        ("1000genome", "_--1000genome"),
        ("_--1", "_-2d-2d1"),
        ("größe", "gr-c3-b6-c3-9fe"),
        ("", "_--"),
    ],
)
def test_what_a_name_may_not_hold_is_escaped(recorded: str, name: str) -> None:
    assert to_name(recorded) == name
    assert from_name(name) == recorded


def test_a_name_that_would_be_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a name of at most 128 characters when escaped, got 129"):
        to_name("a" * 129)


@pytest.mark.parametrize("file", FILES)
def test_a_file_has_the_tasks_the_parents_and_the_runtimes_of_its_record(file: str) -> None:
    record = read_record(file)

    workflow = Dag(record).workflow

    assert from_name(workflow.name) == record["name"]
    assert isinstance(workflow.body, StepsSig)
    said = {}
    for step in workflow.body.steps:
        assert isinstance(step, TaskSig)
        assert step.name is not None
        said[from_name(step.name)] = ([from_name(parent) for parent in step.needs], step.task, step.bind)
    assert said == {
        task["id"]: (task["parents"], "run_for", {"ms": round(task["runtime_s"] * 1_000)}) for task in record["tasks"]
    }


def test_the_converter_is_a_program_that_prints_the_file() -> None:
    path = DATA / "helloworld-forkjoin-10-chameleon.json"

    done = subprocess.run([sys.executable, convert.__file__, path], capture_output=True, text=True, check=True)

    assert done.stdout == to_yaml(json.loads(Path(path).read_text("utf-8")))
    assert parse_workflow(done.stdout, "forkjoin.yaml").diagnostics == ()
