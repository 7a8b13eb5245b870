import ssl
from pathlib import Path

import pytest

from tests.certificates import make_certificate
from workers.contract.tls import CertificateError, first_certificate, trusting_only


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """Let two sides talk in memory until both are content; raises what the client says against it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)]
    for _ in range(10):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert sides[0].version() is not None


def server_with(files: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    return context


def test_the_holder_of_the_certificate_is_trusted_whatever_its_name(tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    shake_hands(server_with(files), trusting_only(first_certificate(files[0].read_text())))


def test_another_certificate_of_the_same_name_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    mine, other = make_certificate(tmp_path), make_certificate(tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server_with(other), trusting_only(first_certificate(mine[0].read_text())))


def test_of_a_chain_only_the_first_certificate_is_trusted(tmp_path: Path) -> None:
    mine, signer = make_certificate(tmp_path, "mine"), make_certificate(tmp_path, "signer")
    chain = f"Some words.\n{mine[0].read_text()}{signer[0].read_text()}"
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server_with(signer), trusting_only(first_certificate(chain)))


def test_a_text_without_a_certificate_is_refused() -> None:
    with pytest.raises(CertificateError, match="BEGIN CERTIFICATE"):
        first_certificate("-----BEGIN PRIVATE KEY-----\n")
