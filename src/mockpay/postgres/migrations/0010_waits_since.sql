-- When `next_attempt_at` was set, by the clock that it was set by. How long a wait was meant to be is known with it, also
-- after that clock was set back. The default is right for each insert: both are of the same moment.
ALTER TABLE webhook_deliveries ADD COLUMN waits_since timestamptz NOT NULL DEFAULT now();
