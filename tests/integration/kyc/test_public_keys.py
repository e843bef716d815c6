"""The fact of a revocation names the public keys that ended with the approval."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select

from services.kyc.handlers import decide
from shared.bus.contract.events import KycDecide, KycRevoked, decode
from shared.db.models import OutboxMessage, WebhookPublicKey
from shared.db.session import transaction
from shared.ids import new_id
from tests.integration.arrange import account, received


def test_it_names_them(settings, db):
    business = account(db, status="approved")
    key = WebhookPublicKey(
        id=new_id(),
        account_id=business.id,
        public_key=Ed25519PrivateKey.generate().public_key().public_bytes_raw(),
        state="active",
    )
    db.add(key)
    db.commit()
    with transaction() as session:
        decide(session, received(KycDecide(decision="revoke", account_id=business.id)))
    rows = db.scalars(select(OutboxMessage).where(OutboxMessage.type == KycRevoked.TYPE)).all()
    assert [decode(row.type, row.body).secret_ids for row in rows] == [(key.id,)]
