"""Why two versions differ: every difference, walked through their lineage to where it comes from."""
