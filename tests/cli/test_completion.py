"""Completion in a shell: commands, options, codes of findings and run ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.world import Cli


@pytest.fixture
def complete(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Complete the last of the words, as zsh asks for it: type, value and help on a line each."""

    def ask(*words: str):  # type: ignore[no-untyped-def]
        monkeypatch.setenv("COMP_WORDS", " ".join(("stemflow", *words)))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        monkeypatch.setenv("_STEMFLOW_COMPLETE", "zsh_complete")
        ran = cli()
        monkeypatch.delenv("_STEMFLOW_COMPLETE")
        return ran

    return ask


def test_commands_options_and_codes_are_completed(complete: Cli) -> None:
    assert complete("ru").out.splitlines()[1::3] == ["run", "runs"]
    assert complete("dlq", "re").out.splitlines()[1::3] == ["replay"]
    assert complete("run", "--inp").out.splitlines()[1::3] == ["--input", "--inputs"]
    assert complete("explain", "sf10").out.splitlines()[1] == "SF101"


def test_run_ids_of_an_sqlite_store_are_completed_with_their_state_and_name(
    project: Path, cli: Cli, complete: Cli
) -> None:
    # Given a run in the default store
    cli("run", "hello.yaml")
    run = cli("runs", "-q").out.split()[0]
    # When its first characters are completed, the id comes with its state and name
    assert complete("show", run[:4]).out.splitlines()[1:] == [run, "succeeded  hello"]


def test_completion_creates_no_database_and_asks_no_server(
    project: Path, complete: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert complete("show", "0").out.strip() == ""
    assert not (project / ".stemflow").exists()
    monkeypatch.setenv("STEMFLOW_STORE", "redis://127.0.0.1:1/0")
    assert complete("show", "0").out.strip() == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_asks_stemflow(shell: str, cli: Cli) -> None:
    ran = cli("completion", shell)
    assert ran.code == 0
    assert f"_STEMFLOW_COMPLETE={shell}_complete" in ran.out


@pytest.mark.parametrize("command", ["cancel", "show", "resume", "dlq show", "dlq purge"])
@pytest.mark.parametrize("given", ["", " ", "/pay"])
def test_an_empty_run_id_is_refused(command: str, given: str, project: Path, cli: Cli) -> None:
    # Given a store with one run, which an empty prefix would find
    cli("run", "hello.yaml")
    # When the id is empty, nothing is done
    ran = cli(*command.split(), given)
    assert ran.code == 3
    assert "got an empty text" in ran.err


def test_the_store_comes_from_a_file_or_the_environment(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a URL in a file
    (project / "store.url").write_text("sqlite:other.db\n")
    # When a run that fails is started there, the next command names the file
    ran = cli("run", "flaky.yaml", "--store", "@store.url")
    assert "--store @store.url`" in ran.err
    assert (project / "other.db").exists()
    # And with the environment variable no option is repeated
    monkeypatch.setenv("STEMFLOW_STORE", "sqlite:other.db")
    assert len(cli("runs", "-q").out.splitlines()) == 1
    assert "--store" not in cli("run", "flaky.yaml").err
    # A file that cannot be read, or holds something else, is refused
    assert "cannot read nothing.url: No such file" in cli("runs", "--store", "@nothing.url").err
    (project / "store.url").write_text("a\nb\n")
    assert "got 2 lines" in cli("runs", "--store", "@store.url").err
