"""A request with an idempotency key does its work once; every repeat gets the stored answer."""
