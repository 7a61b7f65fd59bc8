"""`mockpay api` with one layer less: nothing can make a request fail. For comparison only."""

from unittest.mock import patch

from mockpay import app, cli

with patch.object(app, "Faults", lambda inner, *_: inner):
    cli.main()
