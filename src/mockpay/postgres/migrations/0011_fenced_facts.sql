-- What lets two processes create payments of one tenant without undoing each other's batches, keys that expire,
-- figures that nobody has to count, and planned outcomes that can't be settled and hold nobody up.

-- How many payments a tenant has made. It was how often payments were created, several at a time. Until this is
-- committed nobody writes payments, so the count is whole.
LOCK TABLE payments IN SHARE ROW EXCLUSIVE MODE;
UPDATE creation_counters AS counter SET creations = (
    SELECT count(*) FROM payments WHERE payments.tenant_id = counter.tenant_id
);

-- Who creates payments has locked the counters of their tenants already, in one order.
CREATE OR REPLACE FUNCTION roll_up_payments() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE creation_counters AS counter SET creations = counter.creations + made.payments
        FROM (SELECT tenant_id, count(*) AS payments FROM new_rows GROUP BY tenant_id) AS made
        WHERE counter.tenant_id = made.tenant_id;
        PERFORM add_to_rollups(ARRAY(
            SELECT ROW ('payments', status, currency, minute_of(created_at), 0, count(*),
                        sum(amount_minor_units))::rollups
            FROM new_rows GROUP BY status, currency, minute_of(created_at)
        ));
    ELSE
        PERFORM add_to_rollups(ARRAY(
            SELECT ROW ('payments', status, currency, minute_of(created_at), 0, sum(sign),
                        sum(sign * amount_minor_units))::rollups
            FROM (
                SELECT -1 AS sign, status, currency, created_at, amount_minor_units FROM old_rows
                UNION ALL SELECT 1, status, currency, created_at, amount_minor_units FROM new_rows
            ) AS changed
            GROUP BY status, currency, minute_of(created_at)
        ));
    END IF;
    RETURN NULL;
END $$;

-- Tenants are counted like everything else that an administrator sees.
LOCK TABLE tenants IN SHARE ROW EXCLUSIVE MODE;
ALTER TABLE rollups
    DROP CONSTRAINT rollups_figure_is_known,
    ADD CONSTRAINT rollups_figure_is_known
        CHECK (figure IN ('payments', 'audit_entries', 'deliveries', 'attempts', 'tenants'));
CREATE OR REPLACE VIEW counted_rollups AS
    SELECT 'payments' AS figure, status AS label, currency, minute_of(created_at) AS minute, count(*) AS rows,
           sum(amount_minor_units)::bigint AS total
    FROM payments GROUP BY status, currency, minute_of(created_at)
    UNION ALL
    SELECT 'audit_entries', label_of_audit_entry(sequence), '', minute_of(created_at), count(*), 0
    FROM audit_log GROUP BY label_of_audit_entry(sequence), minute_of(created_at)
    UNION ALL
    SELECT 'deliveries', status, '', '-infinity', count(*), sum(retries_of(status, attempts))
    FROM webhook_deliveries GROUP BY status
    UNION ALL
    SELECT 'attempts', label_of_attempt(response_status), '', '-infinity', count(*), 0
    FROM delivery_attempts GROUP BY label_of_attempt(response_status)
    UNION ALL
    SELECT 'tenants', 'registered', '', '-infinity', count(*), 0 FROM tenants HAVING count(*) > 0;
CREATE FUNCTION roll_up_tenants() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM add_to_rollups(ARRAY(
        SELECT ROW ('tenants', 'registered', '', '-infinity', 0, count(*), 0)::rollups FROM new_rows
    ));
    RETURN NULL;
END $$;
CREATE TRIGGER tenants_inserted AFTER INSERT ON tenants
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION roll_up_tenants();
INSERT INTO rollups (figure, label, currency, minute, backend, rows, total)
SELECT figure, label, currency, minute, 0, rows, total FROM counted_rollups WHERE figure = 'tenants';

-- The rules that hold for a tenant, however many hold for others.
CREATE INDEX fraud_rules_of_tenant ON fraud_rules (tenant_id, created_at, id) WHERE is_active;

-- The status comes first: led by the tenant, this index was taken to find a payment by its id in a table that was empty when
-- the statement was planned.
DROP INDEX payments_filtered;
CREATE INDEX payments_filtered ON payments (status, tenant_id, currency, created_at DESC, id DESC);

-- What a fault holds back until the next event of its payment, however much waits beside it.
CREATE INDEX webhook_deliveries_reordered ON webhook_deliveries (tenant_id, payment_id)
    WHERE status = 'pending' AND starts_with(fault, 'reorder');

-- Each request or webhook that a rule is asked about changes its counts; the space left free keeps that on its page.
ALTER TABLE fault_rules SET (fillfactor = 50);

-- Keys expire, and are found by their age. A fingerprint says by which version of its form it was made.
ALTER TABLE idempotency_keys ADD COLUMN fingerprint_version smallint NOT NULL DEFAULT 1;
CREATE INDEX idempotency_keys_in_time ON idempotency_keys (created_at);

-- Planned outcomes that could not be settled when they were due. Each waits here, longer each time, and shows why.
CREATE TABLE put_off_outcomes (
    tenant_id uuid NOT NULL,
    payment_id uuid NOT NULL,
    failures integer NOT NULL CONSTRAINT put_off_outcomes_failures_is_positive CHECK (failures > 0),
    error text NOT NULL,
    retry_at timestamptz NOT NULL,
    CONSTRAINT put_off_outcomes_pkey PRIMARY KEY (tenant_id, payment_id),
    CONSTRAINT put_off_outcomes_payment_fkey FOREIGN KEY (tenant_id, payment_id) REFERENCES payments
);
