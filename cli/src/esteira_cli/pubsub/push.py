"""Push delivery: one dispatcher per push subscription, so that none waits for another."""

import http.client
import logging
import math
import threading
import time

from esteira_cli.pubsub.envelope import push_body
from esteira_cli.pubsub.push_client import PushClient
from esteira_cli.pubsub.records import PUSH_HOLDER, Delivery, OidcToken, PushTarget, Subscription
from esteira_cli.pubsub.resources import Resources
from esteira_cli.pubsub.store import Store
from esteira_cli.pubsub.tokens import SigningKey
from esteira_cli.pubsub.wakeups import Wakeups

logger = logging.getLogger(__name__)

ACKNOWLEDGED = frozenset({102, 200, 201, 202, 204})
CONCURRENCY = 8
"""Push requests under way per subscription."""
TOKEN_REUSE_S = 300.0
IDLE_LOOK_S = 5.0
HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    "From": "noreply@google.com",
    "User-Agent": "APIs-Google; (+https://developers.google.com/webmasters/APIs-Google.html)",
}


class PushBackoff:
    """Pauses a subscription whose endpoint keeps failing, where no retry policy spaces the attempts.

    The first failures in a row cost nothing; after that the pause doubles from 0.1 s up to 5 s.
    """

    FREE_FAILURES = 5
    LONGEST_S = 5.0

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0

    def record(self, acknowledged: bool) -> None:
        """Counts one finished attempt."""
        self._failures = 0 if acknowledged else self._failures + 1
        beyond = self._failures - self.FREE_FAILURES
        pause = min(0.1 * 2.0 ** min(beyond, 16), self.LONGEST_S) if beyond >= 0 else 0.0
        self._until = time.monotonic() + pause

    def remaining_s(self) -> float:
        """Returns how long to wait before the next request."""
        return max(self._until - time.monotonic(), 0.0)


