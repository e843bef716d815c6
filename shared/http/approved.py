"""Whether a business may use webhooks: its KYC is approved."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.db.models import KycApplication
from shared.http.errors import ApiError

KYC_REQUIRED = (403, "kyc_approval_required", "KYC approval required")


def is_approved(session: Session, account_id: UUID) -> bool:
    """Whether the account's KYC is approved at the moment; nothing that stays so."""
    return bool(
        session.scalar(
            select(
                select(KycApplication.id)
                .where(KycApplication.account_id == account_id)
                .where(KycApplication.status == "approved")
                .exists()
            )
        )
    )


def not_approved() -> ApiError:
    """The 403 to a business whose KYC is not approved."""
    return ApiError(
        *KYC_REQUIRED,
        message="You must complete and have your KYC approved to access webhook functionality.",
    )
