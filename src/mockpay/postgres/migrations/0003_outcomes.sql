-- Outcomes that come by themselves. The payment's row is its own place in the queue: a payment that was decided in
-- another way meanwhile is no longer pending, and so no longer in it.
ALTER TABLE payments
    ADD COLUMN payment_method text
        CONSTRAINT payments_payment_method_is_sane CHECK (char_length(payment_method) BETWEEN 1 AND 100),
    -- What was decided when the payment was created; pending: to leave it as it is.
    ADD COLUMN outcome_status text
        CONSTRAINT payments_outcome_status_is_known CHECK (outcome_status IN ('pending', 'success', 'failed')),
    ADD COLUMN outcome_failure_code text,
    ADD COLUMN outcome_seed bigint,
    ADD COLUMN outcome_due_at timestamptz,
    ADD CONSTRAINT payments_outcome_is_whole CHECK ((outcome_status IS NULL) = (outcome_seed IS NULL)),
    ADD CONSTRAINT payments_outcome_failed_has_code
        CHECK ((outcome_status IS NOT DISTINCT FROM 'failed') = (outcome_failure_code IS NOT NULL)),
    ADD CONSTRAINT payments_outcome_has_time
        CHECK (coalesce(outcome_status IN ('success', 'failed'), false) = (outcome_due_at IS NOT NULL));

-- Holds only what waits for its outcome. A payment without one costs nothing here.
CREATE INDEX payments_outcome_due ON payments (outcome_due_at) WHERE status = 'pending' AND outcome_due_at IS NOT NULL;
