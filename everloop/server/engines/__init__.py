"""Operations that load an engine, in a process beside the server: `asking` is our side, `child` that process."""
