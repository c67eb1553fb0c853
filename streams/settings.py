"""The settings of the live monitor, each declared once: its name, its meaning, its default.

Laws of this file:

- An option on the command line is stronger than the environment (`ARREARS_…`), that than the settings file (TOML),
  that than the default. Where a value came from is kept.
- What cannot be used is refused at once, in one line that names the place it stands at.
- A secret is never told, neither in a list of the settings nor in an error.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from ipaddress import ip_address
from typing import TYPE_CHECKING, ClassVar, Final, Literal, NamedTuple, TypeAlias, get_args

from pydantic import Field, PrivateAttr, SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from models.instants import DAY, HOUR, MINUTE, SECOND, format_duration
from models.refusal import printable
from models.state_version import WRITES
from streams.faults import Unusable
from streams.setting_values import (
    AppId,
    Brokers,
    ClockSetting,
    DurationOrOff,
    DurationSetting,
    Flag,
    MaybeFile,
    MaybeName,
    MaybeSasl,
    MaybeSecret,
    MaybeText,
    Names,
    NoticeAcksSetting,
    Number,
    NumberOrOff,
    Partitioner,
    Port,
    Shown,
    StateVersion,
    TextSetting,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from models.policy import Policies

#: Where a value came from.
Origin: TypeAlias = Literal["default", "file", "environment", "option"]

_PREFIX: Final = "ARREARS_"
#: The variable that names the settings file.
SETTINGS_VARIABLE: Final = f"{_PREFIX}SETTINGS"


class Settings(BaseSettings):
    """All of them, checked. Made by `load_settings`; made bare it has the defaults, whatever the environment says."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_ignore_empty=True,
        enable_decoding=False,  # lists are written with commas, not as JSON
        validate_default=False,  # those below are values, the validators read texts
        extra="forbid",
        frozen=True,
    )

    # Kafka
    brokers: Brokers = Field(None, description="The Kafka brokers: host:port, several with commas between them.")
    tls: Flag = Field(default=False, description="Speak TLS with the brokers.")
    tls_ca_file: MaybeFile = Field(
        None, description="Certificates that vouch for the brokers (PEM); without it those of this machine."
    )
    tls_certificate_file: MaybeFile = Field(None, description="The certificate that this client shows (PEM).")
    tls_key_file: MaybeFile = Field(None, description="Its private key (PEM), if that is a file of its own.")
    tls_key_password: MaybeSecret = Field(None, description="The password of the private key.")
    sasl_mechanism: MaybeSasl = Field(
        None, description="Sign in to the brokers: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."
    )
    sasl_username: MaybeText = Field(None, description="The name to sign in with.")
    sasl_password: MaybeSecret = Field(None, description="The password to sign in with.")
    sasl_password_file: MaybeFile = Field(None, description="The file that holds that password instead.")

    # Who this is
    app_id: AppId = Field("arrears", description="Begins the names of the topics that are written, and enters the ids.")
    instance_id: MaybeName = Field(
        None,
        description="The name of this worker among those of the app, the same after a restart: then it gets its "
        "partitions back at once. No two may have one name at a time.",
    )
    policy: MaybeFile = Field(
        None,
        description="Policy file (YAML), until policies come in by the controls. Without it the built-in one holds.",
    )

    # The records (contract §2, §3)
    partitioner: Partitioner = Field(
        "murmur2", description="How producers find the partition of an account: murmur2 (Java) or crc32 (librdkafka)."
    )
    history: DurationSetting = Field(
        45 * DAY, description="How long an account keeps its movements; a record older than that is too late."
    )
    usage_history: DurationSetting = Field(3 * DAY, description="How long the event ids of usage are kept.")
    max_ahead: DurationSetting = Field(
        10 * MINUTE, description="How far past the clock a record may be; one further is too early."
    )

    # The guards (contract §3)
    max_clock_skew: DurationSetting = Field(
        30 * SECOND, description="More than this between this clock and the brokers' stops suspends and deletes."
    )
    max_deletes: NumberOrOff = Field(100, description="Deletes a partition within an hour, or off.")
    max_suspends: NumberOrOff = Field(5_000, description="Suspends a partition within an hour, or off.")
    payments_silence: DurationOrOff = Field(
        12 * HOUR, description="Bills, but no payment for so long, stops suspends and deletes; or off."
    )

    # Those who act on what comes out (contract §3)
    subscribers: Names = Field(
        (), description="Services that have to acknowledge each command, with commas between them."
    )
    notice_acks: NoticeAcksSetting = Field(
        "off", description="required: a delete waits from the ack of its notice, not from the notice."
    )

    # How the worker runs
    commit_interval: DurationSetting = Field(
        SECOND // 10, description="How long records are gathered for one transaction: most of the latency."
    )
    commit_records: Number = Field(20_000, description="Records of a partition after which it is committed at once.")
    transaction_timeout: DurationSetting = Field(
        15 * SECOND, description="After so long the brokers give up an open transaction; readers wait for it till then."
    )
    session_timeout: DurationSetting = Field(
        10 * SECOND, description="After so long without a sign of life a worker's partitions go to others."
    )
    heartbeat_interval: DurationSetting = Field(SECOND, description="How often a worker gives a sign of life.")
    state_version: StateVersion = Field(
        WRITES,
        description="The version of the state that is written. By default that of the release before, which can still "
        "read it; raise it once you will not go back.",
    )
    metrics_host: TextSetting = Field("127.0.0.1", description="The address on which metrics can be read.")
    metrics_port: Port = Field(9464, description="The port on which metrics can be read; 0 takes a free one.")
    clock: ClockSetting = Field(
        None, description="For tests, with a local broker only: a fixed instant, or a shift such as +P1D or -PT90S."
    )

    _origins: dict[str, Origin] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # pydantic's own signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is handed over, and nothing else: `load_settings` looks at the rest, and remembers where it looked."""
        return (init_settings,)

    def origin(self, name: str) -> Origin:
        """Where the value of a setting came from."""
        return self._origins.get(name, "default")


