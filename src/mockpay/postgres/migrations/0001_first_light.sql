-- Tenants, payments, idempotency keys, the audit trail, webhook deliveries and fraud rules.
--
-- The tenant is the first column of every key of tenant data: another tenant's row can't be reached by a
-- query that has a tenant, and the tables can be distributed by tenant.

CREATE TABLE tenants (
    id uuid CONSTRAINT tenants_pkey PRIMARY KEY,
    name text NOT NULL CONSTRAINT tenants_name_is_sane CHECK (char_length(name) BETWEEN 1 AND 200),
    email text NOT NULL CONSTRAINT tenants_email_is_sane CHECK (char_length(email) BETWEEN 3 AND 320),
    -- The key itself is never stored. A plain hash suffices: the key has 256 random bits, so it can't be guessed.
    api_key_sha256 bytea NOT NULL CONSTRAINT tenants_api_key_is_sha256 CHECK (octet_length(api_key_sha256) = 32),
    rate_limit_tier text NOT NULL
        CONSTRAINT tenants_rate_limit_tier_is_known CHECK (rate_limit_tier IN ('standard', 'high', 'unlimited')),
    webhook_url text,
    created_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX tenants_email_key ON tenants (lower(email));
CREATE UNIQUE INDEX tenants_api_key_sha256_key ON tenants (api_key_sha256);

-- Every live secret signs, which makes rotation a matter of an expiry.
CREATE TABLE webhook_secrets (
    tenant_id uuid NOT NULL CONSTRAINT webhook_secrets_tenant_fkey REFERENCES tenants,
    id uuid NOT NULL,
    secret text NOT NULL CONSTRAINT webhook_secrets_secret_is_hex CHECK (secret ~ '^[0-9a-f]{64}$'),
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    CONSTRAINT webhook_secrets_pkey PRIMARY KEY (tenant_id, id)
);

CREATE TABLE payments (
    tenant_id uuid NOT NULL CONSTRAINT payments_tenant_fkey REFERENCES tenants,
    id uuid NOT NULL,
    amount_minor_units bigint NOT NULL CONSTRAINT payments_amount_is_positive CHECK (amount_minor_units > 0),
    currency text NOT NULL CONSTRAINT payments_currency_is_iso_4217 CHECK (currency ~ '^[A-Z]{3}$'),
    status text NOT NULL CONSTRAINT payments_status_is_known
        CHECK (status IN ('pending', 'success', 'failed', 'flagged', 'refunded', 'partially_refunded')),
    webhook_url text,
    description text,
    metadata jsonb CONSTRAINT payments_metadata_is_object CHECK (jsonb_typeof(metadata) = 'object'),
    idempotency_key text NOT NULL,
    failure_code text,
    failure_message text,
    refund_minor_units bigint,
    refunded_at timestamptz,
    refund_reason text,
    flag_reason text,
    flag_rule text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT payments_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT payments_idempotency_key_key UNIQUE (tenant_id, idempotency_key),
    CONSTRAINT payments_failed_has_code CHECK ((status = 'failed') = (failure_code IS NOT NULL)),
    CONSTRAINT payments_flagged_has_rule CHECK ((status = 'flagged') = (flag_rule IS NOT NULL)),
    CONSTRAINT payments_refunded_has_time CHECK ((refund_minor_units IS NULL) = (refunded_at IS NULL)),
    CONSTRAINT payments_refund_fits_status CHECK (
        CASE status
            WHEN 'refunded' THEN refund_minor_units IS NOT DISTINCT FROM amount_minor_units
            WHEN 'partially_refunded'
                THEN coalesce(refund_minor_units > 0 AND refund_minor_units < amount_minor_units, false)
            ELSE refund_minor_units IS NULL
        END
    )
);
-- Serves the list (newest first, from a cursor) and the velocity count (newest within a window).
CREATE INDEX payments_newest ON payments (tenant_id, created_at DESC, id DESC);

-- The last line of defence of the state machine; payments.model states the same in Python, and a test compares them.
CREATE FUNCTION check_payment_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT (
        (OLD.status = 'pending' AND NEW.status IN ('success', 'failed'))
        OR (OLD.status = 'success' AND NEW.status IN ('refunded', 'partially_refunded'))
    ) THEN
        RAISE EXCEPTION 'payment %: % to % is not a transition', OLD.id, OLD.status, NEW.status
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER payments_transition BEFORE UPDATE OF status ON payments
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION check_payment_transition();

-- The answer to a request, kept under the client's key. The row is inserted before the work is done: a second
-- request with the key waits on this insert, and then finds the answer.
CREATE TABLE idempotency_keys (
    tenant_id uuid NOT NULL CONSTRAINT idempotency_keys_tenant_fkey REFERENCES tenants,
    key text NOT NULL CONSTRAINT idempotency_keys_key_is_sane CHECK (char_length(key) BETWEEN 1 AND 255),
    fingerprint bytea NOT NULL
        CONSTRAINT idempotency_keys_fingerprint_is_sha256 CHECK (octet_length(fingerprint) = 32),
    answer_status smallint,
    answer_body bytea,
    created_at timestamptz NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (tenant_id, key),
    CONSTRAINT idempotency_keys_answer_is_whole CHECK ((answer_status IS NULL) = (answer_body IS NULL))
);

CREATE TABLE audit_log (
    tenant_id uuid NOT NULL,
    payment_id uuid NOT NULL,
    -- The place in the payment's chain, from 1. The key lets no chain fork.
    sequence integer NOT NULL CONSTRAINT audit_log_sequence_is_positive CHECK (sequence > 0),
    id uuid NOT NULL,
    old_status text,
    new_status text NOT NULL,
    triggered_by text NOT NULL CONSTRAINT audit_log_triggered_by_is_known CHECK (
        triggered_by IN ('create_api', 'simulate_api', 'refund_api', 'fraud_engine', 'scenario', 'admin')
    ),
    metadata jsonb NOT NULL CONSTRAINT audit_log_metadata_is_object CHECK (jsonb_typeof(metadata) = 'object'),
    created_at timestamptz NOT NULL,
    prev_hash text NOT NULL CONSTRAINT audit_log_prev_hash_is_sha256 CHECK (prev_hash ~ '^[0-9a-f]{64}$'),
    entry_hash text NOT NULL CONSTRAINT audit_log_entry_hash_is_sha256 CHECK (entry_hash ~ '^[0-9a-f]{64}$'),
    CONSTRAINT audit_log_pkey PRIMARY KEY (tenant_id, payment_id, sequence),
    CONSTRAINT audit_log_payment_fkey FOREIGN KEY (tenant_id, payment_id) REFERENCES payments
);

-- For each statement, not each row: an UPDATE that matches nothing is refused as well.
CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_log is append-only: % is refused', TG_OP USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
-- ALWAYS: also where session_replication_role turns ordinary triggers off.
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_append_only;
REVOKE UPDATE, DELETE, TRUNCATE ON audit_log FROM PUBLIC, CURRENT_USER;

-- The delivery of one event, and at the same time its place in the queue.
CREATE TABLE webhook_deliveries (
    tenant_id uuid NOT NULL CONSTRAINT webhook_deliveries_tenant_fkey REFERENCES tenants,
    id uuid NOT NULL,
    payment_id uuid NOT NULL,
    event_id uuid NOT NULL,
    event text NOT NULL,
    url text NOT NULL,
    -- Of the URL; what a worker counts its concurrency by.
    receiver_host text NOT NULL,
    -- The exact body, so that every attempt sends and signs the same bytes.
    payload text NOT NULL,
    status text NOT NULL DEFAULT 'pending' CONSTRAINT webhook_deliveries_status_is_known
        CHECK (status IN ('pending', 'delivered', 'dead')),
    -- Counted when an attempt is claimed, not when it ends: one that kills its worker counts too.
    attempts integer NOT NULL DEFAULT 0 CONSTRAINT webhook_deliveries_attempts_is_sane CHECK (attempts >= 0),
    max_attempts integer NOT NULL CONSTRAINT webhook_deliveries_max_attempts_is_positive CHECK (max_attempts > 0),
    -- When a worker may take it: the end of a backoff or, while `claimed_at` is set, of the lease.
    next_attempt_at timestamptz NOT NULL,
    claimed_at timestamptz,
    last_error text,
    created_at timestamptz NOT NULL,
    finished_at timestamptz,
    CONSTRAINT webhook_deliveries_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT webhook_deliveries_attempts_within_limit CHECK (attempts <= max_attempts),
    CONSTRAINT webhook_deliveries_finished_has_time CHECK ((status = 'pending') = (finished_at IS NULL)),
    CONSTRAINT webhook_deliveries_finished_is_unclaimed CHECK (status = 'pending' OR claimed_at IS NULL)
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (next_attempt_at) WHERE status = 'pending';
CREATE INDEX webhook_deliveries_of_payment ON webhook_deliveries (tenant_id, payment_id);

CREATE TABLE delivery_attempts (
    tenant_id uuid NOT NULL,
    delivery_id uuid NOT NULL,
    attempt integer NOT NULL CONSTRAINT delivery_attempts_attempt_is_positive CHECK (attempt > 0),
    url text NOT NULL,
    started_at timestamptz NOT NULL,
    duration_milliseconds integer
        CONSTRAINT delivery_attempts_duration_is_sane CHECK (duration_milliseconds >= 0),
    response_status integer,
    -- The first 4 KiB.
    response_body text,
    error text,
    CONSTRAINT delivery_attempts_pkey PRIMARY KEY (tenant_id, delivery_id, attempt),
    CONSTRAINT delivery_attempts_delivery_fkey FOREIGN KEY (tenant_id, delivery_id) REFERENCES webhook_deliveries,
    -- An attempt was answered, or it has an error.
    CONSTRAINT delivery_attempts_has_outcome CHECK ((response_status IS NULL) <> (error IS NULL))
);

CREATE TABLE fraud_rules (
    id uuid CONSTRAINT fraud_rules_pkey PRIMARY KEY,
    name text NOT NULL CONSTRAINT fraud_rules_name_is_sane CHECK (char_length(name) BETWEEN 1 AND 100),
    rule_type text NOT NULL
        CONSTRAINT fraud_rules_rule_type_is_known CHECK (rule_type IN ('velocity', 'amount_limit')),
    -- A number of payments, or of major units.
    threshold numeric NOT NULL CONSTRAINT fraud_rules_threshold_is_sane CHECK (threshold >= 0),
    window_secs integer CONSTRAINT fraud_rules_window_is_positive CHECK (window_secs > 0),
    -- Where these are null the rule holds for every currency, for every tenant.
    currency text CONSTRAINT fraud_rules_currency_is_iso_4217 CHECK (currency ~ '^[A-Z]{3}$'),
    tenant_id uuid CONSTRAINT fraud_rules_tenant_fkey REFERENCES tenants,
    action text NOT NULL DEFAULT 'flag' CONSTRAINT fraud_rules_action_is_known CHECK (action = 'flag'),
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT fraud_rules_velocity_has_window CHECK ((rule_type = 'velocity') = (window_secs IS NOT NULL)),
    CONSTRAINT fraud_rules_velocity_is_a_count CHECK (rule_type <> 'velocity' OR threshold = trunc(threshold))
);
INSERT INTO fraud_rules (id, name, rule_type, threshold, window_secs) VALUES
    ('00000000-0000-7000-8000-000000000001', 'velocity', 'velocity', 5, 60),
    ('00000000-0000-7000-8000-000000000002', 'amount_limit', 'amount_limit', 100000, NULL);
