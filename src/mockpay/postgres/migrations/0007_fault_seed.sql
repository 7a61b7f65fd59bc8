-- What a fault leaves to chance later, the waits between attempts, comes from a seed as well.
ALTER TABLE webhook_deliveries
    ADD COLUMN fault_seed bigint,
    ADD CONSTRAINT webhook_deliveries_seed_is_of_fault CHECK (fault_seed IS NULL OR fault IS NOT NULL);
