-- Faults on webhooks. Rules are of requests or of webhooks, and what was done to a webhook is kept with it.
ALTER TABLE fault_rules
    ADD COLUMN target text NOT NULL DEFAULT 'request'
        CONSTRAINT fault_rules_target_is_known CHECK (target IN ('request', 'webhook')),
    -- Any, where it is null.
    ADD COLUMN event text,
    ADD CONSTRAINT fault_rules_matches_its_target
        CHECK (CASE target WHEN 'request' THEN event IS NULL ELSE operation IS NULL END);
ALTER TABLE fault_rules ALTER COLUMN target DROP DEFAULT;

-- The fault was chosen when the event happened, in the same transaction; its rule may be gone since.
ALTER TABLE webhook_deliveries
    ADD COLUMN fault text,
    ADD COLUMN fault_rule uuid,
    ADD CONSTRAINT webhook_deliveries_fault_has_rule CHECK ((fault IS NULL) = (fault_rule IS NULL));

ALTER TABLE delivery_attempts
    -- 0 is the attempt itself; the others are what a fault sent beside it.
    ADD COLUMN copy integer NOT NULL DEFAULT 0 CONSTRAINT delivery_attempts_copy_is_sane CHECK (copy >= 0),
    -- What spoilt this attempt, and what it sent therefore; null where it sent what it should.
    ADD COLUMN fault text,
    ADD COLUMN sent_headers jsonb,
    ADD COLUMN sent_body text,
    DROP CONSTRAINT delivery_attempts_pkey,
    ADD CONSTRAINT delivery_attempts_pkey PRIMARY KEY (tenant_id, delivery_id, attempt, copy);