class TokenCache:
    """Signed tokens, each used for some minutes."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self._lock = threading.Lock()
        self._tokens: dict[OidcToken, tuple[float, str]] = {}

    def token(self, oidc: OidcToken) -> str:
        """Returns a token that stays valid for at least the longest push."""
        with self._lock:
            made, token = self._tokens.get(oidc, (-math.inf, ""))
            if time.monotonic() - made > TOKEN_REUSE_S:
                token = self._key.sign(oidc.audience, oidc.email)
                self._tokens[oidc] = (time.monotonic(), token)
            return token


class PushDispatcher:
    """Delivers the messages of one push subscription until it is stopped."""

    def __init__(
        self, name: str, target: PushTarget, store: Store, resources: Resources, wakeups: Wakeups, tokens: TokenCache
    ) -> None:
        self.target = target
        self._name = name
        self._store = store
        self._resources = resources
        self._wakeups = wakeups
        self._tokens = tokens
        self._client = PushClient(target.endpoint)
        self._backoff = PushBackoff()
        self._free = CONCURRENCY
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"push {name}", daemon=True)

    def start(self) -> None:
        """Starts to deliver."""
        self._thread.start()

    def stop(self) -> None:
        """Takes up no further message; requests under way finish by themselves."""
        self._stopping.set()
        self._wakeups.notify([self._name])
        self._thread.join(timeout=5)
        self._client.close()

    def idle(self) -> bool:
        """Tells whether no request is under way."""
        with self._lock:
            return self._free == CONCURRENCY

    def _run(self) -> None:
        while not self._stopping.is_set():
            seen = self._wakeups.count(self._name)
            try:
                wait_s = self._deliver_due()
            except Exception:
                logger.exception("Push dispatch failed, trying again", extra={"subscription": self._name})
                wait_s = 1.0
            if wait_s > 0:
                self._wakeups.wait(self._name, seen, min(wait_s, IDLE_LOOK_S))

    def _deliver_due(self) -> float:
        """Starts what is due and returns how long to sleep, unless woken."""
        subscription = self._resources.find_subscription(self._name)
        if subscription is None:
            return IDLE_LOOK_S
        pause_s = 0.0 if subscription.retry else self._backoff.remaining_s()
        if pause_s > 0:
            self._stopping.wait(pause_s)
            return 0.0
        with self._lock:
            free = self._free
        if free == 0:
            return IDLE_LOOK_S
        deliveries = self._store.claim(subscription, free, PUSH_HOLDER, math.inf)
        for delivery in deliveries:
            self._start(subscription, delivery)
        return 0.0 if deliveries else self._store.next_due(self._name)

    def _start(self, subscription: Subscription, delivery: Delivery) -> None:
        with self._lock:
            self._free -= 1
        threading.Thread(target=self._deliver, args=(subscription, delivery), daemon=True).start()

    def _deliver(self, subscription: Subscription, delivery: Delivery) -> None:
        try:
            acknowledged = self._push(subscription, delivery)
            self._backoff.record(acknowledged)
            if acknowledged:
                self._store.acknowledge(subscription.name, [delivery.lease])
            else:
                current = self._resources.find_subscription(self._name) or subscription
                self._store.release(current, [delivery.lease])
        finally:
            with self._lock:
                self._free += 1
            self._wakeups.notify([self._name])

    def _push(self, subscription: Subscription, delivery: Delivery) -> bool:
        facts = {
            "subscription": self._name,
            "message_id": delivery.lease.message_id,
            "attempt": delivery.lease.attempt,
            "endpoint": self.target.endpoint,
        }
        body = push_body(subscription.name, delivery, with_attempt=subscription.dead_letter is not None)
        try:
            status = self._client.post(body, self._headers(), subscription.ack_deadline_s)
        except (OSError, http.client.HTTPException) as error:
            logger.info("Push failed", extra={**facts, "error": repr(error)})
            return False
        if status not in ACKNOWLEDGED:
            logger.info("Push refused", extra={**facts, "status": status})
        return status in ACKNOWLEDGED

    def _headers(self) -> dict[str, str]:
        if self.target.oidc is None:
            return HEADERS
        return {**HEADERS, "Authorization": f"Bearer {self._tokens.token(self.target.oidc)}"}


class PushService:
    """Keeps one dispatcher for each push subscription."""

    def __init__(self, store: Store, resources: Resources, wakeups: Wakeups, key: SigningKey) -> None:
        self._store = store
        self._resources = resources
        self._wakeups = wakeups
        self._tokens = TokenCache(key)
        self._lock = threading.Lock()
        self._dispatchers: dict[str, PushDispatcher] = {}

    def refresh(self, name: str) -> None:
        """Makes what runs for the subscription `name` agree with its definition."""
        with self._lock:
            subscription = self._resources.find_subscription(name)
            target = subscription.push if subscription else None
            running = self._dispatchers.get(name)
            if running is not None and running.target != target:
                self._dispatchers.pop(name).stop()
                running = None
            if target is not None and running is None:
                self._dispatchers[name] = self._dispatch(name, target)

    def start(self) -> None:
        """Starts to deliver for all subscriptions there are."""
        for subscription in self._resources.subscriptions():
            self.refresh(subscription.name)

    def stop(self, grace_s: float) -> None:
        """Stops; waits at most `grace_s` for requests under way. What is not answered then is pushed again later."""
        with self._lock:
            stopping = list(self._dispatchers.values())
        for dispatcher in stopping:
            dispatcher.stop()
        end = time.monotonic() + grace_s
        while time.monotonic() < end and not all(dispatcher.idle() for dispatcher in stopping):
            time.sleep(0.02)

    def _dispatch(self, name: str, target: PushTarget) -> PushDispatcher:
        dispatcher = PushDispatcher(name, target, self._store, self._resources, self._wakeups, self._tokens)
        dispatcher.start()
        return dispatcher
