-- What one tenant leaves behind, or has waiting, no longer costs the others anything.

-- Of the secrets that were rotated out the newest is kept: it may sign beside the current one, and a fault asks for it.
-- All others stopped signing when that one was rotated out.
DELETE FROM webhook_secrets USING (
    SELECT tenant_id, id,
           row_number() OVER (PARTITION BY tenant_id ORDER BY expires_at DESC, created_at DESC, id DESC) AS place
    FROM webhook_secrets WHERE expires_at IS NOT NULL
) AS retired
WHERE webhook_secrets.tenant_id = retired.tenant_id AND webhook_secrets.id = retired.id AND retired.place > 1;
-- The current one comes first, and then the one that was rotated out last.
CREATE INDEX webhook_secrets_newest ON webhook_secrets (tenant_id, expires_at DESC NULLS FIRST);

-- What can be forgotten, oldest first, and no dead letter among it.
CREATE INDEX webhook_deliveries_delivered ON webhook_deliveries (finished_at) WHERE status = 'delivered';

-- What waits, in the order of time tenant by tenant, and of a tenant host by host. No index is in the order of time of all
-- tenants together any more: whoever waits behind a million of one tenant would be found behind them.
DROP INDEX webhook_deliveries_due;
DROP INDEX webhook_deliveries_due_of_host;
CREATE INDEX webhook_deliveries_due_of_tenant ON webhook_deliveries (tenant_id, next_attempt_at, id)
    WHERE status = 'pending';
CREATE INDEX webhook_deliveries_due_of_host ON webhook_deliveries (tenant_id, receiver_host, next_attempt_at)
    WHERE status = 'pending';
