"""The processes behind the address: server, worker, supervisor; REST, the MLflow protocol, pages."""
