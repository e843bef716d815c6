import base64
import re
import secrets

import msgspec
import pytest

from shared.config.environment import ConfigurationError
from shared.config.loading import OPTIONAL, SECRET, load
from shared.config.processes import KEYS, READS
from shared.config.settings import (
    DEVELOPMENT_CODE_KEY,
    DEVELOPMENT_ENCRYPTION_KEY,
    DEVELOPMENT_JWT_KEY,
    DEVELOPMENT_PORTAL_KEY,
    DEVELOPMENT_RECEIPT_KEY,
    DEVELOPMENT_SECOND_FACTOR_KEY,
    DEVELOPMENT_TRACKING_KEY,
    DEVELOPMENT_UNSUBSCRIBE_KEY,
    Settings,
)
from shared.security.service_accounts import SERVICES

PRODUCTION = {
    "ENVIRONMENT": "production",
    "SECRET_ENCRYPTION_KEYS": "V70EBmJ9RGsKQD1SAtc1Nd53TMe7go_LYmF6uoxdLr0=",
    "ONE_TIME_CODE_KEYS": "sxYilQ6N2nOG0HL08vDBu52BLuvNgH1Ip92trmZR2So=",
    "SECOND_FACTOR_KEYS": "b2Sd0Yk7mWn1QxTfRgLhUe8Zp5Vj3CaNsKoIi4rBtEw=",
    "JWT_SIGNING_KEY": "FlZM7lDdsRzs7wgZnM6SdnLV81DEgL6YXZ_CimVxT0CZqX1eTg3ktEAz8DRukmiq",
    "PORTAL_KEYS": "3yVq8Zk1mNw4QxTfRgLhUe7Bp5Xj2CaSdKoIi6rMtEA=",
    "TRACKING_KEYS": "u9Lw2Xc7bVn5Qz8RfTgHyJ3kMp4Sd6AaEoIi1rBtUvY=",
    "RECEIPT_SIGNING_KEYS": "RnxOsiZr_ld7IGow7Xw1EjdeRoF15rBAAoOzvY9BF-c=",
    "UNSUBSCRIBE_KEYS": "e2tR5cV9xJ1mZqYw4uH7oLkD8nBsGfA6pCiT3yQhXvM=",
    "AMQP_URL": "amqps://fellow:pw@broker.example/",
    "DATABASE_URL": "postgresql+psycopg2://fellow:pw@db.example/order_fellow?sslmode=verify-full",
    "PUBLIC_URL": "https://orders.example",
    "TRUSTED_PROXIES": "1",
    "EMAIL_FROM": "Order Fellow <orders@kettle.example>",
}


def test_development_needs_nothing():
    assert load({}) == Settings()


def test_values_are_typed():
    settings = load({"PORT": "9000", "SMTP_STARTTLS": "true", "CONFIRM_TIMEOUT": "1.5"})
    assert (settings.port, settings.smtp_starttls, settings.confirm_timeout) == (9000, True, 1.5)


def test_foreign_and_empty_variables_are_ignored():
    assert load({"PATH": "/bin", "PORT": ""}) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "70000"),
        ("CONFIRM_TIMEOUT", "0"),
        ("ENVIRONMENT", "prod"),
        ("SECRET_LIFETIME_DAYS", "-1"),
        ("SECRET_ENCRYPTION_KEYS", " , "),
        ("RECEIPT_SIGNING_KEYS", ","),
        ("ONE_TIME_CODE_KEYS", " ,"),
        ("SECOND_FACTOR_KEYS", ", "),
        ("UNSUBSCRIBE_KEYS", ","),
        ("PORTAL_KEYS", ","),
        ("TRACKING_KEYS", ","),
        ("JWT_SIGNING_KEY", ", "),
        ("DATABASE_URL", "postgresql://u@h/d"),
    ],
)
def test_a_bad_value_is_refused_by_name(name, value):
    with pytest.raises(ConfigurationError, match=name):
        load({name: value})


