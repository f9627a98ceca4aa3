"""MSRL: structural representation learning over a graph of cases (ICLR 2026, OpenReview 24QX6XpvSL)."""
