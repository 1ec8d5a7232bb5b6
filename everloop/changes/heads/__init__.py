"""Data in changes: a head that moves by review, judged by the contract that its environment holds."""
