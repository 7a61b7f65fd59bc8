"""What happened, in order: requests, changes of payments, webhooks and their attempts, and the faults among them."""
