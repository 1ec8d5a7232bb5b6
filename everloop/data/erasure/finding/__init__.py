"""Where a subject is: the columns that hold its key, which values do, which objects may."""
