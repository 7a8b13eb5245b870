"""TLS between the processes of one server: its runs and its commands trust its own certificate, and no other."""

import re
import ssl

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class CertificateError(ValueError):
    """A text holds no certificate."""


def first_certificate(text: str) -> str:
    """Return the first certificate of a PEM file: the server's own, before those that signed it.

    Raises:
        CertificateError: there is none.
    """
    found = _CERTIFICATE.search(text)
    if found is None:
        raise CertificateError("there is no line -----BEGIN CERTIFICATE-----")
    return found[0] + "\n"


def trusting_only(certificate: str) -> ssl.SSLContext:
    """Return a context that accepts whoever has the key of this one certificate.

    Names and signatures are not looked at: the certificate came by a file that only the server's user can write. So a
    self-signed certificate serves as well as any, and the server can be reached by an address that it does not name.

    Raises:
        ssl.SSLError: it cannot be read.
    """
    context = ssl.create_default_context(cadata=certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
