"""Operations that load an engine, in a process beside the server: `asking` is the server's side, `child` that process."""
