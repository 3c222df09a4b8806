"""What the Mosaic GPU kernels share: one forward, one backward, and the lists of blocks that they visit.

Every attention of this package is the same computation on a Hopper GPU: rows of queries that share a key head, against
columns of keys, where two small vectors of integers say who sees whom. The kernels differ in these vectors alone.
"""
