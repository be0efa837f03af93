"""SVG drawings: boxes do not overlap, edges go forwards, large graphs stay small, and a run shows its states."""

from __future__ import annotations

import json
import random
import re
import xml.etree.ElementTree as ElementTree
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from stemflow.cli.drawing.fold import fold, pattern
from stemflow.cli.drawing.layers import layers_of, place
from tests.cli.world import Cli
from tests.dags.convert import to_yaml
from tests.dags.dag import DATA, LARGEST

SVG = "{http://www.w3.org/2000/svg}"


def random_dag(seed: int) -> tuple[dict[str, tuple[float, float]], list[tuple[str, str]]]:
    rng = random.Random(seed)
    names = [f"s{i}" for i in range(rng.randint(1, 25))]
    edges = {(a, b) for a, b in combinations(names, 2) if rng.random() < 0.15}
    return {name: (rng.uniform(20, 200), rng.uniform(10, 90)) for name in names}, sorted(edges)


@pytest.mark.parametrize("seed", range(20))
def test_boxes_do_not_overlap_and_edges_go_forwards(seed: int) -> None:
    sizes, edges = random_dag(seed)
    found = place(sizes, edges)
    boxes = {name: (*at, at[0] + sizes[name][0], at[1] + sizes[name][1]) for name, at in found.corners.items()}
    for a, b in combinations(boxes.values(), 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] + 1e-6 or b[3] <= a[1] + 1e-6
    assert all(x >= 0 and y >= -1e-6 and r <= found.width + 1e-6 and b <= found.height + 1e-6
               for x, y, r, b in boxes.values())  # fmt: skip
    for (source, target), points in found.lines.items():
        assert points[0][0] == pytest.approx(boxes[source][2])
        assert points[-1][0] == pytest.approx(boxes[target][0])
        assert all(one[0] < other[0] for one, other in pairwise(points))


def test_a_layer_is_one_more_than_the_latest_predecessor() -> None:
    assert layers_of(["a", "b", "c", "d"], [("a", "b"), ("b", "c"), ("a", "c")]) == {"a": 0, "b": 1, "c": 2, "d": 0}


def test_similar_steps_of_a_layer_are_one_box() -> None:
    names = [f"load_{i}" for i in range(9)] + ["other", "end"]
    labels = {name: name for name in names}
    found = fold(names, labels, [(name, "end") for name in names[:-1]], 8)
    assert {name: len(of) for name, of in found.boxes.items()} == {"load_0": 9, "other": 1, "end": 1}
    assert found.edges == {("load_0", "end"): 9, ("other", "end"): 1}
    assert len(fold(names, labels, [], None).boxes) == 11
    assert pattern("mProject_ID0000012: run_for") == "mProject_ID*: run_for"


def test_a_recorded_graph_of_2122_steps_is_a_small_picture(project: Path, cli: Cli) -> None:
    (project / "large.yaml").write_text(to_yaml(json.loads((DATA / f"{LARGEST}.json").read_text())))
    root = ElementTree.fromstring(cli("graph", "large.yaml", "--format", "svg").out)
    texts = [one.text or "" for one in root.iter(f"{SVG}text")]
    assert len(texts) < 40
    assert any(re.fullmatch(r"mDiffFit_ID\*: run_for  × 1,890", one) for one in texts)
    assert float(root.attrib["width"]) < 3_000
    assert float(root.attrib["height"]) < 500


def test_names_cannot_break_the_picture(project: Path, cli: Cli) -> None:
    (project / "odd.yaml").write_text('stemflow: "1"\nname: odd\nsteps: {a: {task: "<b>&\\"x"}}\n')
    root = ElementTree.fromstring(cli("graph", "odd.yaml", "--format", "svg").out)
    assert 'a: <b>&"x' in [one.text for one in root.iter(f"{SVG}text")]


def test_a_run_shows_its_states_in_each_format(project: Path, cli: Cli) -> None:
    cli("run", "flaky.yaml")
    run = cli("runs", "-q").out.split()[0]
    drawn = cli("graph", "flaky.yaml", "--run", run, "--format", "svg").out
    legend = [one.text for one in ElementTree.fromstring(drawn).iter(f"{SVG}text")]
    assert {"failed", "skipped", "succeeded"} <= set(legend)
    nodes = json.loads(cli("graph", "flaky.yaml", "--run", run, "--format", "json").out)["nodes"]
    assert {one["path"]: one["states"] for one in nodes}["second"] == {"failed": 1}
    assert "  style n2 fill:#f8d0cd" in cli("graph", "flaky.yaml", "--run", run).out
    assert 'fillcolor="#d3efd8"' in cli("graph", "flaky.yaml", "--run", run, "--format", "dot").out
    assert cli("graph", "flaky.yaml", "--run", "0123").code == 3


def test_members_of_a_map_are_counted(project: Path, cli: Cli) -> None:
    (project / "many.yaml").write_text(
        'stemflow: "1"\nname: many\n'
        'steps: {m: {map: {items: "[1, 2, 3]", do: {task: each, args: {n: "${{ item }}"}}}}}\n'
    )
    cli("run", "many.yaml")
    run = cli("runs", "-q").out.split()[0]
    drawn = cli("graph", "many.yaml", "--run", run, "--format", "svg").out
    assert "[*]: each  × 3" in [one.text for one in ElementTree.fromstring(drawn).iter(f"{SVG}text")]
