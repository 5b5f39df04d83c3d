"""What the checks need of the client: connections that remember their errors, and waits with an end."""

import asyncio
import contextlib
import time

import nats

from broker import Failure


class Connection(nats.NATS):
    """A client that keeps what it was told: errors, disconnections, reconnections, the way into lame duck mode."""

    def __init__(self):
        super().__init__()
        self.errors = []
        self.events = []

    async def open(self, url, **options):
        async def error(problem):
            self.errors.append(str(problem))

        def event(name):
            async def note():
                self.events.append(name)

            return note

        settings = {"allow_reconnect": False, "connect_timeout": 5, **options}
        await self.connect(
            url, error_cb=error, disconnected_cb=event("disconnected"), reconnected_cb=event("reconnected"),
            closed_cb=event("closed"), lame_duck_mode_cb=event("lame duck"), **settings,
        )
        return self

    async def flush(self, timeout=10):
        """The client's own flush lets its PING overtake what waits to be sent, so only the second one means that
        everything that was sent before has been worked off."""
        await super().flush(timeout)
        await super().flush(timeout)


@contextlib.asynccontextmanager
async def connected(url, **options):
    """A connection for one block."""
    connection = await Connection().open(url, **options)
    try:
        yield connection
    finally:
        with contextlib.suppress(Exception):
            await connection.close()


async def refused(url, **options):
    """The error that an attempt to connect ends with."""
    try:
        async with connected(url, **options):
            pass
    except Exception as error:  # which one is the caller's question
        return f"{type(error).__name__}: {error}"
    raise Failure(f"a connection to {url} was accepted, and should not have been")


async def until(what, condition, seconds=10):
    """Looks until it is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not within {seconds} s")
        await asyncio.sleep(0.005)


async def next_data(subscription, seconds=5):
    """The payload of the next message."""
    try:
        return (await subscription.next_msg(seconds)).data
    except nats.errors.TimeoutError:
        raise Failure(f"no message on {subscription.subject!r} within {seconds} s") from None


async def nothing_more(connection, *subscriptions):
    """Everything that was sent before is here after a round trip, so what is not waiting then does not come."""
    await connection.flush()
    for subscription in subscriptions:
        if subscription.pending_msgs:
            message = await subscription.next_msg(1)
            raise Failure(f"a message on {subscription.subject!r} that should not be there: {message.subject} {message.data!r}")


async def serve(connection, subject, answer, queue=""):
    """Answers requests on `subject` with what `answer` makes of them."""

    async def reply(message):
        await message.respond(answer(message))

    subscription = await connection.subscribe(subject, queue=queue, cb=reply)
    await connection.flush()
    return subscription
