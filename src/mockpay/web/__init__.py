"""The HTTP habits that every route shares: strict bodies, exact answers, request ids, one error shape."""
