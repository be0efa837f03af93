"""The protocol side of the language server: positions, messages, and the documents that are open."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, Refused
from stemflow.cli.lsp.analysis import Completion, Document, Span, Symbol
from stemflow.dsl.fixes import Edit
from stemflow.dsl.layout import CannotFormat, formatted
from stemflow.model.diagnostic import Diagnostic
from stemflow.runtime.catalog.lock import LOCK_NAME, LockedTasks, read_lock
from stemflow.version import __version__

try:
    from lsprotocol import types
    from pygls.lsp.server import LanguageServer
except ModuleNotFoundError:
    types = LanguageServer = None  # type: ignore[assignment,misc]


def main(arguments: Arguments) -> int:
    """Serve on standard input and output until the editor ends it."""
    if LanguageServer is None:
        raise Refused("lsp: expected the package pygls, found none; install stemflow-engine[lsp]")
    known: Collection[str] | None = None
    if arguments.tasks:
        from stemflow.runtime.tasks.discovery import find_tasks

        known = find_tasks(arguments.tasks, None)
    server(known).start_io()
    sys.stdout = sys.stderr  # the server has closed its own, and the command flushes what there is
    return FINE


class Documents:
    """The open documents by URI, with the tasks of the nearest lock file or of `--tasks`."""

    def __init__(self, known: Collection[str] | None) -> None:
        self.known = known
        self._open: dict[str, Document] = {}

    def update(self, uri: str, text: str) -> Document:
        """A new version of a document."""
        found = Document(text, path_of(uri).name, self._tasks(uri), self._open.get(uri), path_of(uri))
        self._open[uri] = found
        return found

    def get(self, uri: str) -> Document:
        """The document; an empty one if it is not open."""
        return self._open.get(uri) or self.update(uri, "")

    def close(self, uri: str) -> None:
        """Forget a document."""
        self._open.pop(uri, None)

    def _tasks(self, uri: str) -> Collection[str] | None:
        if self.known is not None:
            return self.known
        folder = path_of(uri).parent
        lock = next((one / LOCK_NAME for one in (folder, *folder.parents) if (one / LOCK_NAME).is_file()), None)
        return None if lock is None else read_lock(lock)


def path_of(uri: str) -> Path:
    """The file of a URI."""
    return Path(unquote(urlparse(uri).path))


def function_place(task: str, tasks: Collection[str] | None, folder: Path) -> tuple[Path, int] | None:
    """The file and line (from 0) of the Python function of a task."""
    found = getattr(tasks, "get", lambda name: None)(task)
    code = getattr(getattr(found, "function", None), "__code__", None)
    if code is not None:
        return Path(code.co_filename), code.co_firstlineno - 1
    if not isinstance(tasks, LockedTasks) or task not in tasks:
        return None
    module, _, qualname = tasks.tasks[task].function.partition(":")
    path = _module_path(module, folder)
    if path is None:
        return None
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except (OSError, ValueError, SyntaxError):
        return None
    names = [part for part in qualname.split(".") if part != "<locals>"]
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == names[-1]:
            return path, node.lineno - 1
    return None


def _module_path(module: str, folder: Path) -> Path | None:
    """The source of a module in the folder of the file or one above it, else of an installed one; nothing is run."""
    relative = Path(*module.split("."))
    for one in (folder, *folder.parents):
        for name in (relative.with_suffix(".py"), relative / "__init__.py"):
            if (one / name).is_file():
                return one / name
    top = importlib.util.find_spec(module) if "." not in module and module not in sys.builtin_module_names else None
    return Path(top.origin) if top is not None and top.origin not in (None, "built-in", "frozen") else None


def server(known: Collection[str] | None) -> Any:
    """The language server with its features."""
    made = LanguageServer("stemflow", __version__)
    documents = Documents(known)

    def publish(uri: str, text: str, version: int | None) -> None:
        document = documents.update(uri, text)
        lines = text.split("\n")
        found = [_diagnostic(one, lines) for one in document.findings()]
        params = types.PublishDiagnosticsParams(uri=uri, version=version, diagnostics=found)
        made.text_document_publish_diagnostics(params)

    @made.feature(types.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: types.DidOpenTextDocumentParams) -> None:
        publish(params.text_document.uri, params.text_document.text, params.text_document.version)

    @made.feature(types.TEXT_DOCUMENT_DID_CHANGE)
    def changed(params: types.DidChangeTextDocumentParams) -> None:
        document = made.workspace.get_text_document(params.text_document.uri)
        publish(document.uri, document.source, params.text_document.version)

    @made.feature(types.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: types.DidCloseTextDocumentParams) -> None:
        documents.close(params.text_document.uri)

    def at(params: Any) -> tuple[Document, int, int]:
        document = documents.get(params.text_document.uri)
        line = params.position.line
        return document, line, _characters(document.text, line, params.position.character)

    @made.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions(trigger_characters=[".", "{", ":", " "]))
    def complete(params: types.CompletionParams) -> list[types.CompletionItem]:
        document, line, column = at(params)
        return [_item(one) for one in document.completions(line, column)]

    @made.feature(types.TEXT_DOCUMENT_HOVER)
    def hover(params: types.HoverParams) -> types.Hover | None:
        document, line, column = at(params)
        text = document.hover(line, column)
        return None if text is None else types.Hover(types.MarkupContent(types.MarkupKind.Markdown, text))

    @made.feature(types.TEXT_DOCUMENT_DEFINITION)
    def definition(params: types.DefinitionParams) -> types.Location | None:
        document, line, column = at(params)
        uri = params.text_document.uri
        task = document.task_at(line, column)
        if task is not None:
            place = function_place(task, document.tasks, path_of(uri).parent)
            start = None if place is None else types.Position(place[1], 0)
            return None if place is None or start is None else types.Location(
                place[0].resolve().as_uri(), types.Range(start, start)
            )
        span = document.definition(line, column)
        return None if span is None else types.Location(uri, _range(span, document.text))

    @made.feature(types.TEXT_DOCUMENT_RENAME)
    def rename(params: types.RenameParams) -> types.WorkspaceEdit | None:
        document, line, column = at(params)
        edits = document.rename(line, column, params.new_name)
        if edits is None:
            return None
        return types.WorkspaceEdit(
            {params.text_document.uri: [types.TextEdit(_range(span, document.text), new) for span, new in edits]}
        )

    @made.feature(types.TEXT_DOCUMENT_DOCUMENT_SYMBOL)
    def symbols(params: types.DocumentSymbolParams) -> list[types.DocumentSymbol]:
        document = documents.get(params.text_document.uri)
        return [_symbol(one, document.text) for one in document.symbols()]

    @made.feature(types.TEXT_DOCUMENT_CODE_ACTION)
    def actions(params: types.CodeActionParams) -> list[types.CodeAction]:
        document, uri = documents.get(params.text_document.uri), params.text_document.uri
        return [
            types.CodeAction(title, types.CodeActionKind.QuickFix, edit=types.WorkspaceEdit(
                {uri: [_text_edit(edit, document.text)]}
            ))
            for title, edit in document.actions(params.range.start.line)
        ]  # fmt: skip

    @made.feature(types.TEXT_DOCUMENT_FORMATTING)
    def layout(params: types.DocumentFormattingParams) -> list[types.TextEdit]:
        text = documents.get(params.text_document.uri).text
        try:
            better = formatted(text)
        except CannotFormat:
            return []
        whole = types.Range(types.Position(0, 0), types.Position(text.count("\n") + 1, 0))
        return [] if better == text else [types.TextEdit(whole, better)]

    return made


# -- positions: the protocol counts UTF-16 units, this package characters


def _units(line: str, column: int) -> int:
    return len(line[:column].encode("utf-16-le", "surrogatepass")) // 2


def _characters(text: str, line: int, units: int) -> int:
    lines = text.split("\n")
    encoded = (lines[line] if line < len(lines) else "").encode("utf-16-le", "surrogatepass")
    return len(encoded[: 2 * units].decode("utf-16-le", "ignore"))


def _range(span: Span, text: str) -> Any:
    line = text.split("\n")[span.line]
    start, end = _units(line, span.start), _units(line, span.end)
    return types.Range(types.Position(span.line, start), types.Position(span.line, end))


def _diagnostic(found: Diagnostic, lines: list[str]) -> Any:
    line = max(found.line - 1, 0)
    text = lines[line] if line < len(lines) else ""
    start, end = _units(text, max(found.column - 1, 0)), _units(text, max(found.end_column - 1, 0))
    severity = types.DiagnosticSeverity.Error if found.severity == "error" else types.DiagnosticSeverity.Warning
    message = found.message if found.hint is None else f"{found.message}\n{found.hint}"
    whole = types.Range(types.Position(line, start), types.Position(line, end))
    return types.Diagnostic(whole, message, severity, found.code, source="stemflow")


def _text_edit(edit: Edit, text: str) -> Any:
    if edit.text is None:
        return types.TextEdit(types.Range(types.Position(edit.line, 0), types.Position(edit.line + 1, 0)), "")
    return types.TextEdit(_range(Span(edit.line, edit.start, edit.end), text), edit.text)


def _item(one: Completion) -> Any:
    kinds = {
        "key": types.CompletionItemKind.Property, "value": types.CompletionItemKind.EnumMember,
        "field": types.CompletionItemKind.Field, "function": types.CompletionItemKind.Function,
        "step": types.CompletionItemKind.Reference, "task": types.CompletionItemKind.Function,
    }  # fmt: skip
    return types.CompletionItem(one.label, kind=kinds[one.kind], detail=one.detail or None)


def _symbol(one: Symbol, text: str) -> Any:
    own = _range(one.span, text)
    lines = text.split("\n")
    last = min(one.last_line, len(lines) - 1)
    least = own.end.character if last == own.end.line else 0
    end = types.Position(last, max(_units(lines[last], len(lines[last])), least))
    kind = types.SymbolKind.Variable if one.detail == "input" else types.SymbolKind.Function
    children = [_symbol(child, text) for child in one.children]
    whole = types.Range(own.start, end)
    return types.DocumentSymbol(one.name, kind, whole, own, detail=one.detail, children=children)
