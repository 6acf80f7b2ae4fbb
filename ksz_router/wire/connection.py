"""The protocol of one connection, without a socket: bytes in, events out, bytes to send.

One engine for all four sides. It keeps the greeting, the order of messages and the size of
frames, and answers pings. Correlation ids, windows and deadlines are the shell's.

A fault of the peer never raises: it comes out as :class:`Ended`, a Bye is queued, and nothing
more comes out. A fault of ours raises :class:`LocalProtocolError`.
"""

from typing import Any

import msgspec

from ksz_router.codes import Code
from ksz_router.limits import (
    events_per_receive_max,
    frame_bytes_max,
    frame_length_bytes,
    hello_bytes_max,
)
from ksz_router.messages import Envelope
from ksz_router.wire.envelopes import requests_of
from ksz_router.wire.events import (
    VERSION,
    Bye,
    Ended,
    Event,
    Hello,
    Message,
    Ping,
    Pong,
    Welcome,
)
from ksz_router.wire.frames import length_at, packed_length
from ksz_router.wire.states import MAY_SEND, PASSED_ON, PEER, SPEAKER, Side, State

_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Message)
_decode = _decoder.decode

# What hostile bytes make the decoder raise; the last two are no MsgspecError.
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

# What our own fields make the encoder raise: a lone surrogate, too large an integer, a wrong type.
_UNENCODABLE = (msgspec.MsgspecError, UnicodeEncodeError, OverflowError, TypeError)


class LocalProtocolError(Exception):
    """A message was to be sent that may not be sent now. A fault in our own code."""


class MessageTooLargeError(LocalProtocolError):
    """The message does not fit into a frame that the peer takes. Nothing was queued."""


