"""Types of columns at revision 0001 that differ between the databases; `tables.columns` says what they are for."""

from sqlalchemy import BigInteger, Integer, Text

Key = Text().with_variant(Text(collation="C"), "postgresql")
Serial = BigInteger().with_variant(Integer(), "sqlite")
