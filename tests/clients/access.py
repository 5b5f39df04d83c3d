"""Who may come in, and what they may do."""

import os

import nats
import nkeys

from broker import Failure, expect, expect_in
from client import connected, next_data, nothing_more, refused, serve, until

REFUSED = "Authorization Violation"


async def user(lab):
    """user and password: the right one comes in, others and nobody are refused with the reason"""
    with lab.broker('authorization { user: "ann", password: "s3cret" }') as broker:
        async with connected(broker.url(), user="ann", password="s3cret") as nc:
            await nc.flush()
        async with connected(broker.url(credentials="ann:s3cret")) as nc:
            await nc.flush()
        for options in ({}, {"user": "ann", "password": "wrong"}, {"user": "bob", "password": "s3cret"}):
            expect_in(f"error with {options}", REFUSED, await refused(broker.url(), **options))


async def hashed_password(lab):
    """a password that the file holds as a bcrypt hash"""
    # Of "s3cret", cost 4.
    known = "$2b$04$v.dHgzzlRCVic/q5Y.EmC.EssfqKXfmDeZ8gr8zGv0YCvFNZLIWF6"
    with lab.broker(f'authorization {{ users: [ {{ user: ann, password: "{known}" }} ] }}') as broker:
        async with connected(broker.url(), user="ann", password="s3cret") as nc:
            await nc.flush()
        expect_in("error", REFUSED, await refused(broker.url(), user="ann", password="s3cre"))
        expect_in("error with the hash itself", REFUSED, await refused(broker.url(), user="ann", password=known))


async def token(lab):
    """a token comes in, another does not"""
    with lab.broker('authorization { token: "t0ken" }') as broker:
        async with connected(broker.url(), token="t0ken") as nc:
            await nc.flush()
        expect_in("error", REFUSED, await refused(broker.url(), token="T0ken"))
        expect_in("error without", REFUSED, await refused(broker.url()))


async def nkey(lab):
    """a client proves its key by signing the nonce; another key is refused"""
    seeds = [nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER) for _ in range(2)]
    public = nkeys.from_seed(bytearray(seeds[0])).public_key.decode()
    with lab.broker(f"authorization {{ users: [ {{ nkey: {public} }} ] }}") as broker:
        async with connected(broker.url(), nkeys_seed_str=seeds[0].decode()) as nc:
            await nc.flush()
        expect_in("error", REFUSED, await refused(broker.url(), nkeys_seed_str=seeds[1].decode()))


async def no_auth_user(lab):
    """who names nobody is the user that the file says"""
    configuration = """
        no_auth_user: guest
        authorization { users: [
            { user: guest, password: g, permissions { publish: "hall.>" , subscribe: "hall.>" } }
            { user: ann, password: a }
        ] }"""
    with lab.broker(configuration) as broker:
        async with connected(broker.url()) as guest, connected(broker.url(), user="ann", password="a") as ann:
            inside = await ann.subscribe(">")
            await ann.flush()
            await guest.publish("hall.x", b"1")
            await guest.publish("study", b"2")
            await guest.flush()
            expect("what the guest could say", await next_data(inside), b"1")
            await nothing_more(ann, inside)
            expect_in("error", REFUSED, await refused(broker.url(), user="ann", password="g"))


