"""The kinds of harmless request: how each is asked, understood, answered and graded."""
