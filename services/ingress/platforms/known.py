"""The list of platforms. To add one, write its module and name it here."""

from services.ingress.platforms import shopify, woocommerce

PLATFORMS = (woocommerce.PLATFORM, shopify.PLATFORM)
