"""A password that is shown: whether it is the account's, and still is when that takes effect."""

from sqlalchemy.orm import Session

from shared.db.models import Account
from shared.security import passwords


def is_right(session: Session, account: Account, password: str) -> bool:
    """Whether a password is an account's; then nobody changes or closes the account meanwhile.

    It is compared without a lock, since that takes long and a flood of guesses must hold up nobody.
    Whoever sets another password in that time ends all sessions, and this one would not be among
    them: so what was compared is looked at once more, under the lock.

    Args:
        session: the transaction.
        account: with its password's hash.
        password: as it was given.
    """
    compared = account.password_hash
    if not passwords.matches(password, compared):
        return False
    hold(session, account)
    if account.closed_at is not None:
        return False
    return account.password_hash == compared or passwords.matches(password, account.password_hash)


def hold(session: Session, account: Account) -> None:
    """Read an account anew, and keep others from changing it until the transaction ends."""
    columns = ("email", "password_hash", "closed_at")
    session.refresh(account, columns, with_for_update={"key_share": True})