def test_production_starts_with_its_own_keys():
    assert load(PRODUCTION).environment == "production"


@pytest.mark.parametrize("process", ["ingress", "portal"])
@pytest.mark.parametrize("given", [{"TRUSTED_PROXIES": "0"}, {"TRUSTED_PROXIES": ""}])
def test_production_requires_the_number_of_proxies(process, given):
    """Behind an uncounted proxy all clients share one address and its limits."""
    with pytest.raises(ConfigurationError, match=r"TRUSTED_PROXIES is 0.*CLIENTS_CONNECT_DIRECTLY"):
        load(PRODUCTION | given, process)
    assert load(PRODUCTION | given | {"CLIENTS_CONNECT_DIRECTLY": "true"}, process)
    assert load(PRODUCTION | given, "ops")
    assert load(given, process)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_ENCRYPTION_KEYS", DEVELOPMENT_ENCRYPTION_KEY),
        (
            "SECRET_ENCRYPTION_KEYS",
            f"{PRODUCTION['SECRET_ENCRYPTION_KEYS']},{DEVELOPMENT_ENCRYPTION_KEY}",
        ),
        ("JWT_SIGNING_KEY", DEVELOPMENT_JWT_KEY),
        ("JWT_SIGNING_KEY", "short"),
        ("RECEIPT_SIGNING_KEYS", DEVELOPMENT_RECEIPT_KEY),
        ("ONE_TIME_CODE_KEYS", DEVELOPMENT_CODE_KEY),
        ("SECOND_FACTOR_KEYS", DEVELOPMENT_SECOND_FACTOR_KEY),
        ("UNSUBSCRIBE_KEYS", DEVELOPMENT_UNSUBSCRIBE_KEY),
        ("PORTAL_KEYS", DEVELOPMENT_PORTAL_KEY),
        ("TRACKING_KEYS", DEVELOPMENT_TRACKING_KEY),
        ("JWT_SIGNING_KEY", f"{PRODUCTION['JWT_SIGNING_KEY']},{DEVELOPMENT_JWT_KEY}"),
        ("AMQP_URL", "amqp://guest:guest@broker.example/"),
        ("DATABASE_URL", "postgresql+psycopg2://fellow:pw@db.example/order_fellow"),
    ],
)
def test_production_refuses_development_keys_by_name(name, value):
    with pytest.raises(ConfigurationError, match=name):
        load(PRODUCTION | {name: value})


def test_every_setting_has_a_default():
    assert all(field.default is not msgspec.NODEFAULT for field in msgspec.structs.fields(Settings))


def test_a_secret_may_be_in_a_file(tmp_path):
    file = tmp_path / "key"
    file.write_text("x" * 48 + "\n")
    assert load({"JWT_SIGNING_KEY_FILE": str(file)}).jwt_signing_key == "x" * 48
    with pytest.raises(ConfigurationError, match="JWT_SIGNING_KEY_FILE"):
        load({"JWT_SIGNING_KEY_FILE": str(tmp_path / "none")})
    with pytest.raises(ConfigurationError, match="both set"):
        load({"JWT_SIGNING_KEY_FILE": str(file), "JWT_SIGNING_KEY": "y" * 48})


@pytest.mark.parametrize("environment", ["development", "production"])
@pytest.mark.parametrize("name", sorted(SECRET - OPTIONAL))
def test_an_empty_file_is_a_fault(tmp_path, name, environment):
    file = tmp_path / "emptied"
    file.write_text("\n")
    given = {"ENVIRONMENT": environment, f"{name}_FILE": str(file)}
    with pytest.raises(ConfigurationError, match=f"{name}_FILE is empty: .*{file}"):
        load(given)


@pytest.mark.parametrize("name", sorted(OPTIONAL))
def test_the_file_of_an_optional_secret_may_be_empty(tmp_path, name):
    file = tmp_path / "none"
    file.write_text("\n")
    assert getattr(load({f"{name}_FILE": str(file)}), name.lower()) == ""


