"""How every Kafka client of ours reaches the brokers: addresses, TLS, SASL."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streams.faults import Unusable
from streams.settings import variable_of

if TYPE_CHECKING:
    from streams.settings import Settings


def kafka_client_options(settings: Settings) -> dict[str, Any]:
    """What an aiokafka client takes, consumer, producer or admin alike.

    Files of certificates and passwords are read now. Raises `Unusable` if one cannot be, and if no brokers are named.
    """
    if settings.brokers is None:
        raise Unusable(f"no brokers are named: give --brokers HOST:PORT, or set {variable_of('brokers')}")
    name = settings.app_id if settings.instance_id is None else f"{settings.app_id}-{settings.instance_id}"
    protocol = "SSL" if settings.tls else "PLAINTEXT"
    options: dict[str, Any] = {"bootstrap_servers": list(settings.brokers), "client_id": name}
    if settings.tls:
        options["ssl_context"] = _tls(settings)
    if settings.sasl_mechanism is not None:
        protocol = f"SASL_{protocol}"
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_plain_username"] = settings.sasl_username
        options["sasl_plain_password"] = _password(settings)
    return options | {"security_protocol": protocol}


def _tls(settings: Settings) -> ssl.SSLContext:
    context = _trusting(settings.tls_ca_file)
    if settings.tls_certificate_file is not None:
        password = settings.tls_key_password
        # Without a password OpenSSL would ask the terminal for one.
        secret = "" if password is None else password.get_secret_value()
        try:
            context.load_cert_chain(settings.tls_certificate_file, settings.tls_key_file, secret)
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            files = " and ".join(filter(None, (settings.tls_certificate_file, settings.tls_key_file)))
            raise Unusable(
                f"the certificate and key in {files} cannot be used ({_reason(error)}): "
                f"see {variable_of('tls_certificate_file')}, {variable_of('tls_key_file')} "
                f"and {variable_of('tls_key_password')}"
            ) from None
    return context


def _trusting(authorities: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authorities)
    except (OSError, ValueError) as error:
        raise Unusable(
            f"the certificates in {authorities} cannot be used ({_reason(error)}): see {variable_of('tls_ca_file')}"
        ) from None


def _password(settings: Settings) -> str:
    if settings.sasl_password is not None:
        return settings.sasl_password.get_secret_value()
    path = settings.sasl_password_file or ""
    try:
        # A line end belongs to the file, not to the password.
        password = Path(path).read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, a NUL in the path
        raise Unusable(
            f"the password in {path} cannot be read ({_reason(error)}): see {variable_of('sasl_password_file')}"
        ) from None
    if not password:
        raise Unusable(f"the password file {path} is empty: see {variable_of('sasl_password_file')}")
    return password


def _reason(error: OSError | ValueError) -> str:
    """In a few words; an SSLError has its own."""
    told = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return " ".join(str(told).split())