#: The settings fall into groups; each begins with the setting that it is named by.
GROUPS: Final = {
    "brokers": "Kafka",
    "app_id": "Who this is",
    "partitioner": "The records",
    "max_clock_skew": "The guards",
    "subscribers": "Those who act on what comes out",
    "commit_interval": "How the worker runs",
}


class Row(NamedTuple):
    """One setting as `arrears settings` tells it."""

    name: str
    variable: str
    #: None for a secret.
    option: str | None
    value: str
    origin: Origin
    help: str


def describe(settings: Settings) -> list[Row]:
    """All settings, in the order in which they are declared; secrets are hidden."""
    return [
        Row(
            name,
            variable_of(name),
            None if is_secret(name) else option_of(name),
            _value(settings, name),
            settings.origin(name),
            field.description or "",
        )
        for name, field in Settings.model_fields.items()
    ]


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return f"{_PREFIX}{name.upper()}"


def option_of(name: str) -> str:
    """The option of a setting on the command line."""
    return f"--{name.replace('_', '-')}"


def is_secret(name: str) -> bool:
    """Whether a setting is never told. It is no option either: a command line can be read by all on the machine."""
    return SecretStr in get_args(Settings.model_fields[name].annotation)


def group_of(name: str) -> str:
    """What a setting is about: a heading to list it under."""
    names = list(Settings.model_fields)
    return next(group for first, group in reversed(GROUPS.items()) if names.index(first) <= names.index(name))


def form_of(name: str) -> str:
    """What is to be written for a setting, in a word: "DURATION", "on|off"."""
    return _written(name).form


def default_of(name: str) -> str:
    """The default of a setting as it is written; empty if it has none."""
    return _value(Settings(), name)


def _value(settings: Settings, name: str) -> str:
    value: object = getattr(settings, name)
    written = _written(name)
    return written.none if value is None else written.by(value)


def _written(name: str) -> Shown:
    return next((one for one in Settings.model_fields[name].metadata if isinstance(one, Shown)), Shown())


# Reading them ---------------------------------------------------------------------------------------------------------


def load_settings(options: Mapping[str, object] | None = None, *, file: str | None = None) -> Settings:
    """The settings as the options, the environment and the file have them. Raises `Unusable`.

    `options` are named as the settings are; one that is None was not given. `file` is that of the option `--settings`.
    """
    file = file or os.environ.get(SETTINGS_VARIABLE) or None
    given: tuple[tuple[Origin, Mapping[str, object]], ...] = (
        ("file", _of_file(file) if file else {}),
        ("environment", EnvSettingsSource(Settings)()),
        ("option", {name: value for name, value in (options or {}).items() if value is not None}),
    )
    values: dict[str, object] = {}
    origins: dict[str, Origin] = {}
    for origin, found in given:
        values |= found
        origins |= dict.fromkeys(found, origin)
    try:
        settings = Settings(**values)  # type: ignore[arg-type]  # it is what checks them
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = str(first["loc"][0])
        told = first["ctx"]["error"] if first["type"] == "value_error" else first["msg"]
        raise Unusable(f"{_place(name, origins.get(name, 'default'), file)} {told}") from None
    settings._origins.update(origins)  # noqa: SLF001  # its own
    _check_together(settings, file)
    return settings


