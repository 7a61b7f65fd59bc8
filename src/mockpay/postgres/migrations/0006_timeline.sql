-- What clients asked, for the timeline. Rows are written in batches after the answers, and swept up after a day or so:
-- no foreign key, which would lock the tenant's row each time for nothing.
CREATE TABLE requests (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    started_at timestamptz NOT NULL,
    request_id text NOT NULL,
    method text NOT NULL,
    path text NOT NULL,
    operation text,
    payment_id uuid,
    idempotency_key text,
    -- Null where no answer was sent.
    status integer,
    replayed boolean NOT NULL,
    duration_milliseconds integer NOT NULL,
    fault text,
    fault_rule uuid,
    CONSTRAINT requests_pkey PRIMARY KEY (tenant_id, started_at, id)
);
CREATE INDEX requests_of_payment ON requests (tenant_id, payment_id, started_at) WHERE payment_id IS NOT NULL;
-- Which request made a payment is told by its key.
CREATE INDEX requests_that_create ON requests (tenant_id, idempotency_key) WHERE operation = 'create';

-- The other entries of the timeline, each in the order of time.
CREATE INDEX audit_log_in_time ON audit_log (tenant_id, created_at, id);
CREATE INDEX webhook_deliveries_in_time ON webhook_deliveries (tenant_id, created_at, id);
CREATE INDEX delivery_attempts_in_time ON delivery_attempts (tenant_id, started_at, delivery_id);
