"""For institution back-ends: ask the router, and answer what it delivers. Typed, on Trio."""

from ksz_router.credentials import Identity
from ksz_router.messages import Answer, Delivery, Outcome, RecipientStatus, Request
from ksz_router.sdk.client import Client, new_ticket, open_client
from ksz_router.sdk.provider import Handler, Provider, Supply
from ksz_router.sdk.sectoral import Asked, Knows, Sought
from ksz_router.sdk.settings import (
    AuthenticationError,
    ConnectionLostError,
    NotAnsweredError,
    NotConnectedError,
    SdkError,
)
from ksz_router.sdk.together import Result

__all__ = [
    "Answer", "Asked", "AuthenticationError", "Client", "ConnectionLostError", "Delivery",
    "Handler", "Identity", "Knows", "NotAnsweredError", "NotConnectedError", "Outcome", "Provider",
    "RecipientStatus", "Request", "Result", "SdkError", "Sought", "Supply", "new_ticket",
    "open_client",
]  # fmt: skip
