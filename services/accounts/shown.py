"""Check of an account's password that still holds when the caller acts on it."""

from sqlalchemy.orm import Session

from shared.db.models import Account
from shared.security import passwords


def is_right(session: Session, account: Account, password: str) -> bool:
    """Return whether a password is an account's; if so, the account is locked.

    The slow comparison runs without a lock, so that guesses do not block the owner. Another request
    may set a new password meanwhile, which ends all sessions but would miss the one that begins
    now: so the hash is read again under the lock.

    Args:
        session: the transaction.
        account: the account, with its password hash loaded.
        password: the password.
    """
    compared = account.password_hash
    if not passwords.matches(password, compared):
        return False
    hold(session, account)
    if account.closed_at is not None:
        return False
    return account.password_hash == compared or passwords.matches(password, account.password_hash)


def hold(session: Session, account: Account) -> None:
    """Reload an account and lock it until the transaction ends."""
    columns = ("email", "password_hash", "closed_at")
    session.refresh(account, columns, with_for_update={"key_share": True})
