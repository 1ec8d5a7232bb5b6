"""Tables of what recipes are made of, and of what steps read beside it."""

from sqlalchemy import Column, Table, Text

from everloop.catalog.tables.columns import Key, Moment, metadata

ingredients = Table(  # a closure's parts or the packages of a step: the same for many recipes
    "ingredients",
    metadata,
    Column("project", Key, primary_key=True),
    Column("id", Key, primary_key=True),
    Column("content", Text, nullable=False),
)

recipes = Table(
    "recipes",
    metadata,
    Column("project", Key, primary_key=True),
    Column("recipe", Key, primary_key=True),
    Column("step", Key, nullable=False),
    Column("code", Key, nullable=False),
    Column("packages", Key, nullable=False),
    Column("rest", Text, nullable=False),
)

leaks = Table(  # what an execution read that its recipe does not hold; the output is reused while all of it is the same
    "leaks",
    metadata,
    Column("project", Key, primary_key=True),
    Column("recipe", Key, primary_key=True),
    Column("reads", Key, primary_key=True),
    Column("content", Text, nullable=False),
    Column("output", Key, nullable=False),
    Column("at", Moment, nullable=False),
)
