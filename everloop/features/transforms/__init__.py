"""On-demand transforms: columns from columns of one row, by the author's function, the same for a frame and a request.

`definitions` is pure. `typed` holds columns of four types whose nulls leave the type alone; `applying` runs a function
over them (in a step's process and in a model worker, nowhere else); `parity` refuses one that is not row by row;
`packing` carries functions into a model's files.
"""
