"""Many runs of one plan: the plan, the processes that train it, and the ledger of finished runs."""