class Connection:
    """One connection, seen from one side.

    Args:
        side: Which end this is. The sides that dial queue their Hello at once.
        agent: What this side calls itself, for the peer's logs.
        inflight_max: The window that an accepting side offers; dialling sides leave it at 0.
    """

    def __init__(self, side: Side, *, agent: str, inflight_max: int = 0) -> None:
        self.side = side
        self.state: State
        self.is_ended: bool
        """Nothing may be sent any more, and nothing comes out."""
        self.has_more = False
        """Whole frames may be waiting in here: what came meant more than comes out at once."""
        self.peer_agent = ""
        self.inflight_max = inflight_max
        """Ours to offer, and after the Welcome of an accepting peer ours to keep."""
        self._agent = agent
        self.peer_frame_bytes_max = hello_bytes_max
        """The largest frame that the peer takes."""
        self.ended: Ended | None = None
        """How it ended, once it did."""
        self.frames_count = 0
        """How many whole frames have come."""
        self.outgoing_bytes = 0
        """How much waits in :meth:`data_to_send`."""
        self._frame_bytes_max = hello_bytes_max
        """The largest frame that we take."""
        self._pending = bytearray()
        """What came and was not taken: part of a frame, and where ``has_more`` whole ones."""
        self._outgoing: list[bytes] = []
        # What the state means for each message is looked up once for the state.
        self._may_send: frozenset[type[Message]]
        self._may_receive: frozenset[type[Message]]
        self._passed_on: frozenset[type[Message]]
        self._enter(State.GREETING)
        if side in SPEAKER:
            self.send(
                Hello(
                    versions=(VERSION,),
                    speaker=SPEAKER[side],
                    agent=agent,
                    frame_bytes_max=frame_bytes_max,
                )
            )

    def receive_data(self, data: bytes, events_max: int = events_per_receive_max) -> list[Event]:
        """Take bytes in and return what they mean, in order; after an Ended nothing comes.

        A few bytes may mean thousands of requests, so that only some come at once: no frame is
        begun once there are ``events_max``. Where :attr:`has_more` says so, the next call gives
        more, without new bytes too.
        """
        if self.is_ended:
            return []
        events: list[Event] = []
        self.has_more = False
        pending = self._pending
        whole: bytes | bytearray = data
        if pending:
            pending += data
            whole = pending
        start, end = 0, len(whole)
        while (begin := start + frame_length_bytes) <= end:
            (length,) = length_at(whole, start)
            # Judged before its body is there, and by the bound that holds now: the frame before it
            # may have changed that.
            if not 0 < length <= self._frame_bytes_max:
                events.append(self._end(Code.FRAME_TOO_LARGE))
                break
            stop = begin + length
            if stop > end:
                break
            start = stop
            self.frames_count += 1
            try:
                message = _decode(whole[begin:stop])
            except _UNDECODABLE:
                events.append(self._end(Code.FRAME_MALFORMED))
                break
            if type(message) in self._passed_on:
                events.append(message)
            else:
                events += self._take(message)
                if self.is_ended:
                    break
            if len(events) >= events_max:
                self.has_more = True
                break
        if pending:
            del pending[:start]
        elif start < end:
            pending += whole[start:]
        return events

    def receive_end(self) -> list[Event]:
        """The peer's bytes are over. Without a Bye before it, that is a truncation."""
        if self.is_ended:
            return []
        return [self._over(Ended(Code.CONNECTION_TRUNCATED, by_peer=True))]

    def send(self, message: Message) -> None:
        """Queue a message.

        Raises:
            MessageTooLargeError: it is larger than what the peer takes.
            LocalProtocolError: this side may not send it in this state, or it holds a value
                that no MessagePack says. Nothing was queued.
        """
        if type(message) not in self._may_send:
            raise LocalProtocolError(f"{type(message).__name__} may not be sent now")
        try:
            body = _encode(message)
        except _UNENCODABLE as error:
            name = f"{type(message).__name__}: {type(error).__name__}"
            raise LocalProtocolError(f"{name}, a field cannot be encoded") from None
        length = len(body)
        if length > self.peer_frame_bytes_max:
            raise MessageTooLargeError(f"{length} bytes, the peer takes less")
        self._outgoing.append(packed_length(length) + body)
        self.outgoing_bytes += frame_length_bytes + length

    def end(self, code: Code = Code.CLOSED_IN_PEACE, text: str = "") -> None:
        """Queue a Bye; afterwards nothing may be sent or comes out."""
        if not self.is_ended:
            self._end(code, text)

    def data_to_send(self) -> bytes:
        """Return and forget the bytes that wait to be sent."""
        data = b"".join(self._outgoing)
        self._outgoing.clear()
        self.outgoing_bytes = 0
        return data

    @property
    def frame_in_part(self) -> int | None:
        """The number of the frame of which only a part has come; None where none is."""
        return self.frames_count if self._pending and not self.has_more else None

    def _take(self, message: Message) -> list[Event]:
        """Return what comes out for a message that is not passed on as it came."""
        if type(message) not in self._may_receive:
            return [self._end(Code.MESSAGE_UNEXPECTED, type(message).__name__)]
        match message:
            case Envelope():
                return [*requests_of(message)] or [self._end(Code.FRAME_MALFORMED)]
            case Ping(number):
                self.send(Pong(number))
                return []
            case Hello():
                return [self._take_hello(message)]
            case Welcome():
                return [self._take_welcome(message)]
        assert isinstance(message, Bye), "every other message is passed on"
        return [self._over(Ended(_known(message.code), by_peer=True, text=message.text[:256]))]

    def _take_hello(self, hello: Hello) -> Event:
        if VERSION not in hello.versions:
            return self._end(Code.VERSION_NOT_SPOKEN, f"spoken here: {VERSION}")
        if hello.speaker is not SPEAKER[PEER[self.side]]:
            return self._end(Code.MESSAGE_UNEXPECTED, "another kind of peer was expected")
        if hello.frame_bytes_max < hello_bytes_max:
            return self._end(Code.FRAME_TOO_LARGE, f"frames of {hello_bytes_max} bytes are needed")
        self.peer_agent = hello.agent[:64]
        self.send(
            Welcome(
                version=VERSION,
                agent=self._agent,
                frame_bytes_max=frame_bytes_max,
                inflight_max=self.inflight_max,
            )
        )
        self.peer_frame_bytes_max = min(hello.frame_bytes_max, frame_bytes_max)
        self._enter(State.OPEN)
        return hello

    def _take_welcome(self, welcome: Welcome) -> Event:
        if welcome.version != VERSION:
            return self._end(Code.VERSION_NOT_SPOKEN, f"spoken here: {VERSION}")
        if welcome.frame_bytes_max < hello_bytes_max:
            return self._end(Code.FRAME_TOO_LARGE, f"frames of {hello_bytes_max} bytes are needed")
        self.peer_agent = welcome.agent[:64]
        self.inflight_max = max(1, welcome.inflight_max)
        self.peer_frame_bytes_max = min(welcome.frame_bytes_max, frame_bytes_max)
        self._enter(State.OPEN)
        return welcome

    def _enter(self, state: State) -> None:
        self.state = state
        self.is_ended = state is State.ENDED
        self._may_send = MAY_SEND[self.side, state]
        self._may_receive = MAY_SEND[PEER[self.side], state]
        self._passed_on = PASSED_ON[PEER[self.side], state]
        if state is not State.GREETING:
            self._frame_bytes_max = frame_bytes_max

    def _end(self, code: Code, text: str = "") -> Ended:
        self.send(Bye(int(code), text))
        return self._over(Ended(code, by_peer=False, text=text))

    def _over(self, ended: Ended) -> Ended:
        self._enter(State.ENDED)
        self.has_more = False
        self.ended = ended
        return ended


def _known(number: int) -> Code:
    """A code that this release does not know ends the connection all the same."""
    try:
        return Code(number)
    except ValueError:
        return Code.CLOSED_IN_PEACE
