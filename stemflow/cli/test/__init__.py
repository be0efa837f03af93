"""`stemflow test`: the test cases of workflow files, run in virtual time with mocks for tasks."""

from stemflow.cli.test.command import main

__all__ = ["main"]
