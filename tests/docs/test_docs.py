"""What README and docs say: their programs run, their links lead somewhere, their claims about the code hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import stemflow
from stemflow.cli.main import main
from stemflow.compile.freeze import compile_plan
from stemflow.dsl import parse_workflow
from stemflow.model.policy import Options

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("workflows/**/*.md")])
TEXTS = sorted([*PAGES, *(ROOT / "stemflow").rglob("*.py"), *(ROOT / "stemflow").rglob("*.md"), *ROOT.glob("*.toml")])
NOT_SAID = re.compile(r"exactly[- ]once execution|guaranteed delivery|no duplicates", re.IGNORECASE)
FOREIGN_INSTALL = re.compile(r"pip3? install[^\n&;|]*(?<![\w./-])stemflow(?![\w./-])", re.IGNORECASE)

README = (ROOT / "README.md").read_text(encoding="utf-8")
LIFE = (ROOT / "docs" / "life-of-a-run.md").read_text(encoding="utf-8")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(info: str) -> list[tuple[str, str]]:
    """(page and line, body) of each fenced block whose info string begins so."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(rf"^```{re.escape(info)}[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            found.append((f"{name_of(page)}:{text.count(chr(10), 0, match.start()) + 1}", match[1]))
    return found


@pytest.mark.parametrize(("where", "program"), blocks("python run"), ids=lambda value: value.partition("\n")[0])
def test_a_program_prints_what_its_comments_say(
    where: str, program: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(program, where, "exec", dont_inherit=True), {"__name__": "example"})
    assert capsys.readouterr().out.splitlines() == re.findall(r"# => (.*)", program)


def test_readme_has_a_program_that_is_run() -> None:
    assert any(where.startswith("README.md") for where, _ in blocks("python run"))


@pytest.mark.parametrize(("where", "excerpt"), blocks("yaml excerpt="), ids=lambda value: value.partition("\n")[0])
def test_an_excerpt_is_in_its_file(where: str, excerpt: str) -> None:
    page, line = where.split(":")
    opening = (ROOT / page).read_text(encoding="utf-8").splitlines()[int(line) - 1]
    assert excerpt in (ROOT / opening.partition("excerpt=")[2]).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_link_within_the_project_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_nothing_promises_too_much_or_names_the_wrong_package(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert NOT_SAID.findall(text) == []
    assert FOREIGN_INSTALL.findall(text) == []


def test_the_gate_installs_and_runs_the_tests_as_the_readme_says() -> None:
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert ".venv/bin/pip install -q -e '.[dev]' && .venv/bin/python -m pytest -n 2\n" in README
    assert "-e '.[dev,docs,servers]' ||" in gate
    assert 'step "tests" python -m pytest -n 2\n' in gate


def test_the_step_for_ci_accepts_the_workflows_of_the_repository(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    (command,) = re.findall(r"run: stemflow (validate .*)", README)
    assert main(command.split()) == 0
    assert capsys.readouterr().out == ""


def test_every_command_of_the_readme_exists(capsys: pytest.CaptureFixture[str]) -> None:
    named = set(re.findall(r"(?:^|`)stemflow ([a-z]+)", README, re.MULTILINE))
    for command in sorted(named):
        assert main([command, "--help"]) == 0, command
    assert {"runs", "show", "cancel", "resume", "rerun"} <= named
    capsys.readouterr()


def test_every_decision_is_in_the_index_and_has_its_four_parts() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = sorted((ROOT / "docs" / "adr").glob("*.md"))
    numbers = [int(page.name[:4]) for page in pages]
    assert numbers == sorted(set(numbers))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Weighed", "Consequences"]
        title = text.splitlines()[0].removeprefix("# ")
        assert f"* [{title}](adr/{page.name})\n" in index


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_module_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(r"`(?:stemflow/)?(\w+(?:/\w+)*/\w+\.(?:py|json))`", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / "stemflow" / name).exists() and not (ROOT / name).exists()] == []


def test_the_plan_of_the_order_is_as_its_page_describes() -> None:
    flow = parse_workflow((ROOT / "workflows" / "order.yaml").read_text(encoding="utf-8"), "order.yaml").workflow
    assert flow is not None
    plan = compile_plan(flow.body, lambda _: Options(), outputs=flow.outputs, compensate_on=flow.compensate_on)
    root = plan.nodes[0]
    told = {
        (source, target, kind)
        for target, edges in zip(root.names, root.edges, strict=True)
        for source, kind in ((root.names[edge.source], edge.kind) for edge in edges)
    }
    data = {("validate", "stock"), ("validate", "pay"), ("stock", "pay"), ("pay", "ship")}
    assert told == {(*pair, "data") for pair in data} | {("ship", "notify", "order"), ("ship", "notify", "optional")}
    assert [f"`{source} → {target}`" for source, target, _ in told if f"`{source} → {target}`" not in LIFE] == []
    assert len(plan.nodes) == 16 and "a flat list of sixteen nodes" in LIFE
    assert root.hooks[0].node == 12 and "The last four are the undo plan" in LIFE


def test_every_public_name_is_loaded_from_its_home() -> None:
    assert set(stemflow.__all__) == set(stemflow._HOME_OF)
    assert all(getattr(stemflow, name).__name__ == name for name in stemflow.__all__)
