"""The Lua scripts: read from files, with what they share put in, and made fit for the server's version."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

from msgspec import Struct

from stemflow.store.redis.layout import KeyFamily, generated

INCLUDE: Final = "--@include "
SHEBANGS_SINCE: Final = (7, 0)
ALLOW_OOM: Final = "#!lua flags=allow-oom"
FREE_FIRST: Final = f"redis.call('DEL', KEYS[1] .. '{KeyFamily.push_count.value.decode()}')"
"""Below 7.0 a script may write in want of memory only if its first write frees some."""


class Script(Struct, frozen=True):
    """A script as the server is given it, and the digest by which it is called."""

    name: str
    text: bytes
    sha: bytes


@cache
def source_of(name: str) -> str:
    """The text of `lua/{name}.lua`, with `lua/shared/*.lua` for `--@include` lines and values for names of `layout`."""
    folder = files("stemflow.store.redis") / "lua"
    lines = []
    for line in (folder / f"{name}.lua").read_text("utf-8").splitlines():
        if line.startswith(INCLUDE):
            shared = folder / "shared" / f"{line.removeprefix(INCLUDE).strip()}.lua"
            lines += shared.read_text("utf-8").splitlines()
        else:
            lines.append(line)
    return generated("\n".join(lines))


@cache
def script(name: str, version: tuple[int, int]) -> Script:
    """A script by its name. `submit` is `exchange` for new work, which a server short of memory refuses whole."""
    text = source_of("exchange" if name == "submit" else name)
    shebang, _, rest = text.partition("\n")
    if name == "submit":
        shebang = "#!lua"
    if version < SHEBANGS_SINCE:
        shebang = FREE_FIRST if shebang == ALLOW_OOM else ""
    made = f"{shebang}\n{rest}".encode()
    return Script(name, made, hashlib.sha1(made, usedforsecurity=False).hexdigest().encode())
