"""URLs of the store: which servers, how they are found, and the prefix of its keys."""

from __future__ import annotations

import re
from typing import Final, Literal
from urllib.parse import parse_qsl, urlencode

from msgspec import Struct

from stemflow.store.base import StoreError

Kind = Literal["server", "sentinel", "cluster"]
Host = tuple[str, int]
_FORMS: Final = {
    "redis": "redis://HOST:PORT/DB",
    "rediss": "rediss://HOST:PORT/DB",
    "unix": "unix:///PATH/TO/SOCKET?db=DB",
    "redis+sentinel": "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB",
    "rediss+sentinel": "rediss+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB",
    "redis+cluster": "redis+cluster://HOST:PORT,HOST:PORT",
    "rediss+cluster": "rediss+cluster://HOST:PORT,HOST:PORT",
}
FORMS: Final = _FORMS | {
    scheme.replace("redis", "valkey"): form.replace("redis", "valkey")
    for scheme, form in _FORMS.items()
    if scheme != "unix"
}
"""The schemes, and the form of a URL of each; `valkey` is another word for `redis`."""
MOST: Final = 256
"""Partitions of one store."""
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_URL: Final = re.compile(r"([a-z+]+)://(?:([^/@?#]*)@)?([^/@?#]*)(/[^?#@]*)?(?:\?([^#@]*))?")
_LOGIN: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*")
_SECRET: Final = re.compile(r"password", re.IGNORECASE)
_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]\s]+)(?::(\d{1,5}))?")
_PORTS: Final[dict[Kind, int]] = {"server": 6379, "sentinel": 26379, "cluster": 6379}


class RedisLocation(Struct, frozen=True):
    """Where a store is: `url` for redis-py (of the first host), `shown` without a password, `name` the prefix of its
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
    scheme = url.partition(":")[0]
    found = _URL.fullmatch(url)
    login = None if found is None else found[2]
    if (found is None and "@" in url) or (login is not None and not _LOGIN.fullmatch(login)):
        # Where the password ends cannot be known, so nothing of the URL is shown.
        raise StoreError(
            f"store {masked(url)}: expected a user and a password that are percent-encoded (`/` is %2F, `@` %40, `#` "
            f"%23, `?` %3F, `[` %5B, `%` %25), got characters that end them; write {FORMS.get(scheme, FORMS['redis'])} "
            "with USER:PASSWORD@ before HOST"
        )
    shown = masked(url)
    if found is None or scheme not in FORMS:
        raise StoreError(f"store {shown}: expected {FORMS.get(scheme, FORMS['redis'])}, got something else")
    hosts, path = found[3], found[4] or ""
    given = _parameters(shown, found[5] or "")
    name, partitions = given.pop("prefix", "sf"), _partitions(shown, given.pop("partitions", "1"))
    if not _NAME.fullmatch(name):
        raise StoreError(f"store {shown}: prefix: expected letters, digits, `_`, `.` or `-`, got {name!r}")
    plain, _, how = scheme.replace("valkey", "redis").partition("+")
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
    if plain != "unix":
        _hosts(shown, scheme, "server", hosts)
        _check_database(shown, scheme, path, given)
    return RedisLocation(f"{front}{hosts}{path}{_query(given)}", shown, name, partitions)


def _parameters(shown: str, query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    given = dict(pairs)
    if len(given) < len(pairs):
        raise StoreError(f"store {shown}: expected each parameter once, got {', '.join(name for name, _ in pairs)}")
    return given


def _check_database(shown: str, scheme: str, path: str, given: dict[str, str]) -> None:
    database = path.removeprefix("/")
    if database and not database.isdecimal():
        raise StoreError(
            f"store {shown}: expected the number of a database after the host, got {path!r}; write {FORMS[scheme]}, "
            "and ?prefix=NAME for a name of your own"
        )
    if database and "db" in given:
        raise StoreError(f"store {shown}: expected one database, got {path!r} and ?db={given['db']}; leave one out")


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
        if match is None or not 1 <= int(match[2] or 1) <= 65_535:
            raise StoreError(f"store {shown}: expected HOST or HOST:PORT, got {one!r}; write {FORMS[scheme]}")
        found.append((match[1].strip("[]"), int(match[2] or _PORTS[kind])))
    return tuple(found)


def joined(host: Host) -> str:
    """A host and its port as a URL has them."""
    return f"[{host[0]}]:{host[1]}" if ":" in host[0] else f"{host[0]}:{host[1]}"


def _query(parameters: dict[str, str]) -> str:
    return f"?{urlencode(parameters)}" if parameters else ""


def masked(url: str) -> str:
    """The URL without passwords: a user's name is shown, and of a URL that cannot be read the scheme alone."""
    found = _URL.fullmatch(url)
    if found is None or (found[2] is not None and not _LOGIN.fullmatch(found[2])):
        return f"{url.partition(':')[0]}:***" if "@" in url or _SECRET.search(url) else url
    scheme, login, hosts, path, query = found.groups()
    front = ""
    if login is not None:
        user, colon, _ = login.partition(":")
        front = f"{user}:***@" if colon else "***@"
    shown = [one if not _SECRET.search(one) else f"{one.partition('=')[0]}=***" for one in (query or "").split("&")]
    return f"{scheme}://{front}{hosts}{path or ''}{'?' if query is not None else ''}{'&'.join(shown)}"


EXAMPLE: Final = "redis://localhost:6379/0?prefix=sf"
