"""The example that must always parse, and where its parts stand."""

from __future__ import annotations

import subprocess
import sys

import pytest

import stemflow
from stemflow.dsl import Parsed, check_inputs, parse_workflow
from stemflow.model.policy import RetryPolicy, effective, normalise
from stemflow.model.rates import RateLimit
from stemflow.model.signature import ChainSig, ChordSig, MapSig, StepsSig, TaskSig
from stemflow.model.workflow import Workflow
from tests.dsl.files import FOLDER

TEXT = (FOLDER / "order.yaml").read_text()


@pytest.fixture(scope="module")
def parsed() -> Parsed:
    return parse_workflow(TEXT, "order.yaml")


@pytest.fixture(scope="module")
def order(parsed: Parsed) -> Workflow:
    assert parsed.workflow is not None
    return parsed.workflow


def test_it_parses_without_a_finding(parsed: Parsed) -> None:
    assert parsed.diagnostics == ()


def test_its_steps_are_a_graph_of_named_steps(order: Workflow) -> None:
    body = order.body
    assert isinstance(body, StepsSig)
    assert [(step.name, type(step)) for step in body.steps] == [
        ("validate", TaskSig),
        ("stock", MapSig),
        ("pay", TaskSig),
        ("ship", ChordSig),
        ("notify", ChainSig),
    ]
    assert body.outputs == order.outputs == {"receipt": "${{ steps.pay.output.receipt }}"}


def test_the_map_reserves_each_line_under_a_rate_and_can_be_undone(order: Workflow) -> None:
    stock = order.body.steps[1]  # type: ignore[union-attr]
    assert (stock.items, stock.var, stock.window) == ("steps.validate.output.lines", "line", 50)
    assert stock.do.bind == {"sku": "${{ line.sku }}", "qty": "${{ line.qty }}"}
    assert stock.do.options == {"rate_limit": (RateLimit(200, "1s"),)}
    assert stock.do.compensate.task == "stock.release"
    assert order.compensate_on == ("failed",)


def test_the_retry_of_a_task_completes_that_of_the_defaults(order: Workflow) -> None:
    pay = order.body.steps[2]  # type: ignore[union-attr]
    policy = RetryPolicy.of(backoff="exponential", initial="1s", max="1m")
    assert order.task_defaults["retry"] == policy
    assert pay.options["max_retries"] == 5
    assert pay.options["retry"] == RetryPolicy.of(
        backoff="exponential", initial="1s", max="1m", when="error.type == 'PspUnavailable'"
    )


def test_its_options_have_the_names_that_task_options_have(order: Workflow) -> None:
    options = effective("order", normalise(order.task_defaults, "defaults"))
    assert (options.soft_ms, options.hard_ms, options.max_retries) == (20_000, 30_000, 3)


def test_it_is_unique_by_order_for_a_day(order: Workflow) -> None:
    assert (order.unique_key, order.unique_for_ms) == ("order:${{ inputs.order_id }}", 86_400_000)
    assert order.unique_mode == "return_existing"


def test_a_step_without_args_takes_nothing_from_the_step_before_it() -> None:
    parsed = parse_workflow('stemflow: "1"\nname: x\nchain: [{task: a}, {task: b}]\n', "x.yaml")
    assert parsed.workflow is not None
    assert [step.bind for step in parsed.workflow.body.steps] == [{}, {}]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("path", "key", "text"),
    [
        ("ship", None, "ship"),
        ("ship.label", None, "label"),
        ("ship.then", "task", "ship.book"),
        ("ship.label", "args.paid", '"${{ steps.pay.output.id }}"'),
        ("stock", "map.items", "steps.validate.output.lines"),
        ("stock[*]", "rate_limit", "200/s"),
        ("stock[*]", "compensate", "compensate"),
        ("notify", "needs[0]", "ship"),
        ("notify[1]", "args.body", '"${{ prev }}"'),
        ("pay", "no_such_key", "pay"),
    ],
)
def test_every_part_can_be_pointed_at(parsed: Parsed, path: str, key: str | None, text: str) -> None:
    line, column, end = parsed.locate(path, key)
    assert TEXT.split("\n")[line - 1][column - 1 : end - 1] == text


def test_defaults_of_inputs_are_filled_in(order: Workflow) -> None:
    values, messages = check_inputs(order.inputs, {"order_id": "AB123456"})
    assert messages == []
    assert values == {"order_id": "AB123456", "lines": [{"sku": "apple", "qty": 2}, {"sku": "pear", "qty": 1}]}


def test_a_signature_knows_its_line_and_column(order: Workflow) -> None:
    assert order.body.steps[2].at == (27, 3)  # type: ignore[union-attr]


def test_reading_a_file_loads_neither_networkx_nor_asyncio() -> None:
    # The package's own door is left out: this is about what the dsl itself imports.
    package = f"import sys, types; p = types.ModuleType('stemflow'); p.__path__ = {list(stemflow.__path__)!r}"
    code = (
        f"{package}; sys.modules['stemflow'] = p; import stemflow.dsl;"
        "print(sorted({'networkx', 'asyncio', 'sqlite3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
