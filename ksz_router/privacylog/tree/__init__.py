"""The order of all entries of a node, the Merkle tree over them, and its signed checkpoints.

RFC 6962 tree, C2SP tlog-tiles, tlog-checkpoint, tlog-proof and signed-note. Nothing here needs more
than the standard library and ``cryptography``: a router without the audit side runs it.
"""
