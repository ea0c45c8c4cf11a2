"""Sweeps: plans of many runs, the processes that train them, and the ledger of finished runs."""
