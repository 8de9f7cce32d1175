"""What went in: the ledger's rows, and what earlier loads say about this one."""
