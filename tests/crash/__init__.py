"""Kill -9 of whatever runs, at moments that a seed decides, under load; and then a look into the books.

A bounded part is in `make test`. `make soak` does it for twenty minutes: python -m tests.crash --help
"""
