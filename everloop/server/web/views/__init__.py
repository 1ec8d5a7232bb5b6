"""The pages, one module a noun: each function takes a visit and gives a response."""
