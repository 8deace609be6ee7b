"""The living end of a session: transport, agent, wire and lease, and how a lost link is remade."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from hwnas_sdk.core.clock import Clock, Deadline
from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.core.events import Event, EventSink
from hwnas_sdk.devices.timeouts import Timeouts
from hwnas_sdk.devices.transports.base import Channel, Transport
from hwnas_sdk.devices.wire import PROTOCOL_VERSION, AgentRefusedError, Message, Wire

_LOG = logging.getLogger(__name__)

_LOST: Final = frozenset({"link_lost", "unreachable", "agent_died", "agent_hung"})
"""What connecting again may mend."""
_HOPELESS: Final = frozenset({"host_key_changed", "host_key_unknown", "protocol_version"})
_TTL_S: Final = 60.0
_PATIENT_S: Final = 2.0
"""Longest pause between two questions to a busy board; asking costs it a little."""
_MAX_DEATHS: Final = 3


class AgentLink:
    """A started agent and the means to start it again.

    Attributes:
        hello: what the agent said of itself.
        lease: the board's lease while we hold it.
        timeouts, owner: may be changed between requests (tests do).
    """

    hello: Message
    channel: Channel
    wire: Wire

    def __init__(
        self,
        transport: Transport,
        *,
        name: str,
        owner: str,
        timeouts: Timeouts,
        clock: Clock,
    ) -> None:
        """Start the agent and exchange versions. Raises: DeviceError as `Transport.start`."""
        self.transport = transport
        self.name = name
        self.owner = owner
        self.timeouts = timeouts
        self.clock = clock
        self.lease: str | None = None
        self._session = uuid.uuid4().hex
        self._open = False
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def request(self, kind: str, *, timeout_s: float | None = None, **fields: Any) -> Message:
        """Ask the agent; see `Wire.request`."""
        limit_s = self.timeouts.reply_s if timeout_s is None else timeout_s
        return self.wire.request(kind, timeout_s=limit_s, **fields)

    def can_mend(self, error: DeviceError) -> bool:
        """Whether `error` may go away by connecting again: only a remote board has a link."""
        return self.transport.is_remote and error.code in _LOST

    def reconnect(self, cause: DeviceError, on_event: EventSink) -> None:
        """Start the agent anew, waiting for the board to come back.

        Raises: DeviceError when it does not within `Timeouts.reconnect_s`.
        """
        self._drop(grace_s=0.0)
        self.transport.close()
        deadline = Deadline.after(self.timeouts.reconnect_s, clock=self.clock)
        self._say(f"{self.name}: {cause.message}; connecting again", on_event)
        pause_s, deaths = 0.2, 0
        while True:
            try:
                self._connect()
            except DeviceError as exc:
                self._drop(grace_s=0.0)
                _LOG.info("connecting to %s again: %s", self.name, exc)
                deaths += exc.code in {"agent_died", "agent_hung", "agent_protocol"}
                if exc.code in _HOPELESS:
                    raise
                if deadline.expired or deaths >= _MAX_DEATHS:
                    self._give_up(cause, exc)
                self.clock.sleep(min(pause_s, max(deadline.remaining_s, 0.01)))
                pause_s = min(2.0 * pause_s, 5.0)
            else:
                self._say(f"{self.name} is back", on_event)
                return

    def take_lease(
        self,
        on_event: EventSink,
        *,
        own_limit_s: float | None = None,
        is_over: Callable[[], bool] | None = None,
    ) -> str | None:
        """Return the lease, waiting (bounded) while somebody holds it.

        Args:
            on_event: hears that the board is busy, once.
            own_limit_s: how long to wait for an earlier run of ours; None is `lease_own_s`.
            is_over: asked between two attempts; True ends the waiting, without a lease.

        Raises: DeviceError "board_busy" when nobody gave way in time.
        """
        if self.lease is not None:
            return self.lease
        began_s = self.clock.monotonic_s()
        announced = False
        pause_s = self.timeouts.lease_poll_s
        while True:
            try:
                # An idle agent of this very session is one we lost the link to: it gives way.
                reply = self.request("lease", owner=self.owner, ttl_s=_TTL_S, session=self._session)
            except AgentRefusedError as exc:
                if exc.code != "board_busy":
                    raise
                holder = exc.details.get("holder")
                holder = holder if isinstance(holder, dict) else {}
                is_ours = holder.get("owner") == self.owner
                waited_s = self.clock.monotonic_s() - began_s
                limit_s = self.timeouts.lease_other_s
                if is_ours:
                    limit_s = self.timeouts.lease_own_s if own_limit_s is None else own_limit_s
                if waited_s >= limit_s:
                    self._refuse_busy(holder, waited_s, exc)
                if not announced:
                    announced = True
                    who = "an earlier run of yours" if is_ours else f"{holder.get('owner')!r}"
                    message = f"{self.name} is busy: {who} (process {holder.get('pid')}), waiting"
                    self._say(message, on_event, step="lease", data=dict(holder))
                if is_over is not None and is_over():
                    return None
                self.clock.sleep(min(pause_s, limit_s - waited_s))
                pause_s = min(1.5 * pause_s, _PATIENT_S)
                continue
            if not isinstance(reply.get("lease"), str):
                self.wire.fail_protocol("granted no lease")
            self.lease = str(reply["lease"])
            return self.lease

    def close(self) -> None:
        """Release the lease, end the agent and the connection. Safe to call twice."""
        if self._open and self.wire.broken is None:
            try:
                if self.lease is not None:
                    self.request("release", lease=self.lease)
                self.request("bye")
            except DeviceError as exc:
                _LOG.debug("closing %r: %s", self.name, exc)
        is_well = self._open and self.wire.broken is None
        self._drop(grace_s=self.timeouts.close_s if is_well else 0.0)
        self.transport.close()

    def _connect(self) -> None:
        self.channel = self.transport.start()
        self.wire = Wire(
            self.channel,
            device_id=self.name,
            ping_s=self.timeouts.ping_s if self.transport.is_remote else None,
        )
        self._open = True
        self.hello = self._greet()

    def _drop(self, *, grace_s: float) -> None:
        """Let go of the agent; `close` of its channel ends it where the link stands."""
        self.lease = None
        if self._open:
            self._open = False
            if self.wire.broken is not None and self.wire.broken.code == "link_lost":
                self.channel.leave()
            else:
                self.channel.close(grace_s=grace_s)
            self.wire.join(timeout_s=1.0)

    def _greet(self) -> Message:
        """Exchange versions with the agent."""
        hello = self.request(
            "hello",
            timeout_s=self.timeouts.start_s,
            protocol=[PROTOCOL_VERSION, PROTOCOL_VERSION],
            owner=self.owner,
        )
        if hello.get("protocol") != PROTOCOL_VERSION:
            raise DeviceError(
                f"the agent on {self.name!r} speaks protocol {hello.get('protocol')!r}, "
                f"not {PROTOCOL_VERSION}",
                device_id=self.name,
                code="protocol_version",
                hint="update hwnas-sdk on this host",
            )
        return hello

    def _say(
        self,
        message: str,
        on_event: EventSink,
        *,
        step: str = "link",
        data: Mapping[str, Any] | None = None,
    ) -> None:
        _LOG.info(message)
        on_event(Event(f"{step} {self.name}", message=message, data=data or {}))

    def _give_up(self, cause: DeviceError, last: DeviceError) -> NoReturn:
        raise DeviceError(
            f"{cause.message}, and {self.name!r} did not come back: {last.message}",
            device_id=self.name,
            code=cause.code,
            hint="finished networks are kept on the board; when it is reachable again, "
            "the same command continues",
            retryable=True,
        ) from last

    def _refuse_busy(
        self, holder: Mapping[str, Any], waited_s: float, cause: Exception
    ) -> NoReturn:
        raise DeviceError(
            f"{self.name!r} is in use by {holder.get('owner')!r} (process {holder.get('pid')}); "
            f"waited {waited_s:.0f} s",
            device_id=self.name,
            code="board_busy",
            hint="try again when the other run has ended",
            retryable=True,
        ) from cause
