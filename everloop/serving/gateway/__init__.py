"""The gateway: answers predictions from the signed routing table; speaks no SQL, loads no dataframe library."""
