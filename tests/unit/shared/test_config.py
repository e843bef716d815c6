import msgspec
import pytest

from shared.config import (
    DEVELOPMENT_ENCRYPTION_KEY,
    DEVELOPMENT_JWT_KEY,
    DEVELOPMENT_RECEIPT_KEY,
    ConfigurationError,
    Settings,
    load,
)

PRODUCTION = {
    "ENVIRONMENT": "production",
    "SECRET_ENCRYPTION_KEYS": "f" * 43 + "=",
    "JWT_SIGNING_KEY": "k" * 48,
    "RECEIPT_SIGNING_KEYS": "r" * 43 + "=",
    "AMQP_URL": "amqps://fellow:pw@broker.example/",
    "DATABASE_URL": "postgresql+psycopg2://fellow:pw@db.example/order_fellow?sslmode=verify-full",
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
        ("DATABASE_URL", "postgresql://u@h/d"),
    ],
)
def test_a_bad_value_is_refused_by_name(name, value):
    with pytest.raises(ConfigurationError, match=name):
        load({name: value})


def test_production_starts_with_keys_of_its_own():
    assert load(PRODUCTION).environment == "production"


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


def test_a_password_apart_is_put_into_the_address():
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


def test_a_process_has_no_key_that_it_does_not_need():
    settings = load(PRODUCTION, "orders")
    assert settings.encryption_keys() == settings.receipt_keys() == ()
    assert settings.jwt_signing_key == ""


def test_what_the_journal_says_again_is_still_known():
    """Else it would be done again. What is unproved is not in the journal."""
    for days in ("1", "7"):
        with pytest.raises(ConfigurationError, match=r"RETENTION_ORDERS_DAYS.*journal"):
            load({"RETENTION_ORDERS_DAYS": days})
    assert load({"RETENTION_ORDERS_DAYS": "8", "RETENTION_UNPROVED_DAYS": "1"})


@pytest.mark.parametrize("place", ["ORDERS", "DEAD_LETTERS", "UNPROVED"])
def test_nothing_is_for_ever_in_production(place):
    name = f"RETENTION_{place}_DAYS"
    assert load({name: "0"})
    with pytest.raises(ConfigurationError, match=f"{name} is 0"):
        load(PRODUCTION | {name: "0"})
    # Who does not remove it does not ask.
    assert load(PRODUCTION | {name: "0"}, "kyc")
