"""The page of metrics lists those that there are, and what is in `ops` uses no others."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from stemflow.model.metrics import BUCKETS_MS, FAMILIES
from stemflow.units import format_duration

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "metrics.md"
MARK = "<!-- metrics -->\n"


def table() -> str:
    rows = [
        f"| `stemflow_{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.help} |"
        for one in FAMILIES
    ]
    return "\n".join(["| metric | kind | labels | meaning |", "|---|---|---|---|", *rows]) + "\n"


def test_the_page_lists_every_metric() -> None:
    """Rewritten with STEMFLOW_GOLDEN=write."""
    before, _, rest = PAGE.read_text().partition(MARK)
    after = rest[rest.index("\nDurations have") :]
    page = before + MARK + table() + after
    if os.environ.get("STEMFLOW_GOLDEN") == "write":
        PAGE.write_text(page)
    assert PAGE.read_text() == page


def test_the_page_names_the_buckets() -> None:
    text = re.search(r"buckets (.*)\.", PAGE.read_text())
    assert text is not None
    named = re.split(", | and ", text[1])
    assert [one.replace(" ", "").replace("min", "m") for one in named] == [
        "2.5s" if ms == 2_500 else format_duration(ms) for ms in BUCKETS_MS
    ]


def expressions(found: Any) -> list[str]:
    """Every expression of a query in a file, by the names that Prometheus, Grafana and KEDA use."""
    if isinstance(found, list):
        return [one for part in found for one in expressions(part)]
    if not isinstance(found, dict):
        return []
    own = [found[key] for key in ("expr", "query") if "stemflow_" in str(found.get(key))]
    return own + [one for part in found.values() for one in expressions(part)]


@pytest.mark.parametrize("name", ["alerts.rules.yml", "grafana.json", "keda.yaml"])
def test_what_is_shipped_for_operators_uses_metrics_and_labels_that_exist(name: str) -> None:
    text = (ROOT / "ops" / name).read_text()
    data = json.loads(text) if name.endswith("json") else yaml.safe_load(text)
    queries = expressions(data)
    assert queries
    families = {f"stemflow_{one.name}": one for one in FAMILIES}
    for query in queries:
        assert query.count("(") == query.count(")")
        used = re.findall(r"(stemflow_\w+)(?:\{([^}]*)\})?", query)
        for metric, selector in used:
            family = families.get(re.sub("_(bucket|sum|count)$", "", metric)) or families[metric]
            assert set(re.findall(r"(\w+)=", selector)) <= set(family.labels)
        known = {"le"} | {label for metric, _ in used for label in families[re.sub("_bucket$", "", metric)].labels}
        for group in re.findall(r"by \(([^)]*)\)", query):
            assert set(group.split(", ")) <= known


def test_each_alert_has_a_name_a_severity_and_a_next_step() -> None:
    rules = yaml.safe_load((ROOT / "ops" / "alerts.rules.yml").read_text())["groups"][0]["rules"]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "help"}
        labels = re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))
        assert all(label in rule["expr"] or "queue" in label for label in labels)
