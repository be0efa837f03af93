"""`stemflow validate` in CI: formats, folders, standard input, changed files, settings."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from jsonschema import Draft7Validator

from tests.cli.world import Cli

ROOT = Path(__file__).parents[2]
WRONG = 'stemflow: "1"\nname: wrong\nsteps:\n  a: {needs: [b], task: say}\n  c: {task: say, when: 1 > 2}\n'
FORMATS = ("text", "json", "jsonl", "sarif", "github", "gitlab", "junit")


@pytest.fixture
def wrong(project: Path) -> Path:
    (project / "sub").mkdir()
    (project / "sub" / "wrong.yaml").write_text(WRONG)
    return project / "sub" / "wrong.yaml"


def test_a_file_that_is_missing_hides_no_other(wrong: Path, cli: Cli) -> None:
    (wrong.parent / "latin.yaml").write_bytes(b"name: \xe9\n")
    ran = cli("validate", "nothing.yaml", "sub/latin.yaml", "sub/wrong.yaml")
    assert ran.code == 2
    assert re.findall(r"SF\d{3}", ran.out) == ["SF005", "SF005", "SF101", "SF209"]
    assert ran.err == "3 files: 3 errors, 1 warning\n"


def test_sarif_follows_its_schema(wrong: Path, cli: Cli) -> None:
    # Given the published schema of SARIF 2.1.0
    schema = json.loads((Path(__file__).parent / "sarif-schema-2.1.0.json").read_text())
    # When files with findings, without a place and without any are reported
    log = json.loads(cli("validate", "sub", "hello.yaml", "nothing.yaml", "--format", "sarif").out)
    # Then the log follows it, and names rule, file and region
    Draft7Validator(schema).validate(log)
    (run,) = log["runs"]
    first = next(one for one in run["results"] if one["ruleId"] == "SF101")
    assert run["tool"]["driver"]["rules"][first["ruleIndex"]]["id"] == "SF101"
    place = first["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "sub/wrong.yaml"
    assert place["region"] == {"startLine": 4, "startColumn": 15, "endColumn": 16}


def test_annotations_of_github_have_relative_paths(wrong: Path, cli: Cli) -> None:
    ran = cli("validate", str(wrong), "--format", "github")
    assert ran.out.splitlines()[0].startswith("::error file=sub/wrong.yaml,line=4,col=15,endColumn=16,title=SF101::")


def test_json_lines_are_one_object_a_line(wrong: Path, cli: Cli) -> None:
    ran = cli("validate", "sub", "--format", "jsonl")
    assert [json.loads(line)["code"] for line in ran.out.splitlines()] == ["SF101", "SF209"]


def test_the_report_for_gitlab_has_fingerprints_that_survive_a_new_line_above(wrong: Path, cli: Cli) -> None:
    before = json.loads(cli("validate", "sub", "--format", "gitlab").out)
    wrong.write_text("# a comment\n" + WRONG)
    after = json.loads(cli("validate", "sub", "--format", "gitlab").out)
    assert [one["location"]["lines"]["begin"] for one in before] == [4, 5]
    assert [one["location"]["lines"]["begin"] for one in after] == [5, 6]
    assert [one["fingerprint"] for one in before] == [one["fingerprint"] for one in after]
    assert [one["severity"] for one in before] == ["major", "minor"]
    assert len({one["fingerprint"] for one in before}) == 2


def test_junit_has_a_case_for_each_file(wrong: Path, cli: Cli) -> None:
    suite = ElementTree.fromstring(cli("validate", "sub", "hello.yaml", "--format", "junit").out)
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    first, second = suite.findall("testcase")
    failure = first.find("failure")
    assert failure is not None and failure.get("type") == "SF101"
    assert "SF209" in (first.findtext("system-out") or "")
    assert second.find("failure") is None


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_says_nothing_wrong_of_a_good_file(form: str, project: Path, cli: Cli) -> None:
    ran = cli("validate", "hello.yaml", "--format", form)
    assert ran.code == 0
    assert "SF" not in ran.out


def test_colours_are_for_terminals(wrong: Path, cli: Cli) -> None:
    assert "\x1b" not in cli("validate", "sub").out
    assert "\x1b[1;31merror SF101\x1b[0m" in cli("validate", "sub", "--color", "always").out


def test_a_file_is_read_from_standard_input(project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(WRONG.encode())))
    ran = cli("validate", "-")
    assert ran.code == 2
    assert ran.out.startswith("<stdin>:4:15: error SF101")


def test_only_workflow_files_of_a_folder_are_checked(wrong: Path, cli: Cli) -> None:
    # Given other YAML files in the folder
    (wrong.parent / "docker-compose.yml").write_text("services: {web: {image: x}}\n")
    (wrong.parent / "values.yaml").write_text("chart:\n  stemflow: 1\n")
    # And a workflow whose key is quoted, and one that only names the schema
    (wrong.parent / "quoted.yaml").write_text('"stemflow": "1"\nname: q\nsteps: {a: {task: say}}\n')
    (wrong.parent / "named.yaml").write_text("# yaml-language-server: $schema=x/workflow.v1.schema.json\nname: q\n")
    # Then those are left out and these are not
    assert cli("validate", "sub").err.startswith("3 files: ")
    # But a file that is named is always checked, and a folder without any is an error
    assert "docker-compose.yml" in cli("validate", "sub/docker-compose.yml").out
    (wrong.parent / "empty").mkdir()
    assert cli("validate", "sub/empty").code == 3


@pytest.mark.parametrize(
    ("options", "files"),
    [
        (("--exclude", "sub"), 2),
        (("--exclude", "wrong.yaml"), 2),
        (("--exclude", "sub/*"), 2),
        (("--include", "h*.yaml"), 1),
        (("--include", "sub", "--include", "hello.yaml"), 2),
    ],
)
def test_patterns_choose_the_files_of_a_folder(options: tuple[str, ...], files: int, wrong: Path, cli: Cli) -> None:
    assert cli("validate", ".", *options).err.startswith(f"{files} file")


@pytest.mark.parametrize(
    ("options", "codes", "exit_code"),
    [
        ((), ["SF101", "SF209"], 2),
        (("--ignore", "SF101"), ["SF209"], 0),
        (("--ignore", "SF101", "--strict"), ["SF209"], 2),
        (("--select", "SF2"), ["SF209"], 0),
        (("--select", "SF1,SF7"), ["SF101"], 2),
        (("--ignore", "sf1,SF2"), [], 0),
    ],
)
def test_findings_are_selected(
    options: tuple[str, ...], codes: list[str], exit_code: int, wrong: Path, cli: Cli
) -> None:
    ran = cli("validate", "sub", *options)
    assert re.findall(r"SF\d{3}", ran.out) == codes
    assert ran.code == exit_code


def test_what_stops_a_file_from_being_read_is_always_reported(wrong: Path, cli: Cli) -> None:
    wrong.write_text(WRONG + "  d: [\n")
    assert "SF001" in cli("validate", "sub", "--select", "SF7").out
    assert cli("validate", "sub", "--ignore", "SF0").code == 2


@pytest.mark.parametrize("word", ["SF9", "S", "nonsense"])
def test_a_code_that_does_not_exist_is_wrong_usage(word: str, wrong: Path, cli: Cli) -> None:
    ran = cli("validate", "sub", "--ignore", word)
    assert ran.code == 3
    assert "`stemflow explain` lists all" in ran.err


def test_settings_are_read_from_pyproject(wrong: Path, cli: Cli) -> None:
    settings = wrong.parents[1] / "pyproject.toml"
    settings.write_text('[tool.stemflow.validate]\nexclude = ["hello.yaml"]\nignore = ["SF209"]\n')
    ran = cli("validate", ".")
    assert (re.findall(r"SF\d{3}", ran.out), ran.err) == (["SF101"], "2 files: 1 error\n")
    per_path = '[tool.stemflow.validate.per-path-ignores]\n"sub/*" = ["SF1"]\n'
    settings.write_text(f"[tool.stemflow.validate]\nstrict = true\n{per_path}")
    ran = cli("validate", ".")
    assert (re.findall(r"SF\d{3}", ran.out), ran.code) == (["SF209"], 2)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("exlcude = []", "there is no key 'exlcude'"),
        ("exclude = 3", "expected a list of texts"),
        ("strict = 1", "expected true or false"),
        ('select = ["SF9"]', "expected codes"),
        ("per-path-ignores = 3", "expected a table"),
    ],
)
def test_settings_that_cannot_be_used_are_an_error(table: str, said: str, wrong: Path, cli: Cli) -> None:
    (wrong.parents[1] / "pyproject.toml").write_text(f"[tool.stemflow.validate]\n{table}\n")
    ran = cli("validate", ".")
    assert ran.code == 3
    assert said in ran.err


def test_only_changed_files_are_checked(wrong: Path, cli: Cli) -> None:
    # Given a repository in which everything is committed
    def git(*words: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *identity, *words], cwd=wrong.parents[1], check=True, capture_output=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "all")
    # Then nothing has changed
    assert cli("validate", ".", "--changed-since", "HEAD").err == "0 files: nothing to report\n"
    # And what is changed or new since is checked
    (wrong.parents[1] / "hello.yaml").write_text(WRONG)
    (wrong.parent / "new.yaml").write_text(WRONG)
    assert cli("validate", ".", "--changed-since", "HEAD").err == "2 files: 2 errors, 2 warnings\n"
    # And a revision that does not exist is wrong usage
    assert cli("validate", ".", "--changed-since", "nope").code == 3


def test_the_problem_matcher_reads_the_text(wrong: Path, cli: Cli) -> None:
    (matcher,) = json.loads((ROOT / "integrations" / "problem-matcher.json").read_text())["problemMatcher"]
    found = re.search(matcher["pattern"][0]["regexp"], cli("validate", "sub").out, re.MULTILINE)
    assert found is not None
    assert found.groups()[:5] == ("sub/wrong.yaml", "4", "15", "error", "SF101")


@pytest.mark.parametrize("file", ["action.yml", ".pre-commit-hooks.yaml", "integrations/gitlab-ci.yml"])
def test_what_is_given_to_ci_runs_validate_with_options_that_exist(file: str, wrong: Path, cli: Cli) -> None:
    # Given a file for a CI system
    text = (ROOT / file).read_text()
    assert yaml.safe_load(text)
    # When the options of the command in it are given
    line = re.search(r"stemflow validate( --format \w+)?", text)
    assert line is not None
    # Then the command knows them
    assert cli(*line[0].split()[1:], "hello.yaml").code == 0
