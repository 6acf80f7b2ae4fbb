"""What may go wrong between an institution's back-end and the router."""


class SdkError(Exception):
    """The root of what a client raises. No message names a person."""


class AuthenticationError(SdkError):
    """The router did not accept our certificate, or we did not accept its.

    Not worth a retry: first mend the files, then renew the client or make another.
    """


class NotConnectedError(SdkError):
    """No connection to the router came about before the deadline."""


class NotAnsweredError(SdkError):
    """The deadline passed before an answer came. What became of the request is not known.

    Asking again with the same ticket tells.
    """


class ConnectionLostError(SdkError):
    """The connection broke after the request was sent. What became of it is not known.

    Asking again with the same ticket tells.
    """