def test_a_separate_password_is_put_into_the_url():
    settings = load(
        {
            "AMQP_URL": "amqp://fellow@broker:5672/",
            "AMQP_PASSWORD": "a/b@c",
            "DATABASE_URL": "postgresql+psycopg2://fellow@db/books?sslmode=disable",
            "DATABASE_PASSWORD": "d",
        }
    )
    assert settings.amqp_url == "amqp://fellow:a%2Fb%40c@broker:5672/"
    assert settings.database_url == "postgresql+psycopg2://fellow:d@db/books?sslmode=disable"
    with pytest.raises(ConfigurationError, match="AMQP_URL"):
        load({"AMQP_URL": "amqp://broker/", "AMQP_PASSWORD": "a"})


NODES = "amqp://fellow@a:5672/orders;amqp://fellow@b:5672/orders"


def test_a_separate_password_is_put_into_each_url_of_the_broker(tmp_path):
    file = tmp_path / "password"
    file.write_text("p;/w\n")
    settings = load({"AMQP_URL": f" {NODES}; ", "AMQP_PASSWORD_FILE": str(file)})
    assert settings.amqp_url == (
        "amqp://fellow:p%3B%2Fw@a:5672/orders;amqp://fellow:p%3B%2Fw@b:5672/orders"
    )
    with pytest.raises(ConfigurationError, match="AMQP_URL must name a user and no password"):
        load({"AMQP_URL": f"{NODES};amqp://c/orders", "AMQP_PASSWORD": "a"})


@pytest.mark.parametrize(
    ("urls", "faults"),
    [
        (
            "amqp://ada:hidden1@a/;amqp://ola:hidden2@b/orders",
            [
                "AMQP_URL: all addresses must have one user, not ada, ola",
                "AMQP_URL: all addresses must have one vhost, not /, orders",
            ],
        ),
        (
            "amqp://ada:hidden1@a/;amqp://ada:hidden2@b/%2F;amqp://ada:hidden1@c",
            ["AMQP_URL: all addresses must have the same password"],
        ),
        (
            "amqp://ada:hidden1@a/;b",
            ["AMQP_URL: each address must start with amqp:// or amqps://; "
             "write ; in a password as %3B"],
        ),
        ("amqp://ada@a:port/;amqp://b/", ["AMQP_URL cannot be read: write what is special in its "
                                          "password as %xx"]),
    ],
)  # fmt: skip
def test_addresses_of_more_than_one_broker_are_refused(urls, faults):
    with pytest.raises(ConfigurationError) as refused:
        load({"AMQP_URL": urls, "AMQP_HEARTBEAT": "soon"})
    assert [fault for fault in refused.value.faults if "AMQP_URL" in fault] == faults
    assert len(refused.value.faults) == len(faults) + 1
    assert "hidden" not in str(refused.value)


def test_the_nodes_are_tried_as_listed_or_shuffled():
    urls = ";".join(f"amqp://node{number}/" for number in range(12))
    assert load({"AMQP_URL": urls}).amqp_url == urls
    shuffled = load({"AMQP_URL": urls, "AMQP_ORDER": "shuffled"}).amqp_url
    assert shuffled != urls
    assert sorted(shuffled.split(";")) == sorted(urls.split(";"))
    with pytest.raises(ConfigurationError, match="AMQP_ORDER"):
        load({"AMQP_ORDER": "random"})


def test_a_process_has_no_key_that_it_does_not_need():
    settings = load(PRODUCTION, "orders")
    assert not any(settings.listed(name) for name in KEYS)


def in_base64(raw):
    return base64.b64encode(raw).decode()


WEAK_BYTES = [b"\0" * 32, bytes(range(100, 132)), b"0123456789abcdef" * 2, b"ab" * 16,
              b"correct horse battery staple etc", b"Please-ChangeMe-before-you-start"]  # fmt: skip
