"""An erasure finds a customer's address in what a mail server said of an email to another one."""

from importlib import import_module

revision = "0054"
down_revision = "0053"

_BY_RECIPIENT = """UPDATE public.email_deliveries SET recipient = 'erased@erased.invalid',
            message_id = '[erased]',
            response = CASE response WHEN '' THEN '' ELSE '[erased]' END
        WHERE id = ANY(emails);"""
# Who forwards mail quotes the address behind it.
_BY_TEXT = """UPDATE public.email_deliveries SET
            recipient = CASE WHEN id = ANY(emails) THEN 'erased@erased.invalid' ELSE recipient END,
            message_id = CASE WHEN id = ANY(emails) THEN '[erased]' ELSE message_id END,
            response = CASE
                WHEN response = '' THEN ''
                WHEN id = ANY(emails) THEN '[erased]'
                ELSE regexp_replace(response, mention, '[erased]', 'gi')
            END
        WHERE id = ANY(emails) OR response ~* mention;"""
_AFTER = "place := 'email_deliveries'; RETURN NEXT;"
_SUPPRESSED = f"""{_AFTER}

        UPDATE public.suppressions
        SET response = regexp_replace(response, mention, '[erased]', 'gi')
        WHERE response ~* mention;
        GET DIAGNOSTICS touched = ROW_COUNT;
        place := 'suppressions'; RETURN NEXT;"""  # noqa: S608 - our own text
_shops = import_module("shared.db.migrations.versions.0038_what_shops_send")


def upgrade() -> None:
    _shops._replace("erase_customer(text)", _BY_RECIPIENT, _BY_TEXT)
    _shops._replace("erase_customer(text)", _AFTER, _SUPPRESSED)


def downgrade() -> None:
    _shops._replace("erase_customer(text)", _SUPPRESSED, _AFTER)
    _shops._replace("erase_customer(text)", _BY_TEXT, _BY_RECIPIENT)
