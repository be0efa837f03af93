"""URLs of the store: which servers, how they are found, and under which name its keys stand."""

from __future__ import annotations

import re
from typing import Final, Literal
from urllib.parse import parse_qsl, urlencode

from msgspec import Struct

from stemflow.store.base import StoreError

Kind = Literal["server", "sentinel", "cluster"]
Host = tuple[str, int]
FORMS: Final = {
    "redis": "redis://HOST:PORT/DB",
    "rediss": "rediss://HOST:PORT/DB",
    "unix": "unix:///PATH/TO/SOCKET?db=DB",
    "redis+sentinel": "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB",
    "rediss+sentinel": "rediss+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB",
    "redis+cluster": "redis+cluster://HOST:PORT,HOST:PORT",
    "rediss+cluster": "rediss+cluster://HOST:PORT,HOST:PORT",
}
"""The schemes, and the form of a URL of each."""
MOST: Final = 256
"""Partitions of one store."""
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_URL: Final = re.compile(r"([a-z+]+)://(?:([^/@]*)@)?([^/@?]*)(/[^?]*)?(?:\?(.*))?", re.DOTALL)
_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]\s]+)(?::(\d{1,5}))?")
_PORTS: Final[dict[Kind, int]] = {"server": 6379, "sentinel": 26379, "cluster": 6379}


class RedisLocation(Struct, frozen=True):
    """Where a store is: `url` for redis-py (of the first host), `shown` without a password, `name` in front of its
    keys. `hosts` are sentinels, or nodes of a cluster to begin with."""

    url: str
    shown: str
    name: str = "sf"
    partitions: int = 1
    kind: Kind = "server"
    hosts: tuple[Host, ...] = ()
    service: str = ""
    sentinel_login: tuple[tuple[str, str], ...] = ()
    """`username` and `password` for the sentinels, where they ask for one."""


def parse_url(url: str) -> RedisLocation:
    """Reads a URL; raises StoreError. `prefix` and `partitions` are the store's, `sentinel_username` and
    `sentinel_password` for the sentinels, other parameters are redis-py's."""
    shown = _shown(url)
    found = _URL.fullmatch(url)
    scheme = url.partition(":")[0]
    if found is None or scheme not in FORMS:
        raise StoreError(f"store {shown}: expected {FORMS.get(scheme, FORMS['redis'])}, got something else")
    login, hosts, path = found[2], found[3], found[4] or ""
    given = dict(parse_qsl(found[5] or "", keep_blank_values=True))
    name, partitions = given.pop("prefix", "sf"), _partitions(shown, given.pop("partitions", "1"))
    if not _NAME.fullmatch(name):
        raise StoreError(f"store {shown}: prefix: expected letters, digits, `_`, `.` or `-`, got {name!r}")
    plain, _, how = scheme.partition("+")
    front = f"{plain}://{login + '@' if login is not None else ''}"
    if how == "sentinel":
        service, database = _service(shown, scheme, path)
        keys = [(one, given.pop(f"sentinel_{one}")) for one in ("username", "password") if f"sentinel_{one}" in given]
        some = _hosts(shown, scheme, "sentinel", hosts)
        url = f"{front}{joined(some[0])}/{database}{_query(given)}"
        return RedisLocation(url, shown, name, partitions, "sentinel", some, service, tuple(keys))
    if how == "cluster":
        if path not in ("", "/", "/0"):
            raise StoreError(
                f"store {shown}: expected no database, a cluster has one alone, got {path!r}; leave it out"
            )
        some = _hosts(shown, scheme, "cluster", hosts)
        return RedisLocation(f"{front}{joined(some[0])}{_query(given)}", shown, name, partitions, "cluster", some)
    if "," in hosts:
        raise StoreError(
            f"store {shown}: expected one server, got {hosts}; "
            f"write {FORMS['redis+sentinel']} or {FORMS['redis+cluster']} for several"
        )
    return RedisLocation(f"{front}{hosts}{path}{_query(given)}", shown, name, partitions)


def _partitions(shown: str, text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise StoreError(f"store {shown}: partitions: expected a number from 1 to {MOST}, got {text!r}")
    return int(text)


def _service(shown: str, scheme: str, path: str) -> tuple[str, int]:
    service, slash, database = path.removeprefix("/").partition("/")
    if not service or (slash and not database.isdecimal()):
        raise StoreError(
            f"store {shown}: expected the name by which the sentinels know the primary, and perhaps a database, "
            f"got {path!r}; write {FORMS[scheme]}"
        )
    return service, int(database or 0)


def _hosts(shown: str, scheme: str, kind: Kind, text: str) -> tuple[Host, ...]:
    found = []
    for one in text.split(","):
        match = _HOST.fullmatch(one)
        if match is None or int(match[2] or 0) > 65_535:
            raise StoreError(f"store {shown}: expected HOST or HOST:PORT, got {one!r}; write {FORMS[scheme]}")
        found.append((match[1].strip("[]"), int(match[2] or _PORTS[kind])))
    return tuple(found)


def joined(host: Host) -> str:
    """A host and its port as they stand in a URL."""
    return f"[{host[0]}]:{host[1]}" if ":" in host[0] else f"{host[0]}:{host[1]}"


def _query(parameters: dict[str, str]) -> str:
    return f"?{urlencode(parameters)}" if parameters else ""


def _shown(url: str) -> str:
    """The URL without its passwords."""
    url = re.sub(r"(//[^/@:]*):[^/@]*@", r"\1:***@", url)
    return re.sub(r"([?&](?:sentinel_)?password=)[^&]*", r"\1***", url)


EXAMPLE: Final = "redis://localhost:6379/0?prefix=sf"
