"""What every admin route has in common."""

from typing import Any, Final

from mockpay import errors
from mockpay.tenants.gate import require_admin

ADMIN_ROUTE: Final[dict[str, Any]] = {"guards": [require_admin], "security": [{"adminKey": []}], "tags": ["admin"]}
"""For the decorator of every such route. A tenant's key gets a 403."""
ADMIN_ERRORS: Final = (errors.Unauthorized, errors.Forbidden, errors.RateLimited, errors.DatabaseUnavailable)
