-- What lets payments of many requests be written by one statement, and makes a row of them cheap.

-- How often payments of a tenant were created. Whoever counts a tenant's recent payments reads this with them, and writes
-- only if it still is what it was: so the count is exact without a lock that is held from the one to the other. The space
-- left free keeps each change on its page (HOT).
CREATE TABLE creation_counters (
    tenant_id uuid CONSTRAINT creation_counters_pkey PRIMARY KEY
        CONSTRAINT creation_counters_tenant_fkey REFERENCES tenants,
    creations bigint NOT NULL DEFAULT 0 CONSTRAINT creation_counters_creations_is_sane CHECK (creations >= 0)
) WITH (fillfactor = 50);
INSERT INTO creation_counters (tenant_id) SELECT id FROM tenants;
CREATE FUNCTION count_creations_of_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO creation_counters (tenant_id) VALUES (NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER tenants_have_counter AFTER INSERT ON tenants FOR EACH ROW EXECUTE FUNCTION count_creations_of_tenant();

-- An index that no query uses. That a key makes one payment is stated by the primary key of idempotency_keys, into which
-- every creation writes.
ALTER TABLE payments DROP CONSTRAINT payments_idempotency_key_key;

-- The same checks without a regular expression, which took a tenth of the time of writing a payment.
ALTER TABLE audit_log
    DROP CONSTRAINT audit_log_prev_hash_is_sha256,
    DROP CONSTRAINT audit_log_entry_hash_is_sha256,
    ADD CONSTRAINT audit_log_prev_hash_is_sha256
        CHECK (octet_length(prev_hash) = 64 AND translate(prev_hash, '0123456789abcdef', '') = ''),
    ADD CONSTRAINT audit_log_entry_hash_is_sha256
        CHECK (octet_length(entry_hash) = 64 AND translate(entry_hash, '0123456789abcdef', '') = '');
ALTER TABLE payments
    DROP CONSTRAINT payments_currency_is_iso_4217,
    ADD CONSTRAINT payments_currency_is_iso_4217
        CHECK (octet_length(currency) = 3 AND translate(currency, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', '') = '');