def _of_file(path: str) -> Mapping[str, object]:
    name = printable(path)
    try:
        with open(path, "rb") as opened:
            values = tomllib.load(opened)
    except tomllib.TOMLDecodeError as error:
        raise Unusable(f"{name} is no TOML ({error}): mend it") from None
    except UnicodeDecodeError:
        raise Unusable(f"{name} is not UTF-8: save it as UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise Unusable(f"{name} cannot be read ({reason}): check the path of the settings file") from None
    for key in values:
        if key not in Settings.model_fields:
            close = difflib.get_close_matches(key, Settings.model_fields, n=1)
            advice = f"did you mean {close[0]}?" if close else "arrears settings lists all there are"
            raise Unusable(f"{name}: {printable(key)} is no setting: {advice}")
    return values


def _place(name: str, origin: Origin, file: str | None) -> str:
    """What a user calls the place at which a value stands."""
    match origin:
        case "option":
            return option_of(name)
        case "file":
            return f"{printable(file or '')}: {name}"
        case "environment" | "default":
            return variable_of(name)


# What has to go together ----------------------------------------------------------------------------------------------


def _check_together(settings: Settings, file: str | None) -> None:
    for contradictions in (_tls_wrong, _sasl_wrong, _times_wrong):
        for name, told in contradictions(settings):
            raise Unusable(f"{_place(name, settings.origin(name), file)} {told}")


def _tls_wrong(settings: Settings) -> Iterator[tuple[str, str]]:
    for name in ("tls_ca_file", "tls_certificate_file", "tls_key_file", "tls_key_password"):
        if not settings.tls and getattr(settings, name) is not None:
            yield name, f"is given but TLS is off: set {variable_of('tls')}=on"
    if settings.tls_key_file is not None and settings.tls_certificate_file is None:
        yield "tls_key_file", f"is given without its certificate: set {variable_of('tls_certificate_file')}"


def _sasl_wrong(settings: Settings) -> Iterator[tuple[str, str]]:
    passwords = [name for name in ("sasl_password", "sasl_password_file") if getattr(settings, name) is not None]
    if settings.sasl_mechanism is None:
        for name in ("sasl_username", *passwords):
            if getattr(settings, name) is not None:
                yield name, f"is given, but not how to sign in: set {variable_of('sasl_mechanism')}"
        return
    if settings.sasl_username is None:
        yield "sasl_mechanism", f"needs a name to sign in with: set {variable_of('sasl_username')}"
    if len(passwords) != 1:
        either = f"{variable_of('sasl_password')} or {variable_of('sasl_password_file')}"
        yield "sasl_mechanism", f"needs one password: set {either}{', not both' if passwords else ''}"


def _times_wrong(settings: Settings) -> Iterator[tuple[str, str]]:
    if settings.commit_records == 0:
        yield "commit_records", "must be more than 0"
    # What clients can say and brokers take, unless they are told otherwise.
    for name, longest in (("transaction_timeout", 15 * MINUTE), ("session_timeout", 30 * MINUTE)):
        if getattr(settings, name) > longest:
            yield name, f"must be {format_duration(longest)} at most"
    for name in ("heartbeat_interval", "transaction_timeout"):
        if getattr(settings, name) < SECOND // 10:
            yield name, f"must be {format_duration(SECOND // 10)} at least"
    if settings.session_timeout < 3 * settings.heartbeat_interval:
        least = format_duration(3 * settings.heartbeat_interval)
        yield "session_timeout", f"must be three heartbeats at least ({least}): one or two may be late"
    if settings.commit_interval >= settings.transaction_timeout:
        most = format_duration(settings.transaction_timeout)
        yield "commit_interval", f"must be shorter than the transaction timeout ({most})"
    if settings.clock is not None and not is_local(settings.brokers or ()):
        yield "clock", "is for tests with a broker on this machine: leave it out, or name one such as 127.0.0.1:9092"


def is_local(brokers: Iterable[str]) -> bool:
    """Whether all these brokers (`host:port`) are on this machine, as far as their names say."""
    return all(_is_loopback(re.sub(r":[0-9]+$", "", broker)) for broker in brokers)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_history(settings: Settings, policies: Policies) -> None:
    """An account has to remember its arrears until its delete mark (§3). Raises `Unusable`."""
    for policy in policies.versions:
        if settings.history < policy.delete_after:
            least = format_duration(policy.delete_after)
            raise Unusable(
                f"{variable_of('history')} is {format_duration(settings.history)}, "
                f"less than delete_after of the policy {policy.label}: make it {least} at least"
            )
