"""What a user of the server must be allowed to do, as rules of an ACL file."""

from __future__ import annotations

from typing import Final

from stemflow.store.redis.url import RedisLocation

CONNECTION: Final = (
    "ping", "select", "info", "eval", "evalsha", "publish", "pubsub|numsub", "subscribe", "unsubscribe",
)  # fmt: skip
DATA: Final = (
    "del", "exists", "get", "incr", "mget", "mset", "set", "setnx", "setrange", "pexpire", "pttl", "time",
    "hdel", "hget", "hgetall", "hkeys", "hlen", "hmget", "hset", "hsetnx",
    "lindex", "llen", "lpos", "lpush", "lrange", "lrem", "lset", "ltrim", "rpush",
    "sadd", "sismember", "smembers", "srem",
    "zadd", "zcard", "zcount", "zrange", "zrangebyscore", "zrem", "zremrangebyscore", "zscore",
)  # fmt: skip
"""What scripts call, and what is called outside them."""
DOCTOR: Final = ("config|get", "dbsize")
"""What `stemflow doctor` asks beyond that; where it is refused, it says what it could not find out."""
CLUSTER: Final = ("cluster|slots",)
"""Commands for the nodes of a cluster: which node owns which slot."""

USERS: Final = {"stemflow-worker": (), "stemflow-producer": (), "stemflow-doctor": DOCTOR}


def rules(name: str, more: tuple[str, ...] = ()) -> str:
    """The rights of a user of the store `name`: its keys, channels and commands."""
    allowed = " ".join(f"+{command}" for command in (*CONNECTION, *DATA, *more))
    return f"resetkeys ~{{{name}:*}}* resetchannels &{name}:* -@all {allowed}"


def acl_file(place: RedisLocation) -> str:
    """The lines of an ACL file, a user each. None has a password yet, so none can log in."""
    route = CLUSTER if place.kind == "cluster" else ()
    lines = [f"user {user} on resetpass {rules(place.name, (*route, *more))}" for user, more in USERS.items()]
    return "\n".join(lines)
