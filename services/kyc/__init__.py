"""KYC: businesses submit applications, operators decide on them over the bus."""

SOURCE = "services.kyc"
