"""`stemflow acl`: users of a server with no more rights than they need."""

from __future__ import annotations

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE
from stemflow.store.redis.acl import acl_file
from stemflow.store.redis.url import parse_url


def main(arguments: Arguments) -> int:
    """Print the lines of an ACL file."""
    print(acl_file(parse_url(arguments.store)))
    return FINE
