"""Hooks of the documentation site (mkdocs.yml): the Markdown of docs/ is written for the repository first.

Links that leave docs/ are checked; they lead to the repository if `repo_url` is set, else only their text is kept.
Info strings of code blocks are reduced to the language, since the words after it are for the tests that run the blocks.
A list gets the blank line before it that Python-Markdown needs and GitHub does not.
CHANGELOG.md and CONTRIBUTING.md of the repository become pages, and each decision is added to the navigation.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
FROM_ROOT = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(\s*)(`{3,})(\S+)?(.*)$")
ITEM = re.compile(r"\s*([*+-]|\d+\.) ")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, page in FROM_ROOT.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    decisions = sorted(file.src_uri for file in files.documentation_pages() if file.src_uri.startswith("adr/"))
    assert config.nav is not None
    config.nav.append({"Decisions": decisions})
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    # Where the page lies in the repository: a page from the top keeps its links relative to the top.
    source = {page: name for name, page in FROM_ROOT.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    out: list[str] = []
    fence = ""
    for line in markdown.split("\n"):
        opening = FENCE.match(line)
        if fence:
            fence = "" if line.strip() == fence else fence
        elif opening:
            fence = opening[2]
            title = re.search(r"title=(\S+)", opening[4])
            line = opening[1] + opening[2] + (opening[3] or "") + (f' title="{title[1]}"' if title else "")
        else:
            if ITEM.match(line) and out and out[-1].strip() and not ITEM.match(out[-1]) and out[-1][0] not in " |#":
                out.append("")
            line = LINK.sub(lambda link: _link(link, source, page, config), line)
        out.append(line)
    return "\n".join(out)


def _link(link: re.Match[str], source: str, page: Page, config: MkDocsConfig) -> str:
    text, target = link[1], link[2]
    if re.match(r"[a-z]+:|#", target):
        return link[0]
    path, _, anchor = target.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if not (ROOT / path).exists():
        raise PluginError(f"{source}: expected a file of the repository, got the link {target}")
    inside = FROM_ROOT.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
    if inside is not None:
        relative = posixpath.relpath(inside, posixpath.dirname(page.file.src_uri) or ".")
        return f"[{text}]({relative}{'#' + anchor if anchor else ''})"
    if config.repo_url:
        return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{path}{'#' + anchor if anchor else ''})"
    return text
