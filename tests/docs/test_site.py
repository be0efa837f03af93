"""The documentation site, the contributor's guide and the release procedure agree with the code."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import stemflow
import stemflow.testing

ROOT = Path(__file__).parents[2]
REFERENCE = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))


class _Loader(yaml.SafeLoader):
    """mkdocs.yml without the Python objects that two of its settings are."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def pages_of(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [page for entry in (nav.values() if isinstance(nav, dict) else nav) for page in pages_of(entry)]


def test_every_page_is_in_the_navigation_once() -> None:
    config = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Loader)
    docs = ROOT / "docs"
    pages = {page.relative_to(docs).as_posix() for page in docs.rglob("*.md")}
    decisions = {page for page in pages if page.startswith("adr/")}  # .ci/site.py adds them
    assert sorted(pages_of(config["nav"])) == sorted([*(pages - decisions), "changelog.md", "contributing.md"])


@pytest.mark.parametrize("module", [stemflow, stemflow.testing], ids=lambda module: module.__name__)
def test_every_public_name_is_in_the_reference_once(module: ModuleType) -> None:
    named = re.findall(rf"(?m)^::: {re.escape(module.__name__)}\.(\w+)$", REFERENCE)
    assert sorted(named) == sorted(module.__all__)


def test_pre_commit_runs_what_the_gate_runs() -> None:
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (hooks,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [f'step "{hook["id"]}" {hook["entry"]}\n' in gate for hook in hooks["hooks"]] == [True, True]
    assert not any(hook["pass_filenames"] for hook in hooks["hooks"])


@pytest.mark.parametrize("name", ["ci.yml", "release.yml"])
def test_the_hosted_workflows_run_the_gate(name: str) -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))
    assert {"run": "bash .ci/run"} in workflow["jobs"]["gate"]["steps"]


def test_the_steps_of_the_gate_are_those_of_the_guide() -> None:
    gate = re.findall(r'(?m)^step "([^"]+)"', (ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = guide.partition("| step | command | finds |")[2].partition("\n\n")[0]
    assert re.findall(r"(?m)^\| ([a-z][^|]+) \|", table) == gate


def check_release() -> Any:
    spec = importlib.util.spec_from_file_location("check_release", ROOT / ".ci" / "check_release.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_release_needs_tag_version_and_changelog_to_agree() -> None:
    problems = check_release().problems
    project = '__version__ = "1.2.3"\n'
    log = "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2030-01-02\n- Something.\n"
    assert problems("v1.2.3", project, log) == []
    assert problems("v1.2.4", project, log) == ["tag: expected v1.2.3 as stemflow/version.py says, got v1.2.4"]
    assert len(problems("v1.2.3", project, log.replace("1.2.3]", "1.2.2]"))) == 1
    assert len(problems("v1.2.3", project, log.replace("## [1.2.3]", "- More.\n\n## [1.2.3]"))) == 1
    assert len(problems("v1.2.3", project, "# Changelog\n")) == 1


def test_the_version_has_its_section_in_the_changelog() -> None:
    version = re.search(r'(?m)^__version__ = "(.*)"', (ROOT / "stemflow" / "version.py").read_text(encoding="utf-8"))
    assert version is not None
    assert f"\n## [{version[1]}] - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
