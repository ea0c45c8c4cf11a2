"""Many runs and what they say together: sweeps, the ledger of finished runs, and pages that hold ours beside the papers'."""
