"""Every number that says how an exchange went. One registry: never reuse, never renumber.

The thousands of a code are its stage, so that a reader of a bare number knows who must act.
``MEANINGS`` carries what travels beside the number: the official code of the network (CommonV3
status codes as published by the KSZ), the status value, and what the requester does next.
"""

from enum import IntEnum, unique
from typing import NamedTuple, Self


@unique
class Stage(IntEnum):
    """Where in the life of an exchange its outcome was settled, in the order of that life."""

    LINK = 0
    IDENTITY = 1
    SYNTAX = 2
    RIGHT = 3
    GRANT = 4
    OWN_INTEGRATION = 5
    PERSON = 6
    SOURCE_INTEGRATION = 7
    OUTAGE = 8
    ROUTING = 9
    ANSWERED = 10


@unique
class Action(IntEnum):
    """What the requester does next."""

    NONE = 0
    MEND_THE_DATA = 1
    ASK_FOR_THE_RIGHT = 2
    RETRY_AT = 3
    SOURCE_DOWN = 4
    MEND_THE_CLIENT = 5


@unique
class Code(IntEnum):
    """The outcome of an exchange, or why a connection ends."""

    stage: Stage

    def __new__(cls, number: int) -> Self:
        code = int.__new__(cls, number)
        code._value_ = number
        code.stage = Stage(number // 1000)  # once: it is asked for several times an exchange
        return code

    # Before the control: the link. Not recorded singly, but counted per institution and minute.
    CLOSED_IN_PEACE = 1
    FRAME_TOO_LARGE = 2
    FRAME_MALFORMED = 3
    MESSAGE_UNEXPECTED = 4
    VERSION_NOT_SPOKEN = 5
    HELLO_LATE = 6
    PEER_SILENT = 7
    PEER_TOO_SLOW = 8
    CONNECTION_TRUNCATED = 9
    CERTIFICATE_REFUSED = 10
    CERTIFICATE_REVOKED = 11
    REVOCATIONS_OUT_OF_DATE = 12
    TOO_MANY_CONNECTIONS = 16
    CORRELATION_REUSED = 20
    CONNECTION_WINDOW_FULL = 21
    INSTITUTION_WINDOW_FULL = 22
    ROUTER_FULL = 23
    ROUTER_DRAINING = 24
    LOG_NOT_WRITABLE = 25

    # The preventive control, in the order in which the rules are tried.
    CERTIFICATE_NOT_REGISTERED = 1001
    INSTITUTION_NOT_ACTIVE = 1002
    MEMBER_NOT_MANAGED = 1003
    KBO_NOT_HELD = 1004
    ROLE_NOT_HELD = 1005
    IDENTIFIERS_DISAGREE = 1006

    SERVICE_UNKNOWN = 2001
    PATH_NOT_EXACTLY_ONE = 2002
    FIELD_MALFORMED = 2003
    PERSON_MALFORMED = 2004
    SUBJECT_NOT_AS_DECLARED = 2005
    PERIOD_NOT_SANE = 2006
    PAYLOAD_TOO_LARGE = 2007

    NO_ACCESS_RIGHT = 3001
    ACCESS_RIGHT_NOT_IN_FORCE = 3002
    ROLE_NOT_IN_ACCESS_RIGHT = 3003
    SERVICE_NOT_IN_ACCESS_RIGHT = 3004
    AUTHENTICATION_TOO_WEAK = 3005

    NO_GRANT = 4001
    CAPACITY_NOT_GRANTED = 4002
    GRANT_NOT_IN_FORCE = 4003
    DELIBERATION_NOT_IN_FORCE = 4004

    PERSON_NOT_INTEGRATED = 5001
    PHASE_TOO_LOW = 5002
    PERIOD_NOT_COVERED = 5003
    SECTORAL_NOT_INTEGRATED = 5004
    SECTORAL_PHASE_TOO_LOW = 5005
    SECTORAL_PERIOD_NOT_COVERED = 5006

    PERSON_UNKNOWN = 6001
    PERSON_REPLACED = 6002
    PERSON_CANCELLED = 6003
    PERSON_DECEASED = 6004

    NO_SOURCE_HAS_THE_DATA = 7001
    NO_SOURCE_KNOWS_THE_PERSON = 7002
    NO_RECIPIENT_MAY_RECEIVE = 7003
    TOO_MANY_RECIPIENTS = 7004
    NO_SOURCE_HOLDS_THE_PERIOD = 7005
    SOURCE_NOT_IN_SECTORAL_DIRECTORY = 7006
    NO_RECIPIENT_SUBSCRIBED = 7007

    ANNOUNCED_OUTAGE = 8001
    SECTORAL_DIRECTORY_DOWN = 8002

    # After the record: routing. The request was recorded; the outcome is recorded too.
    SOURCE_UNREACHABLE = 9001
    SOURCE_BREAKER_OPEN = 9002
    SOURCE_WINDOW_FULL = 9003
    SOURCE_SILENT = 9004
    SOURCE_CONNECTION_LOST = 9005
    SOURCE_ANSWER_INVALID = 9006
    SOURCE_ANSWERED_FOR_ANOTHER = 9007
    SOURCE_FAILED = 9008
    DEADLINE_PASSED = 9009
    OUTCOME_UNKNOWN = 9010
    ANSWER_DISCARDED = 9011
    TICKET_REUSED = 9012
    SUBMISSION_OPEN = 9013
    ANSWER_TOO_LARGE = 9014
    LEDGER_FULL = 9015
    DELIVERY_TOO_LARGE = 9016

    # The source answered.
    ANSWERED_WITH_DATA = 10001
    ANSWERED_WITHOUT_DATA = 10002
    ANSWERED_IN_PART = 10003
    ANSWERED_NOT_INTEGRATED = 10004
    ANSWERED_INTEGRATION_REFUSED = 10005

    # As numbers: what an Enum brings goes by the name, in Python, and codes are keys everywhere.
    __hash__ = int.__hash__


class Meaning(NamedTuple):
    """What travels beside a code."""

    official: str
    """The code of the KSZ's published list, such as ``MSG00013``."""
    status: str
    """``DATA_FOUND``, ``NO_DATA_FOUND``, ``NO_RESULT`` or ``INCOMPLETE_DATA`` (CommonV3)."""
    action: Action
    text: str
    """For people; may be improved at any time, so no program reads it."""


_NONE, _MEND, _ASK, _RETRY, _DOWN, _CLIENT = Action
_DATA, _NIL, _NO, _PART = "DATA_FOUND", "NO_DATA_FOUND", "NO_RESULT", "INCOMPLETE_DATA"

# fmt: off
MEANINGS: dict[Code, Meaning] = {
    Code.CLOSED_IN_PEACE: Meaning("", _NO, _NONE, "the connection ends by agreement"),
    Code.FRAME_TOO_LARGE: Meaning("MSG00008", _NO, _CLIENT, "a frame is larger than this connection agreed to"),
    Code.FRAME_MALFORMED: Meaning("MSG00008", _NO, _CLIENT, "a frame does not hold a message of the protocol"),
    Code.MESSAGE_UNEXPECTED: Meaning("MSG00008", _NO, _CLIENT, "this message may not be sent in this state"),
    Code.VERSION_NOT_SPOKEN: Meaning("MSG00008", _NO, _CLIENT, "no protocol version is spoken by both sides"),
    Code.HELLO_LATE: Meaning("MSG00008", _NO, _CLIENT, "no Hello came in time"),
    Code.PEER_SILENT: Meaning("MSG00008", _NO, _CLIENT, "no Pong came in time"),
    Code.PEER_TOO_SLOW: Meaning("MSG00008", _NO, _CLIENT, "the peer does not send or read fast enough"),
    Code.CONNECTION_TRUNCATED: Meaning("MSG00008", _NO, _CLIENT, "the connection ended without a close"),
    Code.CERTIFICATE_REFUSED: Meaning("MSG00013", _NO, _ASK, "the peer did not accept the certificate"),
    Code.CERTIFICATE_REVOKED: Meaning("MSG00013", _NO, _ASK, "the certificate was revoked, or one that it rests on"),
    Code.REVOCATIONS_OUT_OF_DATE: Meaning("MSG00001", _NO, _RETRY, "the peer's revocation lists are out of date, so nobody is accepted"),
    Code.TOO_MANY_CONNECTIONS: Meaning("MSG00001", _NO, _RETRY, "too many connections at once"),
    Code.CORRELATION_REUSED: Meaning("MSG00008", _NO, _CLIENT, "the correlation id is still in flight on this connection"),
    Code.CONNECTION_WINDOW_FULL: Meaning("MSG00001", _NO, _RETRY, "too many requests in flight on this connection"),
    Code.INSTITUTION_WINDOW_FULL: Meaning("MSG00001", _NO, _RETRY, "too many requests in flight for this institution"),
    Code.ROUTER_FULL: Meaning("MSG00001", _NO, _RETRY, "too many requests in flight in the router"),
    Code.ROUTER_DRAINING: Meaning("MSG00001", _NO, _RETRY, "the router is stopping; reconnect"),
    Code.LOG_NOT_WRITABLE: Meaning("MSG00001", _NO, _RETRY, "the privacy log cannot be written, so nothing is forwarded"),
    Code.CERTIFICATE_NOT_REGISTERED: Meaning("MSG00013", _NO, _ASK, "the certificate belongs to no registered institution"),
    Code.INSTITUTION_NOT_ACTIVE: Meaning("MSG00013", _NO, _ASK, "the institution is not active today"),
    Code.MEMBER_NOT_MANAGED: Meaning("MSG00013", _NO, _ASK, "the member is not managed by this institution"),
    Code.KBO_NOT_HELD: Meaning("MSG00013", _NO, _MEND, "the KBO number is another institution's"),
    Code.ROLE_NOT_HELD: Meaning("MSG00013", _NO, _ASK, "the institution does not hold this sector and institution type"),
    Code.IDENTIFIERS_DISAGREE: Meaning("MSG00013", _NO, _MEND, "the KBO number and the member given do not agree"),
    Code.SERVICE_UNKNOWN: Meaning("MSG00008", _NO, _MEND, "no such service in this version"),
    Code.PATH_NOT_EXACTLY_ONE: Meaning("MSG00008", _NO, _MEND, "name a capacity with a role, or a legal framework, and not both"),
    Code.FIELD_MALFORMED: Meaning("MSG00008", _NO, _MEND, "a field is not well formed"),
    Code.PERSON_MALFORMED: Meaning("MSG00011", _NO, _MEND, "the INSZ is not well formed"),
    Code.SUBJECT_NOT_AS_DECLARED: Meaning("MSG00008", _NO, _MEND, "the service is about another kind of subject"),
    Code.PERIOD_NOT_SANE: Meaning("MSG00008", _NO, _MEND, "the period is not sane"),
    Code.PAYLOAD_TOO_LARGE: Meaning("MSG00008", _NO, _MEND, "the payload is larger than the service allows"),
    Code.NO_ACCESS_RIGHT: Meaning("MSG00013", _NO, _ASK, "this user or application has no access right here"),
    Code.ACCESS_RIGHT_NOT_IN_FORCE: Meaning("MSG00013", _NO, _ASK, "the access right is not in force today"),
    Code.ROLE_NOT_IN_ACCESS_RIGHT: Meaning("MSG00013", _NO, _ASK, "the access right does not cover this role"),
    Code.SERVICE_NOT_IN_ACCESS_RIGHT: Meaning("MSG00013", _NO, _ASK, "the access right does not cover this service"),
    Code.AUTHENTICATION_TOO_WEAK: Meaning("MSG00013", _NO, _ASK, "the access right asks for a higher authentication level, or other means"),
    Code.NO_GRANT: Meaning("MSG00013", _NO, _ASK, "no grant allows this service here"),
    Code.CAPACITY_NOT_GRANTED: Meaning("MSG00013", _NO, _ASK, "the grant does not cover this capacity"),
    Code.GRANT_NOT_IN_FORCE: Meaning("MSG00013", _NO, _ASK, "the grant is not in force today"),
    Code.DELIBERATION_NOT_IN_FORCE: Meaning("MSG00013", _NO, _ASK, "the deliberation under the grant is not in force today"),
    Code.PERSON_NOT_INTEGRATED: Meaning("MSG00012", _NO, _MEND, "the directory does not know this person for you in the capacity"),
    Code.PHASE_TOO_LOW: Meaning("MSG00012", _NO, _MEND, "the directory knows this person for you in too low a phase"),
    Code.PERIOD_NOT_COVERED: Meaning("MSG00012", _NO, _MEND, "the directory knows this person for you, not for the whole period"),
    Code.SECTORAL_NOT_INTEGRATED: Meaning("MSG00012", _NO, _MEND, "the directory of your network does not know this person for you in the capacity"),
    Code.SECTORAL_PHASE_TOO_LOW: Meaning("MSG00012", _NO, _MEND, "the directory of your network knows this person for you in too low a phase"),
    Code.SECTORAL_PERIOD_NOT_COVERED: Meaning("MSG00012", _NO, _MEND, "the directory of your network knows this person for you, not for the whole period"),
    Code.PERSON_UNKNOWN: Meaning("MSG00005", _NO, _MEND, "the INSZ does not exist"),
    Code.PERSON_REPLACED: Meaning("MSG00006", _NO, _MEND, "the INSZ was replaced by another"),
    Code.PERSON_CANCELLED: Meaning("MSG00007", _NO, _MEND, "the INSZ was cancelled"),
    Code.PERSON_DECEASED: Meaning("MSG00009", _NIL, _NONE, "the person is deceased"),
    Code.NO_SOURCE_HAS_THE_DATA: Meaning("MSG00021", _NIL, _NONE, "no source supplies this service today"),
    Code.NO_SOURCE_KNOWS_THE_PERSON: Meaning("MSG00021", _NIL, _NONE, "no source knows this person in a fitting capacity"),
    Code.NO_RECIPIENT_MAY_RECEIVE: Meaning("MSG00021", _NIL, _NONE, "no recipient that knows this person may receive"),
    Code.TOO_MANY_RECIPIENTS: Meaning("MSG00008", _NO, _MEND, "more recipients fit than one distribution may have; name each as source"),
    Code.NO_SOURCE_HOLDS_THE_PERIOD: Meaning("MSG00021", _NIL, _NONE, "no source holds data of this period"),
    Code.SOURCE_NOT_IN_SECTORAL_DIRECTORY: Meaning("MSG00021", _NIL, _NONE, "no source knows this person in the directory of its network"),
    Code.NO_RECIPIENT_SUBSCRIBED: Meaning("MSG00021", _NIL, _NONE, "the message says nothing new, and every recipient subscribed to changes only"),
    Code.ANNOUNCED_OUTAGE: Meaning("MSG00002", _NO, _RETRY, "the source announced an outage"),
    Code.SECTORAL_DIRECTORY_DOWN: Meaning("MSG00002", _NO, _DOWN, "the directory of a secondary network cannot be read or does not answer, so who knows the person cannot be said"),
    Code.SOURCE_UNREACHABLE: Meaning("MSG00002", _NO, _DOWN, "the source cannot be reached"),
    Code.SOURCE_BREAKER_OPEN: Meaning("MSG00002", _NO, _RETRY, "the source failed lately and is left in peace for a while"),
    Code.SOURCE_WINDOW_FULL: Meaning("MSG00002", _NO, _RETRY, "the source has as many requests as it takes at once"),
    Code.SOURCE_SILENT: Meaning("MSG00002", _NO, _DOWN, "the source did not answer before the deadline"),
    Code.SOURCE_CONNECTION_LOST: Meaning("MSG00002", _NO, _DOWN, "the connection to the source broke; the outcome there is unknown"),
    Code.SOURCE_ANSWER_INVALID: Meaning("MSG00003", _NO, _DOWN, "the answer of the source is not well formed"),
    Code.SOURCE_ANSWERED_FOR_ANOTHER: Meaning("MSG00003", _NO, _DOWN, "the source answered for another person; the answer was withheld"),
    Code.SOURCE_FAILED: Meaning("MSG00002", _NO, _DOWN, "the source reports that it failed"),
    Code.DEADLINE_PASSED: Meaning("MSG00001", _NO, _RETRY, "the deadline passed before the request could be forwarded"),
    Code.OUTCOME_UNKNOWN: Meaning("MSG00003", _NO, _RETRY, "the router stopped while this was open; what became of it is not known"),
    Code.ANSWER_DISCARDED: Meaning("MSG00002", _NO, _DOWN, "the answer came after the deadline and was discarded"),
    Code.TICKET_REUSED: Meaning("MSG00008", _NO, _MEND, "the ticket stands for another submission; use a new one"),
    Code.SUBMISSION_OPEN: Meaning("MSG00001", _NO, _RETRY, "the submission of this ticket is still under way"),
    Code.ANSWER_TOO_LARGE: Meaning("MSG00003", _NO, _CLIENT, "the answer does not fit into the frames that the requester takes"),
    Code.LEDGER_FULL: Meaning("MSG00001", _NO, _RETRY, "the ledger holds as many submissions as it may"),
    Code.DELIVERY_TOO_LARGE: Meaning("MSG00008", _NO, _MEND, "the request does not fit into the frames that the source takes"),
    Code.ANSWERED_WITH_DATA: Meaning("MSG00000", _DATA, _NONE, "answered"),
    Code.ANSWERED_WITHOUT_DATA: Meaning("MSG00100", _NIL, _NONE, "answered: the source has nothing"),
    Code.ANSWERED_IN_PART: Meaning("HAN20200", _PART, _RETRY, "some sources or recipients could not be reached"),
    Code.ANSWERED_NOT_INTEGRATED: Meaning("HAN20200", _PART, _RETRY, "answered, but the person directory has not taken the change that follows; send the ticket again"),
    Code.ANSWERED_INTEGRATION_REFUSED: Meaning("HAN20200", _PART, _MEND, "answered, but the change of the person directory that follows was refused"),
}
# fmt: on

assert set(MEANINGS) == set(Code), "every code has a meaning"
