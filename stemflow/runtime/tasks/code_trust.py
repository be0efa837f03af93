"""Which files code may be loaded from: those that only their user, or root, can change."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from stemflow.errors import StemflowError

TRUSTED_USERS = "STEMFLOW_TRUSTED_USERS"
"""Environment variable: names or ids of further users whose files may be loaded, separated by commas."""


class Untrusted(StemflowError):
    """A file or folder can be changed by somebody else; the message says how, and what to do."""


def require_trusted(path: Path) -> None:
    """Raise Untrusted unless `path` and its folder belong to this user or root and nobody else may write to them.

    A folder in which everybody may make files, but change only their own (`/tmp`), is accepted; a file in it has to
    belong to this user or root.
    """
    if os.name != "posix":
        return
    for one in (path, path.parent):
        try:
            found = os.stat(one)
        except OSError:
            continue
        _require_owner(one, found)
        _require_unwritable(one, found)


def _require_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in {0, os.geteuid(), *_ids(os.environ.get(TRUSTED_USERS, "").split(","))}:
        owner = _user(found.st_uid)
        raise Untrusted(
            f"{path}: expected code of this user or root, got a path that belongs to {owner}; `chown` it, or set "
            f"{TRUSTED_USERS}={owner} if that user may run code as you"
        )


def _require_unwritable(path: Path, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:
        return
    if found.st_mode & stat.S_IWOTH:
        raise Untrusted(
            f"{path}: expected tasks that not everybody may change, got a path open to all; `chmod o-w {path}`"
        )
    if found.st_mode & stat.S_IWGRP and found.st_gid != 0 and _group(found.st_gid) != _user(found.st_uid):
        raise Untrusted(
            f"{path}: expected tasks that only their owner may change, got a path that the group "
            f"{_group(found.st_gid)} may write; `chmod g-w {path}`"
        )


def _ids(names: Iterable[str]) -> Iterable[int]:
    import pwd  # noqa: PLC0415 - exists on POSIX alone

    for name in filter(None, (one.strip() for one in names)):
        if name.isdecimal():
            yield int(name)
            continue
        try:
            yield pwd.getpwnam(name).pw_uid
        except KeyError:
            raise Untrusted(f"{TRUSTED_USERS}: expected names or ids of users, got {name!r}; correct it") from None


def _user(uid: int) -> str:
    import pwd  # noqa: PLC0415

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    import grp  # noqa: PLC0415

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
