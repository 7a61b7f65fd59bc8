"""What the administrator of a server may do: dead letters, tenants' tiers, fraud rules, metrics."""
