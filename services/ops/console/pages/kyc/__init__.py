"""The KYC desk: applications, decisions on them, and operators' notes."""

from services.ops.console.pages.kyc import desk, notes

PAGES = (*desk.PAGES, *notes.PAGES)
