"""Who keeps the directory of a secondary network, where that is not the router."""

import msgspec

from ksz_router.identifiers import Kbo

KNOWN_SERVICE = "sectoral.known"
"""The service by which a keeper is asked whether its directory knows a person, version 1."""


class Keeper(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a secondary network's own directory is asked for."""

    kbo: Kbo
    """The managing institution of the network."""
    application: str
    """The program number under which the router's own institution asks it."""
