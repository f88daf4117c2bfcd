"""`esteira promote`, `esteira rollback` and `esteira history`: the promotion ledger from the command line."""
