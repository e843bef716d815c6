"""KYC: businesses submit, operators decide over the bus."""

SOURCE = "services.kyc"
