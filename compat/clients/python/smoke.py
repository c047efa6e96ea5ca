"""redis-py over hiredis, and redis-py's own parser: the server must look like Redis to both."""

import sys

import redis
from redis.exceptions import ResponseError, WatchError

port = int(sys.argv[1])


def smoke(protocol):
    r = redis.Redis(port=port, protocol=protocol)
    assert r.flushall() and r.ping()
    assert r.set("k", b"\x00\xff\r\n") and r.get("k") == b"\x00\xff\r\n"
    assert r.set("k", "v", nx=True) is None and r.set("k", "w", xx=True, get=True) == b"\x00\xff\r\n"
    assert r.incr("n") == 1 and r.incrby("n", 41) == 42 and r.incrbyfloat("f", 0.1) == 0.1
    assert r.mset({"a": 1, "b": 2}) and r.mget("a", "b", "none") == [b"1", b"2", None]
    assert r.set("t", "x", ex=100) and 0 < r.ttl("t") <= 100 and r.persist("t") and r.ttl("t") == -1

    with r.pipeline(transaction=False) as pipe:
        for i in range(1000):
            pipe.set(f"p:{i}", i)
        assert all(pipe.execute())
    assert len(set(r.scan_iter(match="p:*", count=50))) == 1000

    with r.pipeline() as pipe:
        pipe.watch("n")
        r.incr("n")
        pipe.multi()
        pipe.set("n", 0)
        try:
            pipe.execute()
            raise AssertionError("EXEC after a change of a watched key")
        except WatchError:
            pass
    with r.pipeline() as pipe:
        assert pipe.incr("n").incr("n").execute() == [44, 45]

    assert r.rpush("l", "a", "b", "c") == 3 and r.lrange("l", 0, -1) == [b"a", b"b", b"c"] and r.lpop("l", 2) == [b"a", b"b"]
    assert r.sadd("s", "x", "y") == 2 and r.smembers("s") == {b"x", b"y"}
    assert r.hset("h", mapping={"f": 1, "g": 2}) == 2 and r.hgetall("h") == {b"f": b"1", b"g": b"2"}
    assert r.zadd("z", {"one": 1, "half": 0.5}) == 2
    pairs = r.zrange("z", 0, -1, withscores=True)
    assert [tuple(p) for p in pairs] == [(b"half", 0.5), (b"one", 1.0)], pairs
    assert r.setbit("bits", 7, 1) == 0 and r.bitcount("bits") == 1
    assert r.bitfield("bits").incrby("u8", 8, 3).get("u8", 0).execute() == [3, 1]

    big = bytes(range(256)) * 8192
    assert r.set("big", big) and r.get("big") == big
    try:
        r.lpush("k", "x")
        raise AssertionError("no WRONGTYPE")
    except ResponseError as error:
        assert str(error).startswith("WRONGTYPE"), error
    assert r.client_setname("smoke") and r.client_getname() in (b"smoke", "smoke")
    assert r.config_get("maxmemory*") and r.info("server")["redis_version"] and r.dbsize() > 1000
    assert "get" in r.command() and r.time()[0] > 0


def look(r):
    epoch = r.execute_command("LOOK.EPOCH")
    r.set("past", "new")
    assert r.execute_command("LOOK.EPOCH") == epoch + 1
    assert r.execute_command("LOOK.AT", epoch, "GET", "past") is None
    assert r.execute_command("LOOK.ONCE", "token", "INCR", "once") == 1
    assert r.execute_command("LOOK.ONCE", "token", "INCR", "once") == 1


for version in (2, 3):
    smoke(version)
client = redis.Redis(port=port)
try:
    client.execute_command("LOOK.EPOCH")
except ResponseError:
    print("python: not Look, LOOK.* skipped")
else:
    look(client)
print(f"python: redis-py {redis.__version__}, hiredis {redis.utils.HIREDIS_AVAILABLE}: ok")
