"""The settings: where each comes from, how it is written, and what is told when it cannot be used."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest

from models import state_version
from models.instants import DAY, HOUR, MINUTE, SECOND, parse_instant
from models.policy import BUILT_IN
from streams.faults import Unusable
from streams.kafka_client import kafka_client_options
from streams.setting_values import FixedClock, ShiftedClock
from streams.settings import Settings, check_history, describe, is_local, load_settings, variable_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("ARREARS_"):
            monkeypatch.delenv(name)


def refused(options: dict[str, object] | None = None, file: str | None = None) -> str:
    """What is told about settings that cannot be used."""
    with pytest.raises(Unusable) as told:
        load_settings(options, file=file)
    assert "\n" not in str(told.value)
    return str(told.value)


# Where they come from ---------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = load_settings()
    assert settings == Settings()
    assert (settings.history, settings.usage_history) == (45 * DAY, 3 * DAY)
    assert (settings.max_ahead, settings.max_clock_skew) == (10 * MINUTE, 30 * SECOND)
    assert (settings.max_deletes, settings.max_suspends, settings.payments_silence) == (100, 5_000, 12 * HOUR)
    assert (settings.metrics_host, settings.metrics_port) == ("127.0.0.1", 9464)
    assert (settings.app_id, settings.partitioner, settings.notice_acks) == ("arrears", "murmur2", "off")
    assert settings.subscribers == ()
    assert (settings.brokers, settings.policy, settings.instance_id, settings.clock) == (None, None, None, None)


def test_an_option_is_stronger_than_the_environment_that_than_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(
        'brokers = ["a:1", "b:2"]\nhistory = "P60D"\nmax_deletes = 7\nmax_suspends = 8\n'
        'tls = true\npayments_silence = "off"\n'
    )
    monkeypatch.setenv("ARREARS_SETTINGS", str(file))
    monkeypatch.setenv("ARREARS_MAX_SUSPENDS", "9")
    monkeypatch.setenv("ARREARS_HISTORY", "P50D")
    monkeypatch.setenv("ARREARS_MAX_AHEAD", "")  # as good as not set
    settings = load_settings({"history": "P70D", "policy": None})
    assert settings.brokers == ("a:1", "b:2")
    assert settings.tls
    assert (settings.history, settings.max_deletes, settings.max_suspends) == (70 * DAY, 7, 9)
    assert settings.payments_silence is None
    assert {row.name: row.origin for row in describe(settings) if row.origin != "default"} == {
        "brokers": "file",
        "tls": "file",
        "history": "option",
        "max_deletes": "file",
        "max_suspends": "environment",
        "payments_silence": "file",
    }


def test_the_option_names_another_file_than_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.toml").write_text("max_deletes = 1\n")
    (tmp_path / "b.toml").write_text("max_deletes = 2\n")
    monkeypatch.setenv("ARREARS_SETTINGS", str(tmp_path / "a.toml"))
    assert load_settings().max_deletes == 1
    assert load_settings(file=str(tmp_path / "b.toml")).max_deletes == 2


def test_every_setting_is_told_with_its_help_and_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "BROKERS": "localhost:9092, [::1]:9093",
        "TLS": "ON",
        "SASL_MECHANISM": "scram-sha-512",
        "SASL_USERNAME": "monitor",
        "SASL_PASSWORD": "very secret",
        "MAX_DELETES": "off",
        "SUBSCRIBERS": "provisioning, mail",
        "CLOCK": "-PT90S",
    }.items():
        monkeypatch.setenv(f"ARREARS_{name}", text)
    settings = load_settings()
    rows = {row.name: row for row in describe(settings)}
    assert list(rows) == list(Settings.model_fields)
    assert all(row.help.endswith(".") and len(row.help) > 10 for row in rows.values())
    assert rows["max_deletes"][1:3] == ("ARREARS_MAX_DELETES", "--max-deletes")
    assert {
        name: rows[name].value for name in ("brokers", "tls", "sasl_mechanism", "sasl_password", "max_deletes")
    } == {
        "brokers": "localhost:9092,[::1]:9093",
        "tls": "on",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_password": "(hidden)",
        "max_deletes": "off",
    }
    assert {
        name: rows[name].value for name in ("history", "commit_interval", "max_suspends", "subscribers", "clock")
    } == {
        "history": "PT1080H",
        "commit_interval": "PT0.1S",
        "max_suspends": "5000",
        "subscribers": "provisioning,mail",
        "clock": "-PT1M30S",
    }
    assert (rows["policy"].value, rows["sasl_password_file"].value) == ("", "")
    assert "very secret" not in repr(settings) + str(rows)


def test_what_is_told_can_be_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings({"brokers": "localhost", "clock": "+P1D", "max_suspends": "off", "subscribers": "a,b"})
    for row in describe(settings):
        monkeypatch.setenv(row.variable, row.value)
    assert load_settings().model_dump() == settings.model_dump()


# How they are written ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("history", "P45DT0.5S", 45 * DAY + SECOND // 2),
        ("max_deletes", "0", 0),
        ("max_deletes", " 250 ", 250),
        ("max_deletes", "OFF", None),
        ("payments_silence", "off", None),
        ("payments_silence", "PT1H", HOUR),
        ("partitioner", "CRC32", "crc32"),
        ("notice_acks", "required", "required"),
        ("tls", "yes", True),
        ("tls", "0", False),
        ("subscribers", "", ()),
        ("brokers", "kafka-1.example:9092,10.0.0.7", ("kafka-1.example:9092", "10.0.0.7")),
        ("clock", "system", None),
    ],
)
def test_a_value_is_read(name: str, text: str, value: object) -> None:
    assert getattr(load_settings({name: text}), name) == value


def test_the_state_is_written_for_the_release_before_until_it_is_said_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state_version, "VERSION", 2)
    assert load_settings().state_version == 1
    monkeypatch.setenv("ARREARS_STATE_VERSION", "2")
    settings = load_settings()
    assert settings.state_version == 2
    row = next(row for row in describe(settings) if row.name == "state_version")
    assert row[1:5] == ("ARREARS_STATE_VERSION", "--state-version", "2", "environment")
    assert refused({"state_version": "3"}) == "--state-version must be 1 to 2, what this release can write; got 3"


def test_the_clock_of_tests_is_fixed_or_shifted() -> None:
    local: dict[str, object] = {"brokers": "127.0.0.1:9092"}
    at = "2026-01-31T12:00:00Z"
    assert load_settings({**local, "clock": at}).clock == FixedClock(parse_instant(at))
    assert load_settings({**local, "clock": "+P1D"}).clock == ShiftedClock(DAY)
    assert load_settings({**local, "clock": "-PT90S"}).clock == ShiftedClock(-90 * SECOND)


@pytest.mark.parametrize(
    ("brokers", "local"),
    [
        (["127.0.0.1:9092"], True),
        (["127.3.2.1"], True),
        (["localhost:9092", "LOCALHOST", "[::1]:9092", "[::1]"], True),
        (["127.0.0.1:9092", "10.0.0.1:9092"], False),
        (["localhost.example:9092"], False),
        (["[::2]:9092"], False),
    ],
)
def test_which_brokers_are_on_this_machine(brokers: list[str], local: bool) -> None:
    assert is_local(brokers) == local


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("history", "45", 'ARREARS_HISTORY must be a duration like "PT24H", .*; got "45"'),
        ("history", "P1M", 'ARREARS_HISTORY must be a duration .*; got "P1M"'),
        ("max_deletes", "-1", 'ARREARS_MAX_DELETES must be "off" or a whole number; got "-1"'),
        ("max_deletes", "none", 'ARREARS_MAX_DELETES must be "off" or a whole number; got "none"'),
        ("payments_silence", "0h", 'ARREARS_PAYMENTS_SILENCE must be "off" or a duration like .*; got "0h"'),
        ("partitioner", "random", 'ARREARS_PARTITIONER must be murmur2 or crc32; got "random"'),
        ("notice_acks", "on", 'ARREARS_NOTICE_ACKS must be required or off; got "on"'),
        ("metrics_port", "70000", "ARREARS_METRICS_PORT must be a port, 0 to 65535; got 70000"),
        ("tls", "perhaps", 'ARREARS_TLS must be on or off; got "perhaps"'),
        ("brokers", "kafka://a:1", 'ARREARS_BROKERS must be host:port, .*; got "kafka://a:1"'),
        ("brokers", "a:0", 'ARREARS_BROKERS must be host:port, .*; got "a:0"'),
        ("brokers", " , ", "ARREARS_BROKERS must be host:port, .*; got none"),
        ("subscribers", "a,b,a", 'ARREARS_SUBSCRIBERS has a name twice: leave one out; got "a,b,a"'),
        ("subscribers", "a b", 'ARREARS_SUBSCRIBERS must be names with commas between them; got "a b"'),
        ("app_id", "a b", 'ARREARS_APP_ID must be at most 200 letters, .*; got "a b"'),
        ("state_version", "0", "ARREARS_STATE_VERSION must be 1, what this release can write; got 0"),
        ("state_version", "2", "ARREARS_STATE_VERSION must be 1, what this release can write; got 2"),
        ("state_version", "new", 'ARREARS_STATE_VERSION must be a whole number; got "new"'),
        ("instance_id", "a b", 'ARREARS_INSTANCE_ID must be a name without blanks and commas; got "a b"'),
        ("clock", "yesterday", 'ARREARS_CLOCK must be system, an instant like .*; got "yesterday"'),
        ("commit_records", "0", "ARREARS_COMMIT_RECORDS must be more than 0"),
        ("commit_interval", "PT15S", r"ARREARS_COMMIT_INTERVAL must be shorter than the transaction timeout \(PT15S\)"),
        ("session_timeout", "PT2S", r"ARREARS_SESSION_TIMEOUT must be three heartbeats at least \(PT3S\): .*"),
        ("session_timeout", "P30D", "ARREARS_SESSION_TIMEOUT must be PT30M at most"),
        ("heartbeat_interval", "PT0S", "ARREARS_HEARTBEAT_INTERVAL must be PT0.1S at least"),
        ("tls_ca_file", "ca.pem", "ARREARS_TLS_CA_FILE is given but TLS is off: set ARREARS_TLS=on"),
        ("sasl_mechanism", "GSSAPI", 'ARREARS_SASL_MECHANISM must be PLAIN or SCRAM-SHA-256 or .*; got "GSSAPI"'),
        ("sasl_mechanism", "PLAIN", "ARREARS_SASL_MECHANISM needs a name to sign in with: set ARREARS_SASL_USERNAME"),
        ("sasl_username", "me", "ARREARS_SASL_USERNAME is given, but not how to sign in: set ARREARS_SASL_MECHANISM"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_variable(
    name: str, text: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable_of(name), text)
    assert re.fullmatch(line, refused())


def test_an_option_is_told_as_typed_and_the_file_by_its_name(tmp_path: Path) -> None:
    assert refused({"max_deletes": "x"}).startswith("--max-deletes must be")
    file = tmp_path / "settings.toml"
    for text, line in {
        "history = 45": "history must be text in quotes, not a number",
        "max_deletes = false": 'max_deletes must be "off" or a whole number; got true or false',
        "sasl_password = 1234": "sasl_password must be text in quotes, not a number",
        "max_delete = 1": "max_delete is no setting: did you mean max_deletes?",
        "[kafka]": "kafka is no setting: arrears settings lists all there are",
    }.items():
        file.write_text(text)
        assert refused(file=str(file)) == f"{file}: {line}"
    file.write_text("a = \n")
    assert refused(file=str(file)).startswith(f"{file} is no TOML (")
    file.write_bytes(b'app_id = "\xff"')
    assert refused(file=str(file)) == f"{file} is not UTF-8: save it as UTF-8"
    assert refused(file=str(tmp_path)).startswith(f"{tmp_path} cannot be read (Is a directory)")
    assert "(No such file or directory): check the path" in refused(file=str(tmp_path / "nothing.toml"))


def test_a_clock_of_tests_is_refused_where_it_could_do_harm() -> None:
    told = refused({"clock": "+P1D", "brokers": "127.0.0.1:9092,kafka.example:9092"})
    assert told.startswith("--clock is for tests with a broker on this machine")


def test_an_account_remembers_its_arrears_until_its_delete_mark() -> None:
    check_history(load_settings({"history": "P15D"}), BUILT_IN)
    with pytest.raises(Unusable) as told:
        check_history(load_settings({"history": "P14D"}), BUILT_IN)
    assert str(told.value) == (
        "ARREARS_HISTORY is PT336H, less than delete_after of the policy maxcompute@2018-03-16: make it PT360H at least"
    )


# How clients reach the brokers ------------------------------------------------------------------------------------


def test_a_plain_client() -> None:
    settings = load_settings({"brokers": "a:1,b:2", "instance_id": "worker-0"})
    assert kafka_client_options(settings) == {
        "bootstrap_servers": ["a:1", "b:2"],
        "client_id": "arrears-worker-0",
        "security_protocol": "PLAINTEXT",
    }


def test_without_brokers_one_is_told_how_to_name_them() -> None:
    with pytest.raises(Unusable, match=r"no brokers are named: give --brokers HOST:PORT, or set ARREARS_BROKERS"):
        kafka_client_options(load_settings())


def test_a_client_that_signs_in(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("a secret \n")
    sasl: dict[str, object] = {"brokers": "a:1", "sasl_mechanism": "SCRAM-SHA-256", "sasl_username": "me"}
    assert "needs one password: set ARREARS_SASL_PASSWORD or ARREARS_SASL_PASSWORD_FILE" in refused(sasl)
    both = {**sasl, "sasl_password": "a", "sasl_password_file": str(file)}
    assert refused(both).endswith("ARREARS_SASL_PASSWORD_FILE, not both")
    options = kafka_client_options(load_settings({**sasl, "sasl_password_file": str(file)}))
    expected = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "SCRAM-SHA-256", "sasl_plain_username": "me"}
    assert options.items() >= (expected | {"sasl_plain_password": "a secret "}).items()
    options = kafka_client_options(load_settings({**sasl, "sasl_password": "other", "tls": "on"}))
    assert (options["security_protocol"], options["sasl_plain_password"]) == ("SASL_SSL", "other")
    file.write_text("\n")
    for path, told in ((file, "is empty"), (tmp_path / "no", r"cannot be read \(No such file or directory\)")):
        with pytest.raises(Unusable, match=rf"{told}: see ARREARS_SASL_PASSWORD_FILE"):
            kafka_client_options(load_settings({**sasl, "sasl_password_file": str(path)}))


def test_a_client_that_speaks_tls(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "1")
    names = ("-subj", "/CN=monitor", "-passout", "pass:secret", "-keyout", str(key), "-out", str(certificate))
    subprocess.run([*made, *names], check=True, capture_output=True)
    tls: dict[str, object] = {"brokers": "a:1", "tls": "on", "tls_ca_file": str(certificate)}
    options = kafka_client_options(load_settings(tls))
    context = options["ssl_context"]
    assert options["security_protocol"] == "SSL"
    assert isinstance(context, ssl.SSLContext)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert [found["subject"] for found in context.get_ca_certs()] == [((("commonName", "monitor"),),)]

    client = {**tls, "tls_certificate_file": str(certificate), "tls_key_file": str(key)}
    kafka_client_options(load_settings({**client, "tls_key_password": "secret"}))
    for password in ({}, {"tls_key_password": "wrong"}):
        with pytest.raises(Unusable, match=r"cert\.pem and .*key\.pem cannot be used \(.*\): see ARREARS_TLS_CERT"):
            kafka_client_options(load_settings({**client, **password}))
    with pytest.raises(Unusable, match=r"the certificates in .* cannot be used \(.*\): see ARREARS_TLS_CA_FILE"):
        kafka_client_options(load_settings({**tls, "tls_ca_file": str(key)}))
    assert "is given without its certificate" in refused({**tls, "tls_key_file": str(key)})
