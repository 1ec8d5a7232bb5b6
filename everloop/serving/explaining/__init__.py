"""Explanations of answers at request time: a worker of their own, asked only by who wants one."""
