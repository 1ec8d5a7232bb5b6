"""What Alembic executes: the migrations, on the connection that `runner` hands over, in its transaction."""

from alembic import context

from everloop.catalog.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