WEAK_TEXTS = ["k" * 48, "abc" * 16, "0123456789" * 4, "abcdefghijklmnopqrstuvwxyz0123456789",
              "change-me-to-a-long-random-string", "the quick brown fox jumps over the dog",
              "MySuperSecretJwtKey-2026-production", "short-but-R4ndom"]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in KEYS if name != "JWT_SIGNING_KEY"])
@pytest.mark.parametrize("raw", WEAK_BYTES, ids=repr)
@pytest.mark.parametrize("place", ["first", "behind"])
def test_production_refuses_keys_that_can_be_guessed(name, raw, place):
    keys = [in_base64(raw), PRODUCTION[name]]
    listed = ",".join(keys if place == "first" else reversed(keys))
    with pytest.raises(ConfigurationError, match=name):
        load(PRODUCTION | {name: listed})


@pytest.mark.parametrize("key", [*WEAK_TEXTS, *map(in_base64, WEAK_BYTES)])
def test_production_refuses_token_keys_that_can_be_guessed(key):
    for listed in (key, f"{PRODUCTION['JWT_SIGNING_KEY']},{key}"):
        with pytest.raises(ConfigurationError, match="JWT_SIGNING_KEY") as refused:
            load(PRODUCTION | {"JWT_SIGNING_KEY": listed})
        assert key not in str(refused.value)


def test_random_keys_are_not_weak():
    for _ in range(500):
        key = in_base64(secrets.token_bytes(32))
        forms = [secrets.token_hex(16), secrets.token_hex(32), secrets.token_urlsafe(32), key]
        for form in forms:
            load(PRODUCTION | {"JWT_SIGNING_KEY": form})
        load(PRODUCTION | {"SECRET_ENCRYPTION_KEYS": key})


@pytest.mark.parametrize("one", KEYS)
@pytest.mark.parametrize("other", KEYS)
def test_production_refuses_one_key_for_two_uses_and_one_twice(one, other):
    """In either base64 alphabet, with or without padding."""
    key = in_base64(b"\xfb\xff" + secrets.token_bytes(30))
    forms = (key, key.replace("+", "-").replace("/", "_"))
    changed = {one: f"{key},{key}"} if one == other else {one: forms[0], other: forms[1]}
    with pytest.raises(ConfigurationError, match=f"{one}|{other}") as refused:
        load(PRODUCTION | changed)
    assert one in str(refused.value)
    assert other in str(refused.value)
    assert key not in str(refused.value)


def test_a_password_must_not_equal_a_key():
    shared = secrets.token_hex(24)
    both = {"AMQP_URL": "amqps://fellow@broker.example/", "AMQP_PASSWORD": shared,
            "DATABASE_URL": PRODUCTION["DATABASE_URL"].replace(":pw", ""),
            "DATABASE_PASSWORD": shared}  # fmt: skip
    load(PRODUCTION | both)
    for name in ("JWT_SIGNING_KEY", "SMTP_PASSWORD"):
        with pytest.raises(ConfigurationError, match=name):
            load(PRODUCTION | both | {name: shared})


def passwords_of_services(**others):
    made = {name: secrets.token_hex(24) for name in SERVICES} | others
    return ",".join(f"{name}={password}" for name, password in made.items())


@pytest.mark.parametrize("process", ["migrations", "topology"])
def test_production_refuses_passwords_that_services_share(process):
    administrator, shared = secrets.token_hex(24), secrets.token_hex(24)
    url = {
        "AMQP_URL": f"amqps://root:{administrator}@broker.example/",
        "DATABASE_URL": PRODUCTION["DATABASE_URL"].replace(":pw", f":{administrator}"),
    }
    load(PRODUCTION | url | {"SERVICE_PASSWORDS": passwords_of_services()}, process)
    for bad in ({"kyc": shared, "ops": shared}, {"kyc": "short"}, {"kyc": "a" * 24},
                {"kyc": administrator}):  # fmt: skip
        given = {"SERVICE_PASSWORDS": passwords_of_services(**bad)}
        with pytest.raises(ConfigurationError, match=r"SERVICE_PASSWORDS.*kyc"):
            load(PRODUCTION | url | given, process)


