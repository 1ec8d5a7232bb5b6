"""Sensitive data: found by column, tagged, carried through lineage, and masked for those who may not read it."""
