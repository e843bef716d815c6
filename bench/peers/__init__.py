"""The contenders: small programs that do the same work with what people would pick instead."""