BOOKS = "postgresql+psycopg2://fellow:pw@"
OPEN = [
    ("AMQP_URL", "amqp://fellow:pw@broker.example/", "broker.example"),
    ("AMQP_URL", "amqps://fellow:pw@a.example/;amqp://fellow:pw@broker.example/", "broker.example"),
    ("AMQP_URL", "amqp://fellow:pw@10.0.0.4:5672/", "10.0.0.4"),
    ("AMQP_URL", "amqp://fellow:pw@[fd00::4]/", "fd00::4"),
    ("AMQP_URL", "amqp://fellow:pw@localhost.example/", "localhost.example"),
    *(
        ("DATABASE_URL", f"{BOOKS}db.example/d?sslmode={mode}", "db.example")
        for mode in ("disable", "allow", "prefer")
    ),
    ("DATABASE_URL", f"{BOOKS}/d?host=db.example&sslmode=disable", "db.example"),
    ("DATABASE_URL", f"{BOOKS}/d?host=db.example:5432&sslmode=disable", "db.example"),
    ("DATABASE_URL", f"{BOOKS}localhost/d?host=db.example&sslmode=prefer", "db.example"),
    ("SMTP_HOST", "smtp.example", "smtp.example"),
    ("RABBITMQ_MANAGEMENT_URL", "http://broker.example:15672", "broker.example"),
    ("PROOF_URL", "http://api.example", "api.example"),
]


@pytest.mark.parametrize(("name", "value", "host"), OPEN, ids=lambda value: value)
def test_production_refuses_unencrypted_connections_to_unlisted_hosts(name, value, host):
    given = PRODUCTION | {name: value}
    with pytest.raises(ConfigurationError, match=rf"{name}.*{re.escape(host)}.*UNPROTECTED_HOSTS"):
        load(given)
    with pytest.raises(ConfigurationError, match=name):
        load(given | {"UNPROTECTED_HOSTS": "other.example, example"})
    load(given | {"UNPROTECTED_HOSTS": f"other.example, {host.upper()}"})
    load(given | {"ENVIRONMENT": "development"})


@pytest.mark.parametrize(
    "given",
    [
        {"AMQP_URL": "amqp://fellow:pw@127.0.0.1:5672/"},
        {"AMQP_URL": "amqp://fellow:pw@[::1]/"},
        {"AMQP_URL": "amqp://fellow:pw@localhost/"},
        {"DATABASE_URL": f"{BOOKS}127.0.0.2/d?sslmode=disable"},
        {"DATABASE_URL": f"{BOOKS}/d?host=/var/run/postgresql&sslmode=disable"},
        {"DATABASE_URL": f"{BOOKS}db.example/d?sslmode=require"},
        {"SMTP_HOST": "smtp.example", "SMTP_STARTTLS": "true"},
        {"SMTP_HOST": "localhost"},
        {"RABBITMQ_MANAGEMENT_URL": "https://broker.example:15671"},
    ],
)
def test_production_accepts_encrypted_and_local_connections(given):
    load(PRODUCTION | given)


def test_production_refuses_the_default_sender():
    away = {"SMTP_HOST": "smtp.example", "SMTP_STARTTLS": "true"}
    unset = {name: value for name, value in PRODUCTION.items() if name != "EMAIL_FROM"}
    with pytest.raises(ConfigurationError, match="EMAIL_FROM is not set"):
        load(unset | away, "notifier")
    load(unset | away, "orders")
    load(unset | {"SMTP_HOST": "localhost"}, "notifier")
    load(unset | {"SMTP_HOST": "mailpit", "UNPROTECTED_HOSTS": "mailpit"}, "notifier")


