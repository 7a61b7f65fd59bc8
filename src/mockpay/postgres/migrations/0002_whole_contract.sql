-- Rotation of webhook secrets, rate limits, replays, and the lists of deliveries and dead letters.

-- The secret without an end is the tenant's own; one that was rotated out signs beside it until it expires.
CREATE UNIQUE INDEX webhook_secrets_current ON webhook_secrets (tenant_id) WHERE expires_at IS NULL;

-- One row for each limit and whom it limits. UNLOGGED: a hit costs no flush to disk, and what a crash of the server
-- may lose is no more than the count of a few minutes. The space left free keeps each hit on its page (HOT).
CREATE UNLOGGED TABLE rate_limits (
    key text CONSTRAINT rate_limits_pkey PRIMARY KEY,
    hits bigint NOT NULL CONSTRAINT rate_limits_hits_is_positive CHECK (hits > 0),
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- A replay goes on counting attempts, so that each has its own number for ever, but its backoff starts anew.
ALTER TABLE webhook_deliveries ADD COLUMN attempts_before_replay integer NOT NULL DEFAULT 0
    CONSTRAINT webhook_deliveries_attempts_before_replay_is_sane
        CHECK (attempts_before_replay BETWEEN 0 AND attempts);

-- Ids are UUIDv7, so their order is that of creation: lists need no index beside the primary key. Dead letters are few
-- among many, so they have one of their own, over all tenants and for each.
CREATE INDEX webhook_deliveries_dead ON webhook_deliveries (id) WHERE status = 'dead';
CREATE INDEX webhook_deliveries_dead_of_tenant ON webhook_deliveries (tenant_id, id) WHERE status = 'dead';
