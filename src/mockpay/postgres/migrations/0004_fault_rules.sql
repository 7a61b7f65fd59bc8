-- Faults by rule. The flag lets a request of a tenant without rules pass without a look at their table.
ALTER TABLE tenants ADD COLUMN has_faults boolean NOT NULL DEFAULT false;

CREATE TABLE fault_rules (
    tenant_id uuid NOT NULL CONSTRAINT fault_rules_tenant_fkey REFERENCES tenants,
    id uuid NOT NULL,
    -- Any, where it is null.
    operation text,
    -- As the header X-MockPay-Fault would ask for it.
    fault text NOT NULL,
    -- At most one of these; none is always.
    times integer CONSTRAINT fault_rules_times_is_positive CHECK (times > 0),
    every integer CONSTRAINT fault_rules_every_is_positive CHECK (every > 0),
    probability numeric CONSTRAINT fault_rules_probability_is_sane CHECK (probability BETWEEN 0 AND 1),
    seed bigint NOT NULL,
    -- Requests that the rule was asked about, and those that it made fail.
    matched bigint NOT NULL DEFAULT 0,
    fired bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    CONSTRAINT fault_rules_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT fault_rules_has_one_mode CHECK (num_nonnulls(times, every, probability) <= 1),
    CONSTRAINT fault_rules_fired_is_sane CHECK (fired BETWEEN 0 AND matched)
);