LINKS = ("PUBLIC_URL", "TRACKING_URL")
NOWHERE = ["http://orders.example", "http://127.0.0.1:8000", "https://127.0.0.1", "https://[::1]:8000",
           "https://localhost", "https://LOCALHOST.:8000/track", "https://api.localhost",
           "https://0.0.0.0:8000", "https://[::]", "https://127.1", "https://2130706433",
           "https://[::ffff:127.0.0.1]/", "https://169.254.1.1", "https://",
           "https:///track"]  # fmt: skip


@pytest.mark.parametrize("process", [name for name in READS if {*LINKS} & {*READS[name]}])
@pytest.mark.parametrize("url", NOWHERE)
def test_production_refuses_links_to_this_machine(process, url):
    """All faults together; UNPROTECTED_HOSTS does not apply to links."""
    names = [name for name in LINKS if name in READS[process]]
    given = dict.fromkeys(names, url) | {"UNPROTECTED_HOSTS": "orders.example"}
    with pytest.raises(ConfigurationError) as refused:
        load(PRODUCTION | given, process)
    assert [line.split()[0] for line in refused.value.faults] == names
    assert all("must begin with https://" in line for line in refused.value.faults)
    load(given, process)


@pytest.mark.parametrize("name", LINKS)
def test_production_accepts_links_to_public_hosts(name):
    for host in ("orders.example", "orders.example:8443/under", "10.0.0.4", "[2001:db8::4]",
                 "localhost.example"):  # fmt: skip
        load(PRODUCTION | {name: f"https://{host}"})


def test_processes_that_write_links_need_a_public_url():
    without = {key: value for key, value in PRODUCTION.items() if key != "PUBLIC_URL"}
    for process in ("ingress", "notifier", "portal"):
        with pytest.raises(ConfigurationError, match="PUBLIC_URL"):
            load(without, process)
    load(without, "kyc")


def test_the_public_url_must_be_a_url():
    with pytest.raises(ConfigurationError, match="PUBLIC_URL must be an address"):
        load({"PUBLIC_URL": "orders.example"})


def test_a_process_checks_only_the_settings_that_it_reads():
    load(PRODUCTION | {"SMTP_HOST": "smtp.example", "JWT_SIGNING_KEY": "weak"}, "kyc")


def test_retention_is_longer_than_the_journal():
    """Otherwise a replay would create removed rows again. Registrations are not in the journal."""
    for days in ("1", "7"):
        with pytest.raises(ConfigurationError, match=r"RETENTION_ORDERS_DAYS.*journal"):
            load({"RETENTION_ORDERS_DAYS": days})
    assert load({"RETENTION_ORDERS_DAYS": "8", "RETENTION_UNPROVED_DAYS": "1"})


@pytest.mark.parametrize(
    ("process", "shorter", "longer", "limit"),
    [
        ("secrets", "SECRET_ROTATE_AHEAD_DAYS", "SECRET_LIFETIME_DAYS", 30),
        ("secrets", "SECRET_WARN_AHEAD_DAYS", "SECRET_LIFETIME_DAYS", 30),
        ("ingress", "ACCESS_TOKEN_SECONDS", "REFRESH_TOKEN_SECONDS", 900),
    ],
)
def test_contradicting_settings_are_refused(process, shorter, longer, limit):
    for value in (limit, limit + 1):
        with pytest.raises(ConfigurationError, match=f"{shorter} .* must be less than {longer}"):
            load({shorter: str(value), longer: str(limit)}, process)
    assert load({shorter: str(limit - 1), longer: str(limit)}, process)
    # A process that reads neither does not check them.
    assert load({shorter: str(limit), longer: str(limit)}, "kyc")


def test_no_default_contradicts_another():
    assert load({})


