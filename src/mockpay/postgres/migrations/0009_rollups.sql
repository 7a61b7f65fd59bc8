-- Figures of the whole server without counting its rows, and lists by any filter and claims at any size.

-- How many rows of a kind there are: the sum over the rows here that match. Each connection adds to rows of its own, so
-- that none waits for another; housekeeping puts them together. The space left free keeps each change on its page (HOT).
CREATE TABLE rollups (
    figure text NOT NULL CONSTRAINT rollups_figure_is_known
        CHECK (figure IN ('payments', 'audit_entries', 'deliveries', 'attempts')),
    -- Which of them: a status; of audit entries first or later; of attempts successful or failed.
    label text NOT NULL,
    -- Empty where there is none.
    currency text NOT NULL,
    -- When it was created, as long as that matters: '-infinity' is any earlier time.
    minute timestamptz NOT NULL,
    -- The server process that counted; 0 is what housekeeping put together.
    backend integer NOT NULL,
    rows bigint NOT NULL,
    -- Minor units of payments; retries of deliveries that are over.
    total bigint NOT NULL,
    CONSTRAINT rollups_pkey PRIMARY KEY (figure, label, currency, minute, backend)
) WITH (fillfactor = 50);

CREATE FUNCTION minute_of(moment timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN date_bin('1 minute', moment, '2000-01-01 00:00:00+00');

-- What both sides call a row, so that they can't differ.
CREATE FUNCTION label_of_audit_entry(sequence integer) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE sequence WHEN 1 THEN 'first' ELSE 'later' END;
CREATE FUNCTION label_of_attempt(response_status integer) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN response_status BETWEEN 200 AND 299 THEN 'successful' ELSE 'failed' END;
CREATE FUNCTION retries_of(status text, attempts integer) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE status WHEN 'pending' THEN 0 ELSE greatest(attempts - 1, 0) END;

-- The same figures, counted: what rollups are made from here, and must add up to at any time.
CREATE VIEW counted_rollups AS
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
    FROM delivery_attempts GROUP BY label_of_attempt(response_status);

-- In one order, so that two of these can't wait for each other.
CREATE FUNCTION add_to_rollups(changes rollups[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO rollups (figure, label, currency, minute, backend, rows, total)
    SELECT figure, label, currency, minute, pg_backend_pid(), rows, total FROM unnest(changes)
    WHERE rows <> 0 OR total <> 0
    ORDER BY figure, label, currency, minute
    ON CONFLICT (figure, label, currency, minute, backend)
        DO UPDATE SET rows = rollups.rows + excluded.rows, total = rollups.total + excluded.total;
END $$;

-- Of each statement: what there was is taken off, and what there is now is added.
CREATE FUNCTION roll_up_payments() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
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
CREATE FUNCTION roll_up_audit_entries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM add_to_rollups(ARRAY(
        SELECT ROW ('audit_entries', label_of_audit_entry(sequence), '', minute_of(created_at), 0, count(*),
                    0)::rollups
        FROM new_rows GROUP BY label_of_audit_entry(sequence), minute_of(created_at)
    ));
    RETURN NULL;
END $$;
CREATE FUNCTION roll_up_deliveries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    CASE TG_OP
    WHEN 'INSERT' THEN
        PERFORM add_to_rollups(ARRAY(
            SELECT ROW ('deliveries', status, '', '-infinity', 0, count(*), sum(retries_of(status, attempts)))::rollups
            FROM new_rows GROUP BY status
        ));
    WHEN 'UPDATE' THEN
        PERFORM add_to_rollups(ARRAY(
            SELECT ROW ('deliveries', status, '', '-infinity', 0, sum(sign),
                        sum(sign * retries_of(status, attempts)))::rollups
            FROM (
                SELECT -1 AS sign, status, attempts FROM old_rows
                UNION ALL SELECT 1, status, attempts FROM new_rows
            ) AS changed
            GROUP BY status
        ));
    WHEN 'DELETE' THEN
        PERFORM add_to_rollups(ARRAY(
            SELECT ROW ('deliveries', status, '', '-infinity', 0, -count(*),
                        -sum(retries_of(status, attempts)))::rollups
            FROM old_rows GROUP BY status
        ));
    END CASE;
    RETURN NULL;
END $$;
CREATE FUNCTION roll_up_attempts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    CASE TG_OP
    WHEN 'INSERT' THEN
        PERFORM add_to_rollups(ARRAY(
            SELECT ROW ('attempts', label_of_attempt(response_status), '', '-infinity', 0, count(*), 0)::rollups
            FROM new_rows GROUP BY label_of_attempt(response_status)
        ));
    WHEN 'DELETE' THEN
        PERFORM add_to_rollups(ARRAY(
            SELECT ROW ('attempts', label_of_attempt(response_status), '', '-infinity', 0, -count(*), 0)::rollups
            FROM old_rows GROUP BY label_of_attempt(response_status)
        ));
    END CASE;
    RETURN NULL;
END $$;

-- Each locks its table against writers, which leaves the count below as it is when the triggers go on from it. What
-- can't happen has none: payments and audit entries are never deleted, entries and attempts never changed.
CREATE TRIGGER payments_inserted AFTER INSERT ON payments
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION roll_up_payments();
CREATE TRIGGER payments_updated AFTER UPDATE ON payments
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION roll_up_payments();
CREATE TRIGGER audit_log_inserted AFTER INSERT ON audit_log
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION roll_up_audit_entries();
CREATE TRIGGER webhook_deliveries_inserted AFTER INSERT ON webhook_deliveries
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION roll_up_deliveries();
CREATE TRIGGER webhook_deliveries_updated AFTER UPDATE ON webhook_deliveries
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION roll_up_deliveries();
CREATE TRIGGER webhook_deliveries_deleted AFTER DELETE ON webhook_deliveries
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION roll_up_deliveries();
CREATE TRIGGER delivery_attempts_inserted AFTER INSERT ON delivery_attempts
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION roll_up_attempts();
CREATE TRIGGER delivery_attempts_deleted AFTER DELETE ON delivery_attempts
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION roll_up_attempts();

INSERT INTO rollups (figure, label, currency, minute, backend, rows, total)
SELECT figure, label, currency, minute, 0, rows, total FROM counted_rollups;

-- What is due for one receiver, however much waits for another.
CREATE INDEX webhook_deliveries_due_of_host ON webhook_deliveries (receiver_host, next_attempt_at)
    WHERE status = 'pending';

-- The age of the oldest delivery that waits, however many do.
CREATE INDEX webhook_deliveries_oldest_pending ON webhook_deliveries (created_at) WHERE status = 'pending';

-- A list by status, by currency or by both, however few payments of a tenant match: each pair of the two has its
-- stretch of this index, newest first.
CREATE INDEX payments_filtered ON payments (tenant_id, status, currency, created_at DESC, id DESC);
