"""The ways to a server other than plain TCP: TLS, with a certificate made here, and a socket in the file system."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stemflow import Stemflow, TaskRegistry
from stemflow.runtime.clock import SystemClock
from stemflow.store.base import StoreError, StoreUnavailable
from stemflow.store.open import open_store
from stemflow.testing.servers.server import Server, free_port


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stemflow test")])
    now = datetime.datetime.fromtimestamp(SystemClock().now_ms() / 1_000, datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_file, key_file


async def _pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    except OSError:
        pass
    finally:
        sink.close()


@asynccontextmanager
async def tls_before(server: Server, cert_file: Path, key_file: Path) -> AsyncIterator[int]:
    """A port that speaks TLS and passes what it is asked to the server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(_pour(reader, back), _pour(there, writer))

    port = free_port()
    listening = await asyncio.start_server(serve, "127.0.0.1", port, ssl=context)
    try:
        yield port
    finally:
        listening.close()


async def works(url: str) -> None:
    """A run, whose lease is renewed, goes through `url`."""
    registry = TaskRegistry()

    @registry.task("double")
    async def double(x: int) -> int:
        assert app.service is not None
        held = [running.held() for running in app.service.slots.running.values()]
        renewed = await asyncio.to_thread(app.service.renewals.renewer().renew, held)
        assert held and not renewed.gone
        return 2 * x

    async with Stemflow(url, registry) as app:
        assert await asyncio.wait_for(app.run(double.s(21)), 20) == 42


async def test_a_run_goes_over_tls_with_a_certificate_that_is_trusted(one_server: Server, tmp_path: Path) -> None:
    one_server.flush()
    cert_file, key_file = certificate(tmp_path)
    async with tls_before(one_server, cert_file, key_file) as port:
        await works(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={cert_file}")


async def test_a_certificate_that_is_not_trusted_is_refused_at_once(one_server: Server, tmp_path: Path) -> None:
    cert_file, key_file = certificate(tmp_path)
    async with tls_before(one_server, cert_file, key_file) as port:
        store = open_store(f"rediss://127.0.0.1:{port}/0", SystemClock())
        with pytest.raises(StoreError, match=r"certificate.*ssl_ca_certs") as caught:
            await store.open()
        assert not isinstance(caught.value, StoreUnavailable)


async def test_a_run_goes_over_a_socket_in_the_file_system(
    one_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    socket = tmp_path_factory.mktemp("s") / "v.sock"
    with Server(one_server.binary, socket.parent / "data", (f"unixsocket {socket}",)):
        await works(f"unix://{socket}?db=0&prefix=shop")
