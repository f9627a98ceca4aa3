"""Where a result comes from: the chain of receipts behind it, whether it still holds, and the run as an RO-Crate."""
