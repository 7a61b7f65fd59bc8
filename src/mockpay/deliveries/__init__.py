"""Webhook deliveries as their sender sees them: list, replay. Above payments, which know where a webhook goes."""
