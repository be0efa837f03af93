"""URLs of stores on Redis: what they may contain, and how others are refused."""

import re
from typing import Any
from urllib.parse import quote

import pytest

from stemflow.store.base import StoreError
from stemflow.store.open import NEEDLESS, open_store
from stemflow.store.redis.url import RedisLocation, parse_url
from stemflow.testing.contract.world import ManualClock


@pytest.mark.parametrize("parameter", ["no_such_thing=1", "partitions=none", "partitions=0", "partitions=1000"])
def test_a_parameter_that_nothing_reads_is_refused(parameter: str) -> None:
    with pytest.raises(StoreError, match=parameter.partition("=")[0]):
        open_store(f"redis://localhost:6379/0?{parameter}", ManualClock())


def test_a_value_that_cannot_be_read_is_refused_without_showing_the_password() -> None:
    with pytest.raises(StoreError, match="socket_timeout") as caught:
        open_store("redis://me:secret@localhost:6379/0?socket_timeout=soon", ManualClock())
    assert "secret" not in str(caught.value)


def test_a_prefix_and_parameters_of_the_client_are_taken() -> None:
    store = open_store("redis://localhost:6379/0?prefix=shop&client_name=me", ManualClock())
    assert store.url == "redis://localhost:6379/0?prefix=shop&client_name=me"


def test_sentinels_are_read_with_the_service_and_their_own_login() -> None:
    place = parse_url("redis+sentinel://me:secret@a:1,[::1]:2,c/main/3?prefix=shop&sentinel_password=other")
    assert place == RedisLocation(
        "redis://me:secret@a:1/3",
        "redis+sentinel://me:***@a:1,[::1]:2,c/main/3?prefix=shop&sentinel_password=***",
        "shop",
        1,
        "sentinel",
        (("a", 1), ("::1", 2), ("c", 26379)),
        "main",
        (("password", "other"),),
    )


def test_the_nodes_of_a_cluster_are_read_with_the_number_of_partitions() -> None:
    place = parse_url("rediss+cluster://:secret@a:1,b/?partitions=12&ssl_ca_certs=/x.pem")
    assert (place.kind, place.partitions, place.hosts) == ("cluster", 12, (("a", 1), ("b", 6379)))
    assert place.url == "rediss://:secret@a:1?ssl_ca_certs=%2Fx.pem"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis:localhost", "expected redis://HOST:PORT/DB"),
        ("redis://a:1,b:2/0", "expected one server, got a:1,b:2"),
        ("redis+ring://a:1", "expected redis://HOST:PORT/DB"),
        ("redis+sentinel://a:1,b:2", "expected the name by which the sentinels know the primary"),
        ("redis+sentinel://a:1/main/first", "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB"),
        ("redis+sentinel://a:1,,b/main", "expected HOST or HOST:PORT, got ''"),
        ("redis+cluster://a:port", "expected HOST or HOST:PORT, got 'a:port'; write redis+cluster://HOST:PORT"),
        ("redis+cluster://a:70000", "expected HOST or HOST:PORT, got 'a:70000'"),
        ("redis://a:0/1", "expected HOST or HOST:PORT, got 'a:0'"),
        ("sqlite:a\0b.db", "expected text without control characters and lone surrogates, got U+0000 at character 9"),
        ("sqlite:\udcff.db", "got U+DCFF at character 8"),
        ("redis://me:a\nb@c/0", "got U+000A at character 13"),
        (5, "expected text, got int"),
        (None, "expected text, got NoneType"),
        (b"memory:", "expected text, got bytes"),
        ("redis+cluster://a:1/2", "expected no database"),
    ],
)
def test_a_url_of_another_form_is_refused_with_the_form_that_is_expected(url: Any, told: str) -> None:
    with pytest.raises(StoreError) as caught:
        open_store(url, ManualClock())
    assert told in str(caught.value)


@pytest.mark.parametrize("scheme", ["valkey", "valkeys", "valkey+sentinel", "valkeys+cluster"])
def test_valkey_is_another_word_for_redis(scheme: str) -> None:
    place = parse_url(f"{scheme}://a:1{'/main/3' if 'sentinel' in scheme else ''}?prefix=shop")
    assert place.url.partition(":")[0] == ("rediss" if scheme.startswith("valkeys") else "redis")
    assert place.name == "shop"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://localhost:6379/billing", "expected the number of a database after the host, got '/billing'"),
        ("redis://localhost:6379/1/x", "expected the number of a database after the host, got '/1/x'"),
        ("redis://localhost:port/1", "expected HOST or HOST:PORT"),
        ("redis:///1", "expected HOST or HOST:PORT"),
        ("redis://localhost/1?db=2", "expected one database"),
        ("redis://localhost/1?prefix=a&prefix=b", "expected each parameter once"),
        ("redis://localhost/1#shop", "expected redis://HOST:PORT/DB"),
        ("valkey://localhost/shop", "write valkey://HOST:PORT/DB"),
        ("sqlite://runs.db", "expected a path, got a host; write sqlite:runs.db"),
        ("sqlite:runs.db?mode=ro", "expected ?synchronous=full or normal, got ?mode=ro"),
        ("sqlite:runs.db?synchronous=off", "synchronous: expected full or normal, got 'off'"),
    ],
)
def test_a_part_that_nothing_reads_is_refused(url: str, told: str) -> None:
    with pytest.raises(StoreError) as caught:
        open_store(url, ManualClock())
    assert told in str(caught.value)


SECRETS = (
    "F6tM/t41SZ/c57sr2KFt0=",
    "begin#finish",
    "begin?finish",
    "[begin]finish",
    "be/gin@fin#ish",
    "p3r%c3nt#x",
    "50%",
)


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("scheme", ["redis", "valkeys+cluster", "redis+sentinel", "reddis"])
def test_a_password_that_ends_the_login_is_refused_and_no_part_of_it_is_shown(scheme: str, secret: str) -> None:
    with pytest.raises(StoreError) as caught:
        open_store(f"{scheme}://:{secret}@localhost:6379/0", ManualClock())
    words = re.split(r"[/@#?\[\]%]", secret)
    assert not [word for word in words if len(word) > 2 and word in str(caught.value)]
    if scheme != "reddis":
        assert "percent-encoded" in str(caught.value)


@pytest.mark.parametrize("secret", SECRETS)
def test_a_password_that_is_percent_encoded_is_taken_and_not_shown(secret: str) -> None:
    encoded = quote(secret, safe="")
    place = parse_url(f"redis://me:{encoded}@a:1/0?sentinel_password={encoded}&ssl_password={encoded}")
    assert f":{encoded}@" in place.url
    assert place.shown == "redis://me:***@a:1/0?sentinel_password=***&ssl_password=***"
    assert parse_url(f"redis://{encoded}@a:1").shown == "redis://***@a:1"


@pytest.mark.parametrize("name", NEEDLESS)
@pytest.mark.parametrize("url", ["redis://me:secret@localhost/0", "sqlite:x.db", "memory:"])
def test_parameters_of_other_engines_are_refused_with_the_reason(url: str, name: str) -> None:
    with pytest.raises(StoreError, match=f"{name}: expected no such parameter: ") as caught:
        open_store(f"{url}?{name}=5", ManualClock())
    assert NEEDLESS[name] in str(caught.value)
    assert "secret" not in str(caught.value)