async def permissions(lab):
    """what is not allowed is told and does not happen; the connection and everything else go on"""
    configuration = """
        authorization { users: [
            { user: root, password: r }
            { user: ann, password: a, permissions {
                publish { allow: ["ask.*", "own.>"], deny: ["own.secret"] }
                subscribe { allow: ["_INBOX.>", "own.*"], deny: "own.hidden" } } }
        ] }"""
    with lab.broker(configuration) as broker:
        async with connected(broker.url(), user="root", password="r") as root, \
                   connected(broker.url(), user="ann", password="a") as ann:
            everything = await root.subscribe("own.>")
            own = await ann.subscribe("own.*")
            await root.flush()
            refused_subjects = ["other", "own.secret", "ask.too.deep"]
            for subject in refused_subjects:
                await ann.publish(subject, b"no")
            await ann.publish("own.open", b"yes")
            await ann.flush()
            await until("three errors", lambda: len(ann.errors) == 3)
            for subject, error in zip(refused_subjects, ann.errors, strict=True):
                # The client puts errors into small letters.
                expect_in("the error", f'permissions violation for publish to "{subject}"', error.lower())
            expect("what root heard", await next_data(everything), b"yes")
            expect("what ann heard", await next_data(own), b"yes")
            await nothing_more(root, everything)
            await ann.subscribe("other.>")
            await ann.flush()
            await until("the fourth error", lambda: len(ann.errors) == 4)
            expect_in("the error", 'permissions violation for subscription to "other.>"', ann.errors[3].lower())
            await root.publish("own.hidden", b"hidden")
            await root.publish("own.seen", b"seen")
            await root.flush()
            expect("what ann hears of own.*", await next_data(own), b"seen")
            await serve(root, "ask.name", lambda _: b"root")
            expect("answer", (await ann.request("ask.name", timeout=5)).data, b"root")
            expect("ann is still connected", ann.is_connected, True)


async def allowed_responses(lab):
    """a responder without rights to publish may answer, as often as it says, and only that"""
    configuration = """
        authorization { users: [
            { user: root, password: r }
            { user: bot, password: b, permissions { subscribe: "ask", allow_responses: { max: 2, expires: "1m" } } }
        ] }"""
    with lab.broker(configuration) as broker:
        async with connected(broker.url(), user="root", password="r") as root, \
                   connected(broker.url(), user="bot", password="b") as bot:
            asked = await bot.subscribe("ask")
            answers = await root.subscribe("answers")
            await bot.flush()
            await root.publish("ask", b"", reply="answers")
            message = await asked.next_msg(5)
            for number in range(3):
                await bot.publish(message.reply, b"%d" % number)
            await bot.flush()
            expect("the first answers", [await next_data(answers) for _ in range(2)], [b"0", b"1"])
            await nothing_more(root, answers)
            await until("the third is refused", lambda: bot.errors)
            expect_in("the error", "permissions violation for publish", bot.errors[0].lower())


async def accounts(lab):
    """accounts hear nothing of each other but what one exports and the other imports"""
    configuration = """
        accounts {
            ALPHA { users: [ { user: a, password: a } ]
                    exports: [ { service: "time" }, { stream: "news.>" } ] }
            BETA  { users: [ { user: b, password: b } ]
                    imports: [ { service: { account: ALPHA, subject: "time" }, to: "alpha.time" }
                               { stream: { account: ALPHA, subject: "news.>" }, prefix: "from" } ] }
        }"""
    with lab.broker(configuration) as broker:
        async with connected(broker.url(), user="a", password="a") as alpha, \
                   connected(broker.url(), user="b", password="b") as beta:
            here, there = await alpha.subscribe("private"), await beta.subscribe("private")
            news = await beta.subscribe("from.news.>")
            await serve(alpha, "time", lambda message: b"noon, " + message.data)
            await alpha.flush()
            await beta.flush()
            await alpha.publish("private", b"mine")
            await alpha.publish("news.today", b"rain")
            await alpha.flush()
            expect("own account", await next_data(here), b"mine")
            message = await news.next_msg(5)
            expect("imported stream", (message.subject, message.data), ("from.news.today", b"rain"))
            await nothing_more(beta, there)
            expect("imported service", (await beta.request("alpha.time", b"b", timeout=5)).data, b"noon, b")
            try:
                await beta.request("time", b"", timeout=5)
                raise Failure("a service answered under a name that was not imported")
            except nats.errors.NoRespondersError:
                pass


async def mappings(lab):
    """a mapped subject arrives under its new name"""
    configuration = 'mappings: { "orders.*.*": "orders.{{wildcard(2)}}.{{wildcard(1)}}", old: new }'
    with lab.broker(configuration) as broker:
        async with connected(broker.url()) as nc:
            everything = await nc.subscribe(">")
            for subject, wanted in (("orders.a.b", "orders.b.a"), ("old", "new"), ("other", "other")):
                await nc.publish(subject, b"x")
                expect(f"subject of {subject}", (await everything.next_msg(5)).subject, wanted)


ALL = [
    user, hashed_password, token, nkey, no_auth_user, permissions, allowed_responses, accounts, mappings,
]