@pytest.mark.parametrize("host", ["hooks.example", "127.0.0.1", "mailpit"])
def test_production_refuses_an_unencrypted_alert_webhook(host):
    """Its path is a secret, on any host, and is not quoted."""
    given = {"ALERT_WEBHOOK_URL": f"http://{host}/a-token", "UNPROTECTED_HOSTS": host}
    assert load(given)
    with pytest.raises(ConfigurationError, match="ALERT_WEBHOOK_URL is not encrypted") as refused:
        load(PRODUCTION | given, "ops")
    assert "a-token" not in str(refused.value)
    assert load(PRODUCTION | given, "kyc")
    assert load(PRODUCTION | {"ALERT_WEBHOOK_URL": f"https://{host}/a-token"}, "ops")


def test_alert_recipients_must_be_addresses():
    assert load({"ALERT_EMAIL_TO": "ada@ops.example, ola@ops.example"})
    for wrong in ("ada", "ada@ops.example;ola@ops.example,", "a@b.example\nBcc: x@y.example"):
        with pytest.raises(ConfigurationError, match="ALERT_EMAIL_TO"):
            load({"ALERT_EMAIL_TO": wrong})


@pytest.mark.parametrize("place", ["ORDERS", "DEAD_LETTERS", "UNPROVED"])
def test_production_refuses_unlimited_retention(place):
    name = f"RETENTION_{place}_DAYS"
    assert load({name: "0"})
    with pytest.raises(ConfigurationError, match=f"{name} is 0"):
        load(PRODUCTION | {name: "0"})
    # A process that does not remove it does not check it.
    assert load(PRODUCTION | {name: "0"}, "kyc")


def test_all_faults_are_reported_together_each_in_a_line(tmp_path):
    with pytest.raises(ConfigurationError) as refused:
        load(
            PRODUCTION
            | {
                "PORT": "eighty",
                "LOG_LEVEL": "LOUD",
                "SMTP_STARTTLS": "perhaps",
                "CONFIRM_TIMEOUT": "0",
                "PROOF_URL": "api.example",
                "AMQP_PASSWORD_FILE": str(tmp_path / "none"),
                "RECEIPT_SIGNING_KEYS": "no base64!",
                "SERVICE_PASSWORDS": "ingress",
                "SMTP_HOST": "smtp.example",
                "RETENTION_ORDERS_DAYS": "3",
            }
        )
    lines = str(refused.value).splitlines()
    assert [line.split()[0] for line in lines if " must be " in line] == [
        "LOG_LEVEL",
        "PORT",
        "CONFIRM_TIMEOUT",
        "PROOF_URL",
        "SMTP_STARTTLS",
        "SERVICE_PASSWORDS",
        "RETENTION_ORDERS_DAYS",
    ]
    assert "PORT must be a whole number from 1 to 65535, not 'eighty'" in lines
    assert "LOG_LEVEL must be DEBUG, ERROR, INFO or WARNING, not 'LOUD'" in lines
    assert "SMTP_STARTTLS must be true or false, not 'perhaps'" in lines
    assert "CONFIRM_TIMEOUT must be a number above 0, not '0'" in lines
    for name in ("AMQP_PASSWORD_FILE cannot be read", "a key in RECEIPT_SIGNING_KEYS is not base64",
                 "SMTP_HOST speaks to smtp.example without TLS"):  # fmt: skip
        assert any(line.startswith(name) for line in lines), name
    assert not any("^" in line for line in lines), "a pattern is no sentence"


@pytest.mark.parametrize("name", ["AMQP_URL", "DATABASE_URL"])
@pytest.mark.parametrize("environment", ["development", "production"])
def test_an_unreadable_url_is_reported_without_its_password(name, environment):
    scheme = PRODUCTION[name].partition(":")[0]
    for address in (f"{scheme}://fellow:wxyz/ss@host:5/", f"{scheme}://fellow:wxyz@[::1/"):
        with pytest.raises(ConfigurationError, match=f"^{name} cannot be read") as refused:
            load(PRODUCTION | {"ENVIRONMENT": environment, name: address})
        assert "wxyz" not in str(refused.value)
