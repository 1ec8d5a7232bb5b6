"""Revision 0002, an area of tables a module. Frozen: what changes later is a revision of its own."""
