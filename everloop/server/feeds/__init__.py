"""Live feeds in processes: where events are pushed, and the process that reads them into versions."""
