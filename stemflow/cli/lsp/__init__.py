"""`stemflow lsp`: a language server for workflow files."""

from stemflow.cli.lsp.server import main

__all__ = ["main"]
